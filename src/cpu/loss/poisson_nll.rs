//! The Poisson distribution's negative log-likelihood over vectors, of a rate or of its logarithm.

use crate::cpu::elementwise::pass::{Element, ElementLoss};
use crate::cpu::loss::bce_with_logits::term;
use crate::cpu::simd::{Simd, exp_to_the_end, ln_plus};
use crate::spec::elementwise::Options;

/// ½·ln 2π.
const HALF_LN_TAU: f32 = 0.918_938_5;

/// ln y! by Stirling, y·(ln y − 1) + ½·ln(2π·y) where y > 1, if it is wanted.
#[derive(Clone, Copy)]
struct Stirling(bool);

impl Stirling {
    #[inline(always)]
    fn value<S: Simd>(self, s: S, y: S::V) -> S::V {
        let zero = s.splat(0.0);
        if !self.0 {
            return zero;
        }
        let ln = ln_plus(s, y, zero);
        let half = s.fma(ln, s.splat(0.5), s.splat(HALF_LN_TAU));
        let sum = s.add(s.mul(y, s.sub(ln, s.splat(1.0))), half);
        s.select_lt(s.splat(1.0), y, sum, zero)
    }

    #[inline(always)]
    fn slope<S: Simd>(self, s: S, y: S::V) -> S::V {
        let zero = s.splat(0.0);
        if !self.0 {
            return zero;
        }
        let sum = s.add(ln_plus(s, y, zero), s.div(s.splat(0.5), y));
        s.select_lt(s.splat(1.0), y, sum, zero)
    }
}

/// Of the rate's logarithm.
#[derive(Clone, Copy)]
pub(crate) struct PoissonNll(Stirling);

impl ElementLoss for PoissonNll {
    /// e^−200 is 0 in f32.
    const PAD: f32 = -200.0;

    fn new([full, _]: Options) -> Self {
        PoissonNll(Stirling(full != 0.0))
    }

    #[inline(always)]
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        let own = s.sub(exp_to_the_end(s, e.x), term(s, e.y, e.x));
        s.mul(e.weight, s.add(own, self.0.value(s, e.y)))
    }

    #[inline(always)]
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        s.mul(s.sub(exp_to_the_end(s, e.x), e.y), factor)
    }

    #[inline(always)]
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        s.mul(s.sub(self.0.slope(s, e.y), e.x), factor)
    }
}

/// Of the rate.
#[derive(Clone, Copy)]
pub(crate) struct PoissonNllOfRate {
    stirling: Stirling,
    eps: f32,
}

impl PoissonNllOfRate {
    #[inline(always)]
    fn ln<S: Simd>(self, s: S, x: S::V) -> S::V {
        ln_plus(s, s.add(x, s.splat(self.eps)), s.splat(0.0))
    }
}

impl ElementLoss for PoissonNllOfRate {
    fn new([full, eps]: Options) -> Self {
        PoissonNllOfRate { stirling: Stirling(full != 0.0), eps }
    }

    #[inline(always)]
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        let own = s.sub(e.x, term(s, e.y, self.ln(s, e.x)));
        s.mul(e.weight, s.add(own, self.stirling.value(s, e.y)))
    }

    #[inline(always)]
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        let (zero, rate) = (s.splat(0.0), s.add(e.x, s.splat(self.eps)));
        // 0/0: no events of no rate.
        let silenced = s.select_eq(e.y, zero, zero, s.div(e.y, rate));
        let quotient = s.select_eq(rate, zero, silenced, s.div(e.y, rate));
        s.mul(s.sub(s.splat(1.0), quotient), factor)
    }

    #[inline(always)]
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        s.mul(s.sub(self.stirling.slope(s, e.y), self.ln(s, e.x)), factor)
    }
}
