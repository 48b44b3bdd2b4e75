//! The soft margin over vectors: softplus(w) of w = −x·y, slope σ(w).

use crate::cpu::elementwise::pass::{Element, ElementLoss};
use crate::cpu::loss::bce_with_logits::{softplus, tail};
use crate::cpu::simd::Simd;
use crate::spec::elementwise::Options;

#[derive(Clone, Copy)]
pub(crate) struct SoftMargin;

impl SoftMargin {
    #[inline(always)]
    fn w<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        s.mul(s.sub(s.splat(0.0), e.x), e.y)
    }

    /// −σ(w), no difference.
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        let (w, zero, one) = (self.w(s, e), s.splat(0.0), s.splat(1.0));
        let q = tail(s, w);
        let above = s.select_lt(w, zero, q, one);
        s.div(s.sub(zero, above), s.add(one, q))
    }
}

impl ElementLoss for SoftMargin {
    /// softplus(−200) is 0 in f32.
    const PAD: f32 = 200.0;
    const PAD_TARGET: f32 = 1.0;

    fn new(_: Options) -> Self {
        SoftMargin
    }

    #[inline(always)]
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        s.mul(e.weight, softplus(s, self.w(s, e)).0)
    }

    #[inline(always)]
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        s.mul(s.mul(e.y, self.slope(s, e)), factor)
    }

    #[inline(always)]
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        s.mul(s.mul(e.x, self.slope(s, e)), factor)
    }
}
