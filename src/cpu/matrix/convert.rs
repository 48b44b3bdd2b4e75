//! Rows of 16 bits widened to f32, and f32 rounded to them, by vectors.

use crate::cpu::simd::{Kernel, Lanes, Level, Simd, load_lanes, store_lanes};

/// A row in f32.
pub(crate) fn widen<T: Lanes>(level: Level, from: &[T], to: &mut [f32]) {
    assert_eq!(from.len(), to.len());
    let (x, out, len) = (from.as_ptr(), to.as_mut_ptr(), from.len());
    level.run(Convert::<T, f32, false> { x, out, len });
}

/// A row of f32 rounded once, or the sum of it and of what is there.
pub(crate) fn round<T: Lanes>(level: Level, from: &[f32], to: &mut [T], add: bool) {
    assert_eq!(from.len(), to.len());
    let (x, out, len) = (from.as_ptr(), to.as_mut_ptr(), from.len());
    match add {
        true => level.run(Convert::<f32, T, true> { x, out, len }),
        false => level.run(Convert::<f32, T, false> { x, out, len }),
    }
}

struct Convert<A, B, const ADD: bool> {
    x: *const A,
    out: *mut B,
    len: usize,
}

impl<A: Lanes, B: Lanes, const ADD: bool> Kernel for Convert<A, B, ADD> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Convert { x, out, len } = self;
        let mut i = 0;
        while i < len {
            let n = S::LANES.min(len - i);
            // SAFETY: `widen` and `round`, which alone make a `Convert`, have `len` elements at `x` and `out`.
            unsafe {
                let mut v = load_lanes(s, x.add(i), n, 0.0);
                if ADD {
                    v = s.add(load_lanes(s, out.add(i).cast_const(), n, 0.0), v);
                }
                store_lanes(s, out.add(i), n, v);
            }
            i += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{round, widen};
    use crate::cpu::simd::{Lanes, Level};
    use half::{bf16, f16};

    /// Bits of every kind, and so many that vectors have whole ones and ends.
    fn numbers(len: usize) -> Vec<f32> {
        let mixed = |i: usize| (i as u32).wrapping_mul(0x9e37_79b9).rotate_left(7);
        (0..len).map(|i| f32::from_bits(mixed(i + 1))).collect()
    }

    fn is_same(a: f32, b: f32) -> bool {
        a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
    }

    fn check<T: Lanes>() {
        for level in Level::available() {
            for len in (0..70).chain([513]) {
                let wide = numbers(len);
                let before: Vec<T> = wide.iter().rev().map(|&v| T::from_f32(v * 0.5)).collect();
                for add in [false, true] {
                    let mut got = before.clone();
                    round(level, &wide, &mut got, add);
                    for (i, (got, &wide)) in got.iter().zip(&wide).enumerate() {
                        let before = if add { before[i].to_f32() } else { 0.0 };
                        let expected = T::from_f32(before + wide).to_f32();
                        let what = format!("{}: {before} + {wide:e}", level.name());
                        assert!(is_same(got.to_f32(), expected), "{what}: {}", got.to_f32());
                    }
                    let mut back = vec![f32::NAN; len];
                    widen(level, &got, &mut back);
                    assert!(back.iter().zip(&got).all(|(&b, g)| is_same(b, g.to_f32())));
                }
            }
        }
    }

    #[test]
    fn rows_are_widened_and_rounded_as_one_number_is() {
        check::<f16>();
        check::<bf16>();
        check::<f32>();
    }
}
