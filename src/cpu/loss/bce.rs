//! Binary cross entropy of probabilities over vectors, of ln x and ln(1 − x).

use crate::cpu::elementwise::pass::{Element, ElementLoss};
use crate::cpu::simd::{Simd, ln_1p, ln_plus};
use crate::spec::elementwise::Options;

#[derive(Clone, Copy)]
pub(crate) struct Bce;

/// ln x and ln(1 − x): one of them is NaN where x is no probability.
#[inline(always)]
fn logarithms<S: Simd>(s: S, x: S::V) -> [S::V; 2] {
    let zero = s.splat(0.0);
    [ln_plus(s, x, zero), ln_1p(s, s.sub(zero, x))]
}

impl ElementLoss for Bce {
    fn new(_: Options) -> Self {
        Bce
    }

    #[inline(always)]
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        let [yes, no] = logarithms(s, e.x);
        // max returns its second operand for NaN, which goes through.
        let least = s.splat(-100.0);
        let [yes, no] = [s.max(least, yes), s.max(least, no)];
        let sum = s.fma(s.sub(s.splat(1.0), e.y), no, s.mul(e.y, yes));
        s.mul(e.weight, s.sub(s.splat(0.0), sum))
    }

    #[inline(always)]
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        let (zero, one, nan) = (s.splat(0.0), s.splat(1.0), s.splat(f32::NAN));
        let spread = s.max(s.splat(1e-12), s.mul(s.sub(one, e.x), e.x));
        let slope = s.div(s.sub(e.x, e.y), spread);
        let slope = s.select_lt(e.x, zero, nan, s.select_lt(one, e.x, nan, slope));
        s.mul(slope, factor)
    }

    #[inline(always)]
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        let [yes, no] = logarithms(s, e.x);
        s.mul(s.sub(no, yes), factor)
    }
}
