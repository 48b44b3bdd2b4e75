//! The hinge of embeddings over vectors: x unless y is −1, max(0, margin − x) unless y is 1.

use crate::cpu::elementwise::pass::{Element, ElementLoss};
use crate::cpu::simd::Simd;
use crate::spec::elementwise::Options;

#[derive(Clone, Copy)]
pub(crate) struct HingeEmbedding {
    margin: f32,
}

/// 0 where y is `silent`.
#[inline(always)]
fn unless<S: Simd>(s: S, silent: f32, y: S::V, value: S::V) -> S::V {
    s.select_eq(y, s.splat(silent), s.splat(0.0), value)
}

impl ElementLoss for HingeEmbedding {
    const PAD_TARGET: f32 = 1.0;

    fn new([margin, _]: Options) -> Self {
        HingeEmbedding { margin }
    }

    #[inline(always)]
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        // max returns its second operand for NaN, which goes through.
        let short = s.max(s.splat(0.0), s.sub(s.splat(self.margin), e.x));
        let sum = s.add(unless(s, 1.0, e.y, short), unless(s, -1.0, e.y, e.x));
        s.mul(e.weight, sum)
    }

    #[inline(always)]
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        let (zero, one) = (s.splat(0.0), s.splat(1.0));
        let short = s.select_lt(zero, s.sub(s.splat(self.margin), e.x), one, zero);
        let slope = s.sub(unless(s, -1.0, e.y, one), unless(s, 1.0, e.y, short));
        s.mul(slope, factor)
    }

    /// The target only chooses.
    #[inline(always)]
    fn grad_y<S: Simd>(self, s: S, _: Element<S::V>, factor: S::V) -> S::V {
        s.mul(s.splat(0.0), factor)
    }
}
