//! Mean squared error over vectors: d², gradient 2d, with d = x − y.

use crate::cpu::elementwise::pass::{Element, ElementLoss};
use crate::cpu::simd::Simd;
use crate::spec::elementwise::Options;

#[derive(Clone, Copy)]
pub(crate) struct Mse;

/// Doubled last: the factor may be half of what f32 holds.
#[inline(always)]
fn twice<S: Simd>(s: S, half: S::V) -> S::V {
    s.add(half, half)
}

impl ElementLoss for Mse {
    fn new(_: Options) -> Self {
        Mse
    }

    #[inline(always)]
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        let d = s.sub(e.x, e.y);
        s.mul(e.weight, s.mul(d, d))
    }

    #[inline(always)]
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        twice(s, s.mul(s.sub(e.x, e.y), factor))
    }

    #[inline(always)]
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        twice(s, s.mul(s.sub(e.y, e.x), factor))
    }
}
