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

/// Elements that are gone through at once.
const SOME: usize = 256;

/// A row of f32, or the sum of it and of what `to` and `rest` hold: rounded, and what that leaves, rounded. Of an
/// infinity, and of what is rounded to one, nothing is left. The row is gone afterwards.
pub(crate) fn round_keeping<T: Lanes>(
    level: Level,
    from: &mut [f32],
    (to, rest): (&mut [T], &mut [T]),
    add: bool,
) {
    let pieces = from.chunks_mut(SOME).zip(to.chunks_mut(SOME)).zip(rest.chunks_mut(SOME));
    for ((from, to), rest) in pieces {
        let mut memory = [0.0; SOME];
        let wide = &mut memory[..from.len()];
        if add {
            for held in [&*rest, &*to] {
                widen(level, held, wide);
                from.iter_mut().zip(&*wide).for_each(|(sum, held)| *sum += held);
            }
        }
        round(level, from, to, false);
        widen(level, to, wide);
        for (left, sum) in wide.iter_mut().zip(&*from) {
            *left = sum - *left;
            *left = if left.is_finite() { *left } else { 0.0 };
        }
        round(level, wide, rest, false);
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
    use super::{round, round_keeping, widen};
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

    fn keeps<T: Lanes>() {
        for level in Level::available() {
            for len in [1, 17, 256, 700] {
                let mut wide = numbers(len);
                wide[0] = f32::INFINITY;
                wide[len / 2] = f32::MAX;
                let narrow = |by: f32| -> Vec<T> {
                    wide.iter().rev().map(|&v| T::from_f32((v * by).clamp(-9.0, 9.0))).collect()
                };
                for add in [false, true] {
                    let (to, rest) = (narrow(1.0), narrow(0.001));
                    let (mut got, mut left, mut from) = (to.clone(), rest.clone(), wide.clone());
                    round_keeping(level, &mut from, (&mut got, &mut left), add);
                    for i in 0..len {
                        let held = if add { [rest[i].to_f32(), to[i].to_f32()] } else { [0.0; 2] };
                        let sum = (wide[i] + held[0]) + held[1];
                        let near = T::from_f32(sum).to_f32();
                        let of_rest = if (sum - near).is_finite() { sum - near } else { 0.0 };
                        let expected = [near, T::from_f32(of_rest).to_f32()];
                        let got = [got[i].to_f32(), left[i].to_f32()];
                        let same = got.iter().zip(expected).all(|(&g, e)| is_same(g, e));
                        assert!(same, "{} {i}: {got:?}, not {expected:?}", level.name());
                    }
                }
            }
        }
    }

    #[test]
    fn what_rounding_leaves_is_kept() {
        keeps::<f16>();
        keeps::<bf16>();
    }

    #[test]
    fn rows_are_widened_and_rounded_as_one_number_is() {
        check::<f16>();
        check::<bf16>();
        check::<f32>();
    }
}
