//! Huber and smooth L1 over vectors: with d = x − y and c = min(|d|, threshold), c·(|d| − c/2),
//! gradient d clamped to ±threshold, both over a divisor.

use crate::cpu::elementwise::pass::{Element, ElementLoss};
use crate::cpu::simd::Simd;
use crate::spec::elementwise::Options;

#[derive(Clone, Copy)]
pub(crate) struct Huber {
    threshold: f32,
    /// A division, not a multiplication by 1/divisor, which may be out of range.
    divisor: f32,
}

impl Huber {
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, d: S::V) -> S::V {
        let (low, high) = (s.splat(-self.threshold), s.splat(self.threshold));
        // min and max return their second operand for NaN, which goes through.
        s.div(s.max(low, s.min(high, d)), s.splat(self.divisor))
    }
}

impl ElementLoss for Huber {
    fn new([threshold, divisor]: Options) -> Self {
        Huber { threshold, divisor }
    }

    #[inline(always)]
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        let d = s.sub(e.x, e.y);
        let size = s.abs(d);
        let c = s.min(s.splat(self.threshold), size);
        let beyond = s.fma(c, s.splat(-0.5), size);
        s.mul(e.weight, s.mul(s.abs(self.slope(s, d)), beyond))
    }

    #[inline(always)]
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        s.mul(self.slope(s, s.sub(e.x, e.y)), factor)
    }

    #[inline(always)]
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        s.mul(self.slope(s, s.sub(e.y, e.x)), factor)
    }
}
