//! Jensen–Shannon divergence over vectors, and the Kullback–Leibler divergence at one of its ends.

use crate::cpu::elementwise::pass::{Element, ElementLoss};
use crate::cpu::loss::kl_div::KlDivLogTarget;
use crate::cpu::simd::{Simd, exp_m1, exp_to_the_end, ln_1p, minus_ln_1m_half, one_minus_exp};
use crate::spec::elementwise::Options;

/// e^x·(x − y).
#[derive(Clone, Copy)]
pub(crate) struct KlDivReversed;

#[inline(always)]
fn reversed<V: Copy>(e: Element<V>) -> Element<V> {
    Element { x: e.y, y: e.x, ..e }
}

impl ElementLoss for KlDivReversed {
    fn new(_: Options) -> Self {
        KlDivReversed
    }

    #[inline(always)]
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        KlDivLogTarget.value(s, reversed(e))
    }

    #[inline(always)]
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        KlDivLogTarget.grad_y(s, reversed(e), factor)
    }

    #[inline(always)]
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        KlDivLogTarget.grad_x(s, reversed(e), factor)
    }
}

/// β·P·(y − ln M) + (1 − β)·Q·(x − ln M), β inside (0, 1).
///
/// The tensor with the lesser share c ≤ ½ of the mixture is z, the other one w. With v = z − w,
///
/// ```text
/// w − ln M = −ln(1 + c·(e^v − 1))      z − ln M = v + (w − ln M)
/// ```
///
/// The first is no difference at all, and at most half of v where v is near 0: so both keep their
/// digits where P is near Q, and where c is next to nothing.
#[derive(Clone, Copy)]
pub(crate) struct JsDiv {
    /// c and 1 − c.
    lesser: f32,
    greater: f32,
    /// Whether z is x.
    of_input: bool,
    /// From here on of v, ln M is z + ln c to the last digit.
    alone: f32,
}

impl JsDiv {
    pub(crate) fn of_share(beta: f32) -> JsDiv {
        let (lesser, greater) = (beta.min(1.0 - beta), beta.max(1.0 - beta));
        // e^−17.5 is less than half of f32's last place; e^88 is near the end of its range.
        let alone = (17.5 - lesser.ln()).min(88.0);
        JsDiv { lesser, greater, of_input: beta > 0.5, alone }
    }

    /// (1 − β)·Q·(x − ln M) and β·P·(y − ln M), the slopes, which add up to the value; u is x − y,
    /// q and p are e^x and e^y. What has no probability adds 0 whatever its distance.
    #[inline(always)]
    pub(crate) fn slopes<S: Simd>(self, s: S, [q, p]: [S::V; 2], u: S::V) -> (S::V, S::V) {
        let (zero, alone) = (s.splat(0.0), s.splat(self.alone));
        if self.lesser == 0.5 {
            // As it stands for every share, with the larger of x and y for w: v ≤ 0 has no end.
            let size = s.abs(u);
            let of_larger = minus_ln_1m_half(s, one_minus_exp(s, size));
            let of_other = s.sub(of_larger, size);
            let at_x = s.select_lt(zero, u, of_larger, of_other);
            let at_y = s.select_lt(zero, u, of_other, of_larger);
            return (weighed(s, 0.5, q, at_x), weighed(s, 0.5, p, at_y));
        }
        let v = if self.of_input { u } else { s.sub(zero, u) };
        let t = s.min(alone, v); // NaN stays NaN
        let ln = ln_1p(s, s.mul(s.splat(self.lesser), exp_m1(s, t)));
        let at_z = s.sub(t, ln);
        let at_w = s.select_lt(alone, v, s.sub(at_z, v), s.sub(zero, ln));
        let (z, w) = if self.of_input { (q, p) } else { (p, q) };
        let z = weighed(s, self.lesser, z, at_z);
        let w = weighed(s, self.greater, w, at_w);
        if self.of_input { (z, w) } else { (w, z) }
    }

    #[inline(always)]
    fn of<S: Simd>(self, s: S, e: Element<S::V>) -> (S::V, S::V) {
        let probabilities = [exp_to_the_end(s, e.x), exp_to_the_end(s, e.y)];
        let (at_x, at_y) = self.slopes(s, probabilities, s.sub(e.x, e.y));
        // A NaN is not silenced by the other's vanished probability.
        (s.select_eq(e.y, e.y, at_x, e.y), s.select_eq(e.x, e.x, at_y, e.x))
    }
}

/// weight·p·distance, 0 where p is. (Not a closure: that would not be compiled for the
/// instruction set.)
#[inline(always)]
fn weighed<S: Simd>(s: S, weight: f32, p: S::V, distance: S::V) -> S::V {
    let zero = s.splat(0.0);
    s.select_eq(p, zero, zero, s.mul(s.mul(s.splat(weight), p), distance))
}

impl ElementLoss for JsDiv {
    fn new([beta, _]: Options) -> Self {
        JsDiv::of_share(beta)
    }

    #[inline(always)]
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        let (at_x, at_y) = self.of(s, e);
        s.mul(e.weight, s.add(at_x, at_y))
    }

    #[inline(always)]
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        s.mul(self.of(s, e).0, factor)
    }

    #[inline(always)]
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        s.mul(self.of(s, e).1, factor)
    }
}
