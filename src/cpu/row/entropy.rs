//! The loop that makes a stretch of one row into the gradient of log-probability and entropy.

use crate::cpu::row::logit::{Linear, Logit, Transform, each_logit};
use crate::cpu::row::softmax::FARTHEST;
use crate::cpu::simd::{Kernel, Lanes, Level, Simd, exp_nonpositive, load_lanes, store_lanes};

/// What the gradient is made of: `e^d·(constant + slope·d)·dz/dx`, d = z − z(reference), where
/// both factors already hold the constant part of dz/dx.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntropyTerms {
    /// The row's maximum.
    pub(crate) reference: f32,
    pub(crate) constant: f32,
    pub(crate) slope: f32,
}

/// Logits to gradient.
///
/// # Safety
/// `len` elements are readable at `x` and writable at `out`, which is `x` or does not overlap it;
/// nobody else touches `out`.
pub(crate) unsafe fn entropy_gradient<T: Lanes, U: Lanes>(
    level: Level,
    transform: Transform,
    (x, out): (*const T, *mut U),
    len: usize,
    terms: EntropyTerms,
) {
    each_logit!(transform, logit => level.run(EntropyGradient { x, out, len, terms, logit }));
}

struct EntropyGradient<T, U, L> {
    x: *const T,
    out: *mut U,
    len: usize,
    terms: EntropyTerms,
    logit: L,
}

impl<T: Lanes, U: Lanes, L: Logit> Kernel for EntropyGradient<T, U, L> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let EntropyGradient { x, out, len, terms, logit } = self;
        let (reference, farthest) = (s.splat(terms.reference), s.splat(FARTHEST));
        let (constant, slope) = (s.splat(terms.constant), s.splat(terms.slope));
        // Pairs are rounded as if no NaN could come up: there is none in a row with a maximum.
        let pairs = T::DTYPE == U::DTYPE && (terms.constant + terms.slope).is_finite();
        let mut i = 0;
        // SAFETY: whoever makes an `EntropyGradient` vouches for `len` elements at `x` and `out`.
        unsafe {
            while pairs && i + 2 * S::LANES <= len {
                let mut g = T::load2(s, x.add(i));
                for z in &mut g {
                    let (d, bend) = logit.distance(s, *z, reference);
                    let factor = s.fma(slope, s.max(farthest, d), constant);
                    *z = s.mul(exp_nonpositive(s, d), factor);
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
                let g = s.mul(exp_nonpositive(s, d), factor);
                store_lanes(s, out.add(i), n, if L::LINEAR { g } else { s.mul(g, bend) });
                i += n;
            }
        }
    }
}
