//! Short rows of logits beside as many of probabilities, or of a teacher's logits: what `soft_target.rs` does
//! with one row.

use crate::cpu::row::logit::{Linear, Logit, Plain, Transform, each_logit};
use crate::cpu::row::softmax::DISTANCE_UNIT;
use crate::cpu::row::tile::lane::{Lane, Lie, ROWS};
use crate::cpu::row::tile::rows::Tile;
use crate::cpu::row::tile::sums::{finite, maxima, put_infinite};
use crate::cpu::row::tile::walk::{Along, Beside, Folds, Walk, each_walk, load, store};
use crate::cpu::simd::{Kernel, Pieces, Simd, exp_nonpositive, ln_1p};

/// A tile of logits, whose smoothing is that of a teacher, beside one of targets.
pub(crate) struct SoftTile<'t> {
    pub(crate) tile: Tile<'t>,
    /// Probabilities; or a teacher's logits, whose exponentials take their place.
    pub(crate) target: &'t mut [Lane<f32>],
    /// The scale of a teacher's logits.
    pub(crate) teacher: Option<f32>,
    /// Of u = w·(hard·q + soft), for what rows sum to.
    pub(crate) hard: f32,
    pub(crate) soft: f32,
    /// Whether the logits stay where they are: under a cap they do in any case.
    pub(crate) keep_logits: bool,
}

/// What rows sum to. The top is what has an exponential of 1: the largest, and what is as good as that.
#[derive(Debug)]
pub(crate) struct SoftTileSums {
    /// The largest, as a reference; −∞ of a row that is all −∞.
    pub(crate) max: Lane<f32>,
    /// Σ e^(z − max) without the top.
    pub(crate) rest: Lane<f32>,
    /// How many are at the top.
    pub(crate) tops: Lane<f32>,
    /// ln Σ e^(z − max).
    pub(crate) log_sum: Lane<f32>,
    /// Σ u, and without the top.
    pub(crate) mass: Lane<f32>,
    pub(crate) others: Lane<f32>,
    /// Σ u·(max − z) in the unit of long rows; a u of 0 makes 0 of an infinite distance.
    pub(crate) deviation: Lane<f32>,
    /// Σ w at the top.
    pub(crate) weight: Lane<f32>,
    /// The teacher's Σ e^(s·(y − largest)).
    pub(crate) norm: Lane<f32>,
    /// The teacher's Σ w·(r(max) − r(x)), in `unit`, where it is smoothed.
    pub(crate) smooth: Lane<f32>,
    pub(crate) unit: f32,
}

impl SoftTileSums {
    pub(crate) const EMPTY: SoftTileSums = SoftTileSums {
        max: Lane::of(0.0),
        rest: Lane::of(0.0),
        tops: Lane::of(0.0),
        log_sum: Lane::of(0.0),
        mass: Lane::of(0.0),
        others: Lane::of(0.0),
        deviation: Lane::of(0.0),
        weight: Lane::of(0.0),
        norm: Lane::of(0.0),
        smooth: Lane::of(0.0),
        unit: 1.0,
    };
}

/// What both gradients of each row are made of.
#[derive(Debug)]
pub(crate) struct SoftTileTerms {
    /// Of e^(z − max); NaN of a row without probabilities.
    pub(crate) prob: Lane<f32>,
    /// Of u = w·(hard·q + soft).
    pub(crate) hard: Lane<f32>,
    pub(crate) soft: Lane<f32>,
    /// 1 of a row whose top has nearly all of p: `at_top` is its gradient. Else NaN.
    pub(crate) alone: Lane<f32>,
    pub(crate) at_top: Lane<f32>,
    /// Of w·(lse − z), in the gradient with respect to probabilities; NaN of a row without any.
    pub(crate) target: Lane<f32>,
}

impl SoftTileTerms {
    pub(crate) const NONE: SoftTileTerms = SoftTileTerms {
        prob: Lane::of(0.0),
        hard: Lane::of(0.0),
        soft: Lane::of(0.0),
        alone: Lane::of(f32::NAN),
        at_top: Lane::of(0.0),
        target: Lane::of(0.0),
    };
}

impl SoftTile<'_> {
    /// Sums the rows. Where z is linear the exponentials take the logits' place, unless these are to be kept.
    pub(crate) fn sum(&mut self, sums: &mut SoftTileSums) {
        let (level, lie, transform) = (self.tile.level, self.tile.lie, self.tile.transform);
        each_walk!(lie, walk => each_logit!(transform, logit => {
            level.run(SumRows { of: self, walk, logit, sums });
        }));
    }

    /// Turns what [`SoftTile::sum`] has left into the gradients: of the logits, and if `both` of the targets.
    pub(crate) fn gradient(&mut self, sums: &SoftTileSums, terms: &SoftTileTerms, both: bool) {
        let (level, lie, transform) = (self.tile.level, self.tile.lie, self.tile.transform);
        each_walk!(lie, walk => each_logit!(transform, logit => {
            level.run(GradientRows { of: self, walk, logit, sums, terms, both });
        }));
    }
}

struct SumRows<'k, 't, W, L> {
    of: &'k mut SoftTile<'t>,
    walk: W,
    logit: L,
    sums: &'k mut SoftTileSums,
}

impl<W: Walk, L: Logit> Kernel for SumRows<'_, '_, W, L> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SumRows { of, walk, logit, sums } = self;
        sums.max = maxima(s, walk, logit, (&*of.tile.x, of.tile.len));
        let infinite = of.tile.infinite(&sums.max);
        if of.tile.smoothing {
            (sums.smooth, sums.unit) = of.tile.deviations(s, walk, logit, &sums.max);
        }
        let (zero, one, unit) = (s.splat(0.0), s.splat(1.0), s.splat(-DISTANCE_UNIT));
        let (hard, soft) = (s.splat(of.hard), s.splat(of.soft));
        let (len, steps) = (of.tile.len, walk.steps::<S>(of.tile.len));
        let scale = s.splat(of.teacher.unwrap_or(1.0));
        let teacher_max = match of.teacher {
            Some(_) => maxima(s, walk, Plain, (&*of.target, len)),
            None => Lane::of(0.0),
        };
        // What fills up counts for nothing, which a weight says where u is not 0 by itself.
        let weighted = of.tile.weights.is_some() || of.soft != 0.0;
        let mut folds: [Folds; 7] = [const { Folds::new() }; 7];
        for strip in 0..walk.strips::<S>() {
            let max = finite(s, walk.number(s, strip, &sums.max));
            let teacher_max = finite(s, walk.number(s, strip, &teacher_max));
            let mut totals = [zero; 7];
            for piece in Pieces::of_steps(steps) {
                let mut parts = [zero; 7];
                for step in piece {
                    let place = walk.place::<S>(len, strip, step);
                    s.prefetch(walk.ahead::<S>(of.tile.ahead, strip, step));
                    let (d, _) = logit.distance(s, load(s, of.tile.x, place), max);
                    let e = exp_nonpositive(s, d);
                    let mut q = load(s, of.target, place);
                    if of.teacher.is_some() {
                        q = exp_nonpositive(s, s.mul(s.sub(q, teacher_max), scale));
                        store(s, of.target, place, q);
                    }
                    let (mut u, mut w) = (s.fma(q, hard, soft), one);
                    if weighted {
                        w = walk.weights(s, len, step, of.tile.weights);
                        u = s.mul(u, w);
                    }
                    let term = s.select_eq(u, zero, zero, s.mul(u, s.mul(d, unit)));
                    let [rest, tops, mass, others, deviation, weight, norm] = parts;
                    parts = [
                        s.add(rest, s.select_eq(e, one, zero, e)),
                        s.add(tops, s.select_eq(e, one, one, zero)),
                        s.add(mass, u),
                        s.add(others, s.select_eq(e, one, zero, u)),
                        s.add(deviation, term),
                        s.add(weight, s.select_eq(e, one, w, zero)),
                        s.add(norm, q),
                    ];
                    if L::LINEAR && !of.keep_logits {
                        store(s, of.tile.x, place, e);
                    }
                }
                for (total, part) in totals.iter_mut().zip(parts) {
                    *total = s.add(*total, part);
                }
            }
            for (fold, total) in folds.iter_mut().zip(totals) {
                fold.put(s, strip, total);
            }
        }
        let lanes = [
            &mut sums.rest,
            &mut sums.tops,
            &mut sums.mass,
            &mut sums.others,
            &mut sums.deviation,
            &mut sums.weight,
            &mut sums.norm,
        ];
        for (fold, lane) in folds.iter().zip(lanes) {
            fold.rows(s, walk, false, lane);
        }
        for at in (0..ROWS).step_by(S::LANES) {
            // A sum barely above 1 has digits that its logarithm would miss.
            let beyond = s.add(sums.rest.load(s, at), s.sub(sums.tops.load(s, at), one));
            sums.log_sum.store(s, at, ln_1p(s, beyond));
        }
        put_infinite(infinite, &mut sums.log_sum);
    }
}

struct GradientRows<'k, 't, W, L> {
    of: &'k mut SoftTile<'t>,
    walk: W,
    logit: L,
    sums: &'k SoftTileSums,
    terms: &'k SoftTileTerms,
    both: bool,
}

impl<W: Walk, L: Logit> Kernel for GradientRows<'_, '_, W, L> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let GradientRows { of, walk, logit, sums, terms, both } = self;
        let (zero, one, len) = (s.splat(0.0), s.splat(1.0), of.tile.len);
        let weighted = of.tile.weights.is_some();
        for strip in 0..walk.strips::<S>() {
            let max = finite(s, walk.number(s, strip, &sums.max));
            let log_sum = walk.number(s, strip, &sums.log_sum);
            let prob = walk.number(s, strip, &terms.prob);
            let hard = walk.number(s, strip, &terms.hard);
            let soft = walk.number(s, strip, &terms.soft);
            let alone = walk.number(s, strip, &terms.alone);
            let at_top = walk.number(s, strip, &terms.at_top);
            let target = walk.number(s, strip, &terms.target);
            for step in 0..walk.steps::<S>(len) {
                let place = walk.place::<S>(len, strip, step);
                let x = load(s, of.tile.x, place);
                let (mut e, mut d, mut slope) = (x, zero, one);
                if !L::LINEAR || of.keep_logits {
                    (d, slope) = logit.distance(s, x, max);
                    e = exp_nonpositive(s, d);
                }
                let (mut u, mut w) = (s.fma(load(s, of.target, place), hard, soft), one);
                if weighted {
                    w = walk.weights(s, len, step, of.tile.weights);
                    u = s.mul(u, w);
                }
                let mut g = s.select_eq(e, alone, at_top, s.sub(s.mul(e, prob), u));
                if !L::LINEAR {
                    g = s.mul(g, slope);
                }
                store(s, of.tile.x, place, g);
                if both {
                    let mut g = s.select_eq(target, zero, zero, s.mul(target, s.sub(log_sum, d)));
                    // A weight last: of a subnormal one the product with the factor has no digits.
                    if weighted {
                        g = s.select_eq(w, zero, s.mul(zero, target), s.mul(w, g));
                    }
                    store(s, of.target, place, g);
                }
            }
        }
    }
}
