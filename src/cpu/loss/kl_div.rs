//! Kullback–Leibler divergence over vectors, of probabilities or of their logarithms.

use crate::cpu::elementwise::pass::{Element, ElementLoss};
use crate::cpu::simd::{Simd, exp_to_the_end, ln_plus};
use crate::spec::elementwise::Options;

/// q·(ln q − x).
#[derive(Clone, Copy)]
pub(crate) struct KlDiv;

impl ElementLoss for KlDiv {
    fn new(_: Options) -> Self {
        KlDiv
    }

    #[inline(always)]
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        let zero = s.splat(0.0);
        let ratio = ln_plus(s, e.y, s.sub(zero, e.x));
        // A probability of 0 silences −∞, not +∞ and not NaN.
        let silent = s.select_eq(e.x, s.splat(f32::NEG_INFINITY), zero, s.mul(e.x, zero));
        let value = s.select_eq(e.y, zero, silent, s.mul(e.y, ratio));
        s.mul(e.weight, value)
    }

    #[inline(always)]
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        s.mul(s.sub(s.splat(0.0), e.y), factor)
    }

    /// ln q + 1 − x; below 0 it is NaN, and 0 where the upstream gradient is 0.
    #[inline(always)]
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        let (zero, nan) = (s.splat(0.0), s.splat(f32::NAN));
        let slope = s.add(ln_plus(s, e.y, s.sub(zero, e.x)), s.splat(1.0));
        let below = s.select_eq(factor, zero, zero, nan);
        let slope = s.select_eq(e.y, zero, nan, s.mul(slope, factor));
        s.select_lt(e.y, zero, below, slope)
    }
}

/// e^y·(y − x).
#[derive(Clone, Copy)]
pub(crate) struct KlDivLogTarget;

impl KlDivLogTarget {
    /// e^y·(distance + more), which is `distance` where that is infinite though e^y underflows, and
    /// 0 where it is 0 though e^y overflows; 0 where y = −∞, unless x is NaN.
    #[inline(always)]
    pub(crate) fn product<S: Simd>(self, s: S, e: Element<S::V>, more: f32) -> S::V {
        let (zero, inf) = (s.splat(0.0), s.splat(f32::INFINITY));
        let distance = s.sub(e.y, e.x);
        let factor = s.add(distance, s.splat(more));
        let product = s.mul(exp_to_the_end(s, e.y), factor);
        let product = s.select_eq(factor, zero, zero, product);
        let product = s.select_eq(s.abs(distance), inf, distance, product);
        let silent = s.select_eq(e.x, e.x, zero, e.x);
        s.select_eq(e.y, s.splat(f32::NEG_INFINITY), silent, product)
    }
}

impl ElementLoss for KlDivLogTarget {
    fn new(_: Options) -> Self {
        KlDivLogTarget
    }

    #[inline(always)]
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        s.mul(e.weight, self.product(s, e, 0.0))
    }

    #[inline(always)]
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        s.mul(s.sub(s.splat(0.0), exp_to_the_end(s, e.y)), factor)
    }

    #[inline(always)]
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        s.mul(self.product(s, e, 1.0), factor)
    }
}
