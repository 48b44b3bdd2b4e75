//! The loops over a stretch of both rows.

use crate::cpu::loss::js_div_logits::terms::{Norm, Pair, Terms};
use crate::cpu::simd::{Kernel, Lanes, Pieces, Simd, exp_nonpositive, load_lanes, store_lanes};

/// Sums of a stretch: of the slopes to x and to y.
pub(super) struct Sums<T, const KEEP: bool> {
    pub(super) x: *const T,
    pub(super) y: *const T,
    /// Slopes to x: written only with KEEP.
    pub(super) kept: *mut f32,
    pub(super) len: usize,
    pub(super) pair: Pair,
}

impl<T: Lanes, const KEEP: bool> Kernel for Sums<T, KEEP> {
    /// Their sum, which is the loss, and each.
    type Out = [f32; 3];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> [f32; 3] {
        let mut totals = [s.splat(0.0); 3];
        for piece in Pieces::of::<S>(self.len, 1) {
            let mut sums = [s.splat(0.0); 3];
            for i in piece.clone().step_by(S::LANES) {
                let n = S::LANES.min(piece.end - i);
                // SAFETY: whoever makes a `Sums` vouches for `len` elements at both.
                let [a, b] = unsafe {
                    let out = f32::NEG_INFINITY;
                    [load_lanes(s, self.x.add(i), n, out), load_lanes(s, self.y.add(i), n, out)]
                };
                let Terms { loss, at_x, at_y, .. } = self.pair.terms(s, a, b);
                if KEEP {
                    // SAFETY: there is room for `len` of them.
                    unsafe { store_lanes(s, self.kept.add(i), n, at_x) };
                }
                // The loss is added up a class at a time: near each other, the slopes nearly cancel.
                for (sum, term) in sums.iter_mut().zip([loss, at_x, at_y]) {
                    *sum = s.add(*sum, term);
                }
            }
            for (total, sum) in totals.iter_mut().zip(sums) {
                *total = s.add(*total, sum);
            }
        }
        [s.reduce_add(totals[0]), s.reduce_add(totals[1]), s.reduce_add(totals[2])]
    }
}

/// Logits to gradients: factor·(slope − p·sum).
pub(super) struct Gradient<T> {
    pub(super) x: *const T,
    pub(super) y: *const T,
    pub(super) out: *mut T,
    /// Null where nobody asked.
    pub(super) out_target: *mut T,
    pub(super) len: usize,
    pub(super) pair: Pair,
    /// Of the model and of the teacher.
    pub(super) factors: [f32; 2],
    pub(super) sums: [f32; 2],
}

impl<T: Lanes> Kernel for Gradient<T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (factors, sums) = (self.factors, self.sums);
        let mut i = 0;
        while i < self.len {
            let n = S::LANES.min(self.len - i);
            // SAFETY: whoever makes a `Gradient` vouches for `len` elements at its pointers, and
            // that what is written is x or y, element by element, or apart from what is read.
            unsafe {
                let out = f32::NEG_INFINITY;
                let a = load_lanes(s, self.x.add(i), n, out);
                let b = load_lanes(s, self.y.add(i), n, out);
                let Terms { at_x, at_y, q, p, .. } = self.pair.terms(s, a, b);
                let dx = centred(s, factors[0], at_x, q, sums[0]);
                store_lanes(s, self.out.add(i), n, dx);
                if !self.out_target.is_null() {
                    let dy = centred(s, factors[1], at_y, p, sums[1]);
                    store_lanes(s, self.out_target.add(i), n, dy);
                }
            }
            i += n;
        }
    }
}

/// The same from slopes that were kept, to the model's logits alone.
pub(super) struct Centre<T> {
    pub(super) x: *const T,
    pub(super) kept: *const f32,
    pub(super) out: *mut T,
    pub(super) len: usize,
    pub(super) norm: Norm,
    pub(super) factor: f32,
    pub(super) sum: f32,
}

impl<T: Lanes> Kernel for Centre<T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut i = 0;
        while i < self.len {
            let n = S::LANES.min(self.len - i);
            // SAFETY: whoever makes a `Centre` vouches for `len` elements at its pointers.
            unsafe {
                let x = load_lanes(s, self.x.add(i), n, f32::NEG_INFINITY);
                let slope = load_lanes(s, self.kept.add(i), n, 0.0);
                let share = exp_nonpositive(s, self.norm.of(s, x));
                let dx = centred(s, self.factor, slope, share, self.sum);
                store_lanes(s, self.out.add(i), n, dx);
            }
            i += n;
        }
    }
}

/// factor·(slope − share·sum).
#[inline(always)]
fn centred<S: Simd>(s: S, factor: f32, slope: S::V, share: S::V, sum: f32) -> S::V {
    s.mul(s.splat(factor), s.fma(share, s.splat(-sum), slope))
}
