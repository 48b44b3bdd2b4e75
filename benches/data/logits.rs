//! What logits the benches work on.

use warploss::Float;

/// Logits between −4 and 4, the same on every run.
pub(crate) fn logits<T: Float>([rows, classes]: [usize; 2]) -> Vec<T> {
    let hash = |i: usize| (i as u32).wrapping_mul(2_654_435_761) >> 16;
    let value = |i| (hash(i) % 129) as f32 / 16.0 - 4.0;
    (0..rows * classes).map(|i| T::from_f32(value(i))).collect()
}
