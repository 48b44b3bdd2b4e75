//! Binary cross entropy with logits over vectors, from e = e^(−|x|) and ln(1 + e) alone.

use crate::cpu::elementwise::pass::{Element, ElementLoss};
use crate::cpu::simd::{Simd, exp_nonpositive, ln_1p_of_unit};
use crate::spec::elementwise::Options;

#[derive(Clone, Copy)]
pub(crate) struct BceWithLogits;

/// e^(−|x|).
#[inline(always)]
pub(crate) fn tail<S: Simd>(s: S, x: S::V) -> S::V {
    exp_nonpositive(s, s.sub(s.splat(0.0), s.abs(x)))
}

/// softplus(x) = max(x, 0) + ln(1 + e^(−|x|)), and softplus(−x).
#[inline(always)]
pub(crate) fn softplus<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let zero = s.splat(0.0);
    let l = ln_1p_of_unit(s, tail(s, x));
    (s.add(s.max(x, zero), l), s.add(s.max(s.sub(zero, x), zero), l))
}

/// coefficient·value, where a coefficient of 0 silences what is infinite (and no NaN).
#[inline(always)]
pub(crate) fn term<S: Simd>(s: S, coefficient: S::V, value: S::V) -> S::V {
    let (zero, inf) = (s.splat(0.0), s.splat(f32::INFINITY));
    let silenced = s.select_eq(coefficient, zero, zero, value);
    s.mul(coefficient, s.select_eq(s.abs(value), inf, silenced, value))
}

impl ElementLoss for BceWithLogits {
    /// softplus(−∞) is 0.
    const PAD: f32 = f32::NEG_INFINITY;

    fn new(_: Options) -> Self {
        BceWithLogits
    }

    /// Both terms have ln(1 + e) in them, which is finite; a coefficient of 0 silences the rest.
    #[inline(always)]
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        let zero = s.splat(0.0);
        let positive = s.mul(e.weight, s.mul(e.third, e.y));
        let negative = s.mul(e.weight, s.sub(s.splat(1.0), e.y));
        // Of NaN max makes 0: it goes on in l.
        let above = s.select_eq(negative, zero, zero, s.max(e.x, zero));
        let below = s.select_eq(positive, zero, zero, s.max(s.sub(zero, e.x), zero));
        let l = ln_1p_of_unit(s, tail(s, e.x));
        let both = s.fma(positive, below, s.mul(negative, above));
        s.fma(s.add(positive, negative), l, both)
    }

    /// (1 − t)·σ(x) − r·t·σ(−x), neither σ a difference.
    #[inline(always)]
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        let (zero, one) = (s.splat(0.0), s.splat(1.0));
        let q = tail(s, e.x);
        let near = s.div(one, s.add(one, q));
        let far = s.mul(q, near);
        let sigma = s.select_lt(e.x, zero, far, near);
        let rest = s.select_lt(e.x, zero, near, far);
        let negative = s.mul(s.sub(one, e.y), sigma);
        let positive = s.mul(s.mul(e.third, e.y), rest);
        s.mul(s.sub(negative, positive), factor)
    }

    /// r·softplus(−x) − softplus(x) as (r − 1)·ln(1 + e) + r·max(−x, 0) − max(x, 0): −x where
    /// r = 1, without a rounding.
    #[inline(always)]
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        let zero = s.splat(0.0);
        let l = ln_1p_of_unit(s, tail(s, e.x));
        let below = term(s, e.third, s.max(s.sub(zero, e.x), zero));
        let rest = s.sub(below, s.max(e.x, zero));
        let slope = s.fma(s.sub(e.third, s.splat(1.0)), l, rest);
        s.mul(slope, factor)
    }
}
