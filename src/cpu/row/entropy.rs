//! The loop that makes a stretch of one row into the gradient of log-probability and entropy, and of a
//! cross entropy beside them.

use crate::cpu::row::logit::{Linear, Logit, Transform, each_logit};
use crate::cpu::row::softmax::FARTHEST;
use crate::cpu::simd::{Kernel, Lanes, Level, Simd, exp_nonpositive, load_lanes, store_lanes};

/// What the gradient is made of: `(e^d·(constant + slope·d) − smooth·w)·dz/dx`, d = z − z(reference),
/// where all three factors already hold the constant part of dz/dx.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntropyTerms {
    /// The row's maximum.
    pub(crate) reference: f32,
    pub(crate) constant: f32,
    pub(crate) slope: f32,
    pub(crate) smooth: f32,
}

/// Logits to gradient. `weights` are the stretch's own; null for 1 each.
///
/// # Safety
/// `len` elements are readable at `x` (and `weights`, if not null) and writable at `out`, which is `x`
/// or does not overlap it; nobody else touches `out`.
pub(crate) unsafe fn entropy_gradient<T: Lanes, U: Lanes>(
    level: Level,
    transform: Transform,
    (x, out): (*const T, *mut U),
    weights: *const f32,
    len: usize,
    terms: EntropyTerms,
) {
    each_logit!(transform, logit => {
        level.run(EntropyGradient { x, out, weights, len, terms, logit })
    });
}

struct EntropyGradient<T, U, L> {
    x: *const T,
    out: *mut U,
    weights: *const f32,
    len: usize,
    terms: EntropyTerms,
    logit: L,
}

impl<T: Lanes, U: Lanes, L: Logit> Kernel for EntropyGradient<T, U, L> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let EntropyGradient { x, out, weights, len, terms, logit } = self;
        let (reference, farthest) = (s.splat(terms.reference), s.splat(FARTHEST));
        let (constant, slope) = (s.splat(terms.constant), s.splat(terms.slope));
        // Without smoothing -0, which leaves the sign of a 0 what it is.
        let smooth = s.splat(-terms.smooth);
        // Pairs are rounded as if no NaN could come up: there is none in a row with a maximum.
        let finite = (terms.constant + terms.slope + terms.smooth).is_finite();
        let pairs = T::DTYPE == U::DTYPE && weights.is_null() && finite;
        let mut i = 0;
        // SAFETY: whoever makes an `EntropyGradient` vouches for `len` elements at `x`, `out` and the
        // weights.
        unsafe {
            while pairs && i + 2 * S::LANES <= len {
                let mut g = T::load2(s, x.add(i));
                for z in &mut g {
                    let (d, bend) = logit.distance(s, *z, reference);
                    let factor = s.fma(slope, s.max(farthest, d), constant);
                    *z = s.fma(exp_nonpositive(s, d), factor, smooth);
                    if !L::LINEAR {
                        *z = s.mul(*z, bend);
                    }
                }
                U::store2(s, out.add(i), g);
                i += 2 * S::LANES;
            }
            while i < len {
                let n = S::LANES.min(len - i);
                let z = load_lanes(s, x.add(i), n, f32::NEG_INFINITY);
                let (d, bend) = logit.distance(s, z, reference);
                let factor = s.fma(slope, s.max(farthest, d), constant);
                let shift = match weights.is_null() {
                    true => smooth,
                    false => s.mul(load_lanes(s, weights.add(i), n, 0.0), smooth),
                };
                let g = s.fma(exp_nonpositive(s, d), factor, shift);
                store_lanes(s, out.add(i), n, if L::LINEAR { g } else { s.mul(g, bend) });
                i += n;
            }
        }
    }
}
