//! Absolute error over vectors: |d|, gradient sign(d), with d = x − y.

use crate::cpu::elementwise::pass::{Element, ElementLoss};
use crate::cpu::simd::Simd;
use crate::spec::elementwise::Options;

#[derive(Clone, Copy)]
pub(crate) struct L1;

/// 0 where a = b, and where either is NaN.
#[inline(always)]
fn signed_by_order<S: Simd>(s: S, a: S::V, b: S::V, factor: S::V) -> S::V {
    let zero = s.splat(0.0);
    s.select_lt(b, a, factor, s.select_lt(a, b, s.sub(zero, factor), s.mul(factor, zero)))
}

impl ElementLoss for L1 {
    fn new(_: Options) -> Self {
        L1
    }

    #[inline(always)]
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        s.mul(e.weight, s.abs(s.sub(e.x, e.y)))
    }

    #[inline(always)]
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        signed_by_order(s, e.x, e.y, factor)
    }

    #[inline(always)]
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        signed_by_order(s, e.y, e.x, factor)
    }
}
