//! Jensen–Shannon divergence over vectors, and the Kullback–Leibler divergence at one of its ends.

use super::elementwise::{Element, ElementLoss};
use super::kl_div::KlDivLogTarget;
use super::simd::{Simd, exp, exp_m1_nonpositive, ln_1p};

/// e^x·(x − y).
#[derive(Clone, Copy)]
pub(crate) struct KlDivReversed;

#[inline(always)]
fn reversed<V: Copy>(e: Element<V>) -> Element<V> {
    Element { x: e.y, y: e.x, ..e }
}

impl ElementLoss for KlDivReversed {
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
#[derive(Clone, Copy)]
pub(crate) struct JsDiv {
    pub(crate) beta: f32,
}

impl JsDiv {
    /// (1 − β)·Q·(x − ln M) and β·P·(y − ln M), the slopes, which add up to the value; u is x − y.
    ///
    /// With t = −|u| and c the share of the smaller one, the larger of x − ln M and y − ln M is
    /// −ln(1 + c·(e^t − 1)), and the other one less by |u|: no difference of near numbers where
    /// P is near Q. What has no probability adds 0 whatever its distance.
    #[inline(always)]
    pub(crate) fn slopes<S: Simd>(self, s: S, x: S::V, y: S::V, u: S::V) -> (S::V, S::V) {
        let zero = s.splat(0.0);
        let (own, other) = (s.splat(1.0 - self.beta), s.splat(self.beta));
        let t = s.sub(zero, s.abs(u));
        let lesser = s.select_lt(zero, u, other, own);
        let larger = s.sub(zero, ln_1p(s, s.mul(lesser, exp_m1_nonpositive(s, t))));
        let smaller = s.add(larger, t);
        let at_x = s.select_lt(zero, u, larger, smaller);
        let at_y = s.select_lt(zero, u, smaller, larger);
        (weighed(s, own, x, at_x), weighed(s, other, y, at_y))
    }
}

/// weight·e^z·distance, 0 where e^z is. (Not a closure: that would not be compiled for the
/// instruction set.)
#[inline(always)]
fn weighed<S: Simd>(s: S, weight: S::V, z: S::V, distance: S::V) -> S::V {
    let (zero, p) = (s.splat(0.0), exp(s, z));
    s.select_eq(p, zero, zero, s.mul(s.mul(weight, p), distance))
}

impl ElementLoss for JsDiv {
    #[inline(always)]
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V {
        let (at_x, at_y) = self.slopes(s, e.x, e.y, s.sub(e.x, e.y));
        s.mul(e.weight, s.add(at_x, at_y))
    }

    #[inline(always)]
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        s.mul(self.slopes(s, e.x, e.y, s.sub(e.x, e.y)).0, factor)
    }

    #[inline(always)]
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V {
        s.mul(self.slopes(s, e.x, e.y, s.sub(e.x, e.y)).1, factor)
    }
}
