//! The normal distribution's negative log-likelihood over vectors.

use crate::cpu::elementwise::pass::{Element, ElementLoss};
use crate::cpu::simd::{Simd, ln_plus};
use crate::spec::elementwise::Options;

/// ½·ln 2π.
const HALF_LN_TAU: f32 = 0.918_938_5;

#[derive(Clone, Copy)]
pub(crate) struct GaussianNll {
    eps: f32,
    /// What is added to every element.
    constant: f32,
}

/// x − y, and the variance, at least ε; NaN goes through.
struct Parts<V> {
    d: V,
    v: V,
}

impl GaussianNll {
    #[inline(always)]
    fn parts<S: Simd>(self, s: S, e: Element<S::V>) -> Parts<S::V> {
        let eps = s.splat(self.eps);
        Parts { d: s.sub(e.x, e.y), v: s.select_lt(e.third, eps, eps, e.third) }
    }
}

impl ElementLoss for GaussianNll {
    const SLOPED: bool = true;
    /// ½·ln v of no variance is none.
    const MASKED: bool = true;

    fn new([eps, full]: Options) -> Self {
        GaussianNll { eps, constant: if full == 0.0 { 0.0 } else { HALF_LN_TAU } }
    }

    #[inline(always)]
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        let Parts { d, v } = self.parts(s, e);
        let sum = s.fma(d, s.div(d, v), ln_plus(s, v, s.splat(0.0)));
        s.mul(e.weight, s.fma(sum, s.splat(0.5), s.splat(self.constant)))
    }

    #[inline(always)]
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        let Parts { d, v } = self.parts(s, e);
        s.mul(s.div(d, v), factor)
    }

    #[inline(always)]
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        let Parts { d, v } = self.parts(s, e);
        s.mul(s.div(s.sub(s.splat(0.0), d), v), factor)
    }

    #[inline(always)]
    fn grad_third<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        let Parts { d, v } = self.parts(s, e);
        let rest = s.fma(s.sub(s.splat(0.0), d), s.div(d, v), s.splat(1.0));
        s.mul(s.div(rest, v), s.mul(factor, s.splat(0.5)))
    }
}
