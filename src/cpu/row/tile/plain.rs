//! Losses and gradients' terms of a tile's rows at once, where an option asks for no more than the negative
//! log-likelihood of logits as they are.

use crate::cpu::row::tile::gradients::defined;
use crate::cpu::row::tile::lane::{Lane, ROWS};
use crate::cpu::row::tile::rows::{NEGLIGIBLE, TileSums, TileTerms};
use crate::cpu::simd::{Kernel, Level, Simd};

/// What multiplies each row's loss and its gradient; both 0 of a row that is ignored.
#[derive(Debug)]
pub(crate) struct Factors {
    pub(crate) loss: Lane<f32>,
    pub(crate) gradient: Lane<f32>,
}

impl Factors {
    pub(crate) const NONE: Factors = Factors { loss: Lane::of(0.0), gradient: Lane::of(0.0) };

    /// Whether a factor is far enough from the ends of f32 to be multiplied in any order.
    pub(crate) fn is_tame(factor: f64) -> bool {
        factor == 0.0 || (1e-25..1e25).contains(&factor.abs())
    }
}

impl TileSums {
    /// Each row's loss, w·(lse − x_t), and its gradient's terms.
    pub(crate) fn plain(
        &self,
        level: Level,
        factors: &Factors,
        terms: &mut TileTerms,
    ) -> Lane<f32> {
        level.run(Plain { sums: self, factors, terms })
    }
}

struct Plain<'k> {
    sums: &'k TileSums,
    factors: &'k Factors,
    terms: &'k mut TileTerms,
}

impl Kernel for Plain<'_> {
    type Out = Lane<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Lane<f32> {
        let Plain { sums, factors, terms } = self;
        let (mut losses, log_sums) = (Lane::of(0.0), defined(s, sums));
        let (zero, one) = (s.splat(0.0), s.splat(1.0));
        for at in (0..ROWS).step_by(S::LANES) {
            let (rest, target) = (sums.rest.load(s, at), sums.target.load(s, at));
            let distance = s.sub(sums.max.load(s, at), sums.reference.load(s, at));
            let far = s.add(sums.log_sum.load(s, at), distance);
            let nll = s.select_lt(s.splat(NEGLIGIBLE), target, sums.nll.load(s, at), far);
            let weight = factors.loss.load(s, at);
            // A weight of 0 makes 0 of a loss that is infinite.
            let loss = s.select_eq(weight, zero, zero, s.mul(weight, nll));
            // NaN of a row without probabilities, whatever its weight; or what changes nothing.
            let undefined = s.mul(log_sums.load(s, at), zero);
            let kept = terms.kept.load(s, at);
            losses.store(s, at, s.select_eq(kept, one, s.add(loss, undefined), zero));
            let (gradient, total) = (factors.gradient.load(s, at), s.add(rest, target));
            terms.prob.store(s, at, s.add(s.div(gradient, total), undefined));
            let others = s.mul(gradient, s.div(rest, total));
            terms.at_target.store(s, at, s.sub(undefined, others));
        }
        losses
    }
}
