//! What one class of a model's row and of its teacher's adds to the divergence.

use crate::cpu::loss::js_div::JsDiv;
use crate::cpu::row::state::RowSum;
use crate::cpu::simd::{EXP_M1_NEAR, Simd, exp_m1_beyond_linear, exp_nonpositive};
use crate::spec::divergence::Divergence;

/// What makes a row's logits its log-probabilities: (x − max)·scale − log_sum.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm {
    max: f32,
    scale: f32,
    log_sum: f32,
}

impl Norm {
    pub(crate) fn new(sum: &RowSum, scale: f32) -> Norm {
        Norm { max: sum.reference(), scale, log_sum: sum.log_sum as f32 }
    }

    #[inline(always)]
    pub(super) fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        let distance = s.sub(x, s.splat(self.max));
        s.sub(s.mul(distance, s.splat(self.scale)), s.splat(self.log_sum))
    }
}

/// What makes of two rows' logits a and b the differences of their log-probabilities.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Difference {
    /// scale·((a − b) − shift) − rest: exact where a and b are near each other.
    Near { scale: f32, shift: f32, rest: f32 },
    /// scale·a − other·b − (whole + rest), what the products and their difference are rounded by
    /// included: rows that agree but for their offsets or temperatures.
    Apart { scales: [f32; 2], whole: f32, rest: f32 },
    /// The log-probabilities are far from each other: their difference has its digits.
    Plain,
}

impl Difference {
    /// Maxima further apart cost more digits of a − b than they save.
    const FARTHEST: f32 = 1.0;
    /// Rows whose largest log-probabilities differ by more are not near each other.
    const ALIKE: f64 = 0.125;
    /// Logits beyond have no digits of 1, and what rounding takes from their products is more.
    const LARGEST: f64 = 1e6;

    pub(crate) fn new(sums: &[RowSum; 2], scales: [f32; 2]) -> Difference {
        let [scale, other] = scales;
        let shift = sums[0].reference() - sums[1].reference();
        // Of the maxima first: they may have no digits of the rest.
        let maxima = sums[0].max - sums[1].max;
        let log_sums = sums[0].log_sum - sums[1].log_sum;
        if scale == other && shift.abs() <= Difference::FARTHEST {
            let rest = (maxima - f64::from(scale) * f64::from(shift)) + log_sums;
            return Difference::Near { scale, shift, rest: rest as f32 };
        }
        let largest = sums[0].max.abs().max(sums[1].max.abs());
        if log_sums.abs() <= Difference::ALIKE && largest <= Difference::LARGEST {
            let apart = maxima + log_sums;
            let whole = apart as f32;
            return Difference::Apart { scales, whole, rest: (apart - f64::from(whole)) as f32 };
        }
        Difference::Plain
    }

    /// The difference of x and y, which a and b have made.
    #[inline(always)]
    fn of<S: Simd>(self, s: S, [a, b]: [S::V; 2], [x, y]: [S::V; 2]) -> S::V {
        match self {
            Difference::Near { scale, shift, rest } => {
                let distance = s.sub(s.sub(a, b), s.splat(shift));
                s.sub(s.mul(distance, s.splat(scale)), s.splat(rest))
            }
            Difference::Apart { scales, whole, rest } => {
                let (zero, one) = (s.splat(0.0), s.splat(1.0));
                let [scale, other] = [s.splat(scales[0]), s.splat(scales[1])];
                let (sa, sb) = (s.mul(scale, a), s.mul(other, b));
                let d = s.sub(sa, sb);
                // What rounding took from the two products, and from d.
                let (lost_a, lost_b) =
                    (s.fma(scale, a, s.sub(zero, sa)), s.fma(other, b, s.sub(zero, sb)));
                let back = s.sub(d, sa);
                let lost = s.sub(s.sub(sa, s.sub(d, back)), s.add(sb, back));
                let lost = s.add(lost, s.sub(lost_a, lost_b));
                // A masked class has no such parts.
                let lost = s.select_lt(s.abs(lost), one, lost, zero);
                s.add(s.sub(d, s.splat(whole)), s.sub(lost, s.splat(rest)))
            }
            Difference::Plain => s.sub(x, y),
        }
    }
}

/// What a class adds, by which divergence.
#[derive(Clone, Copy)]
pub(crate) enum Slopes {
    /// KL(P‖Q): β = 0.
    Forward,
    /// KL(Q‖P): β = 1.
    Reverse,
    /// Everything between.
    Mixed(JsDiv),
    /// ½·Σ |P − Q|.
    Variation,
}

impl Slopes {
    pub(crate) fn new(divergence: Divergence) -> Slopes {
        match divergence {
            Divergence::Kl | Divergence::Js(0.0) => Slopes::Forward,
            Divergence::ReverseKl | Divergence::Js(1.0) => Slopes::Reverse,
            Divergence::Js(beta) => Slopes::Mixed(JsDiv::of_share(beta)),
            Divergence::TotalVariation => Slopes::Variation,
        }
    }
}

/// Which divergence, and what both rows are normalised by.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) divergence: Slopes,
    pub(crate) x: Norm,
    pub(crate) y: Norm,
    pub(crate) difference: Difference,
}

/// What one class adds to the loss, slopes with respect to the log-probabilities x and y, and the
/// probabilities Q and P.
///
/// Slopes to x are good but for a common multiple of Q, and those to y for one of P: neither
/// changes the gradients with respect to the logits.
#[derive(Clone, Copy)]
pub(crate) struct Terms<V> {
    pub(crate) loss: V,
    pub(crate) at_x: V,
    pub(crate) at_y: V,
    pub(crate) q: V,
    pub(crate) p: V,
}

impl Pair {
    #[inline(always)]
    pub(crate) fn terms<S: Simd>(self, s: S, a: S::V, b: S::V) -> Terms<S::V> {
        let (x, y) = (self.x.of(s, a), self.y.of(s, b));
        let (q, p) = (exp_nonpositive(s, x), exp_nonpositive(s, y));
        let u = self.difference.of(s, [a, b], [x, y]);
        match self.divergence {
            Slopes::Forward => {
                let [loss, at_x, at_y] = kl(s, [q, p], y, u);
                Terms { loss, at_x, at_y, q, p }
            }
            Slopes::Reverse => {
                let [loss, at_y, at_x] = kl(s, [p, q], x, s.sub(s.splat(0.0), u));
                Terms { loss, at_x, at_y, q, p }
            }
            Slopes::Mixed(js) => {
                let (at_x, at_y) = js.slopes(s, [q, p], u);
                Terms { loss: s.add(at_x, at_y), at_x, at_y, q, p }
            }
            Slopes::Variation => {
                let (zero, half) = (s.splat(0.0), s.splat(0.5));
                let [_, difference, _] = kl(s, [q, p], y, u);
                // Of equals neither gives way.
                let side = s.select_eq(difference, zero, zero, half);
                let side = s.select_lt(difference, zero, s.sub(zero, half), side);
                let loss = s.mul(side, difference);
                Terms { loss, at_x: s.mul(side, q), at_y: s.sub(zero, s.mul(side, p)), q, p }
            }
        }
    }
}

/// KL(P‖Q) of probabilities whose logarithms have the difference u = ln Q − ln P; y is ln P.
///
/// As both add up to 1, a class may count as P·(e^u − 1 − u), which is never negative, instead of
/// −P·u, and its slopes may be Q − P = P·(e^u − 1) instead of −P, and −P·u instead of P·(1 − u):
/// sums of what is small where P is near Q, and no differences of what is large.
#[inline(always)]
fn kl<S: Simd>(s: S, [q, p]: [S::V; 2], y: S::V, u: S::V) -> [S::V; 3] {
    let (zero, near) = (s.splat(0.0), s.splat(EXP_M1_NEAR));
    let product = s.mul(p, u);
    // Infinite where only the model excludes a class; 0 where the teacher does.
    let product = s.select_eq(s.abs(u), s.splat(f32::INFINITY), u, product);
    let product = s.select_eq(y, s.splat(f32::NEG_INFINITY), zero, product);
    let (size, difference) = (s.abs(u), s.sub(q, p));
    let beyond = s.mul(p, exp_m1_beyond_linear(s, u));
    let loss = s.select_lt(size, near, beyond, s.sub(difference, product));
    let at_q = s.select_lt(size, near, s.add(product, beyond), difference);
    [loss, at_q, s.sub(zero, product)]
}
