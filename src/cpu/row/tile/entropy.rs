//! Log-probabilities and entropies of short rows: what `../state.rs` and `../entropy.rs` do with one row.

use crate::cpu::row::logit::{Linear, Logit, Transform, each_logit};
use crate::cpu::row::softmax::FARTHEST;
use crate::cpu::row::tile::lane::{Lane, Lie, ROWS};
use crate::cpu::row::tile::rows::{NEGLIGIBLE, Tile, column};
use crate::cpu::row::tile::sums::{finite, maxima, put_infinite};
use crate::cpu::row::tile::walk::{Along, Beside, Folds, Walk, each_walk, load, store};
use crate::cpu::simd::{Kernel, Pieces, Simd, exp_nonpositive, ln_1p};

/// What rows sum to.
#[derive(Debug)]
pub(crate) struct MomentSums {
    /// The largest, as a reference; −∞ of a row that is all −∞.
    pub(crate) max: Lane<f32>,
    /// Σ e^(z − max) without the target.
    pub(crate) rest: Lane<f32>,
    /// Σ e^(z − max)·(max − z) without the target.
    pub(crate) moment: Lane<f32>,
    /// e^(z_t − max), and max − z_t.
    pub(crate) target: Lane<f32>,
    pub(crate) distance: Lane<f32>,
    /// dz/dx at the target, over [`Transform::slope`].
    pub(crate) slope: Lane<f32>,
    /// ln Σ e^(z − max), with the digits of what is not the largest.
    pub(crate) log_sum: Lane<f32>,
    /// lse − z_t.
    pub(crate) nll: Lane<f32>,
}

impl MomentSums {
    pub(crate) const EMPTY: MomentSums = MomentSums {
        max: Lane::of(0.0),
        rest: Lane::of(0.0),
        moment: Lane::of(0.0),
        target: Lane::of(0.0),
        distance: Lane::of(0.0),
        slope: Lane::of(0.0),
        log_sum: Lane::of(0.0),
        nll: Lane::of(0.0),
    };
}

/// What each row's gradient is made of: `e^d·(constant + slope·d)·dz/dx`, d = z − max, and the target's.
#[derive(Debug)]
pub(crate) struct MomentTerms {
    pub(crate) constant: Lane<f32>,
    pub(crate) slope: Lane<f32>,
    pub(crate) at_target: Lane<f32>,
}

impl MomentTerms {
    pub(crate) const NONE: MomentTerms =
        MomentTerms { constant: Lane::of(0.0), slope: Lane::of(0.0), at_target: Lane::of(0.0) };
}

impl Tile<'_> {
    /// Sums the rows with their moments. The logits stay, but for those of the classes.
    pub(crate) fn sum_moments(&mut self, class: &Lane<f32>, sums: &mut MomentSums) {
        let (level, lie, transform) = (self.level, self.lie, self.transform);
        each_walk!(lie, walk => each_logit!(transform, logit => {
            level.run(SumRows { tile: self, walk, logit, class, sums });
        }));
    }

    /// Turns what [`Tile::sum_moments`] has left into the gradient; 0 of rows without a class.
    pub(crate) fn moment_gradient(
        &mut self,
        class: &Lane<f32>,
        sums: &MomentSums,
        terms: &MomentTerms,
    ) {
        let (level, lie, transform) = (self.level, self.lie, self.transform);
        each_walk!(lie, walk => each_logit!(transform, logit => {
            level.run(GradientRows { tile: self, walk, logit, class, sums, terms });
        }));
    }
}

struct SumRows<'k, 't, W, L> {
    tile: &'k mut Tile<'t>,
    walk: W,
    logit: L,
    class: &'k Lane<f32>,
    sums: &'k mut MomentSums,
}

impl<W: Walk, L: Logit> Kernel for SumRows<'_, '_, W, L> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SumRows { tile, walk, logit, class, sums } = self;
        sums.max = maxima(s, walk, logit, (&*tile.x, tile.len));
        let infinite = tile.infinite(&sums.max);
        let own = tile.take(class);
        let (zero, one, farthest) = (s.splat(0.0), s.splat(1.0), s.splat(FARTHEST));
        let mut folds: [Folds; 3] = [const { Folds::new() }; 3];
        for strip in 0..walk.strips::<S>() {
            let max = finite(s, walk.number(s, strip, &sums.max));
            let mut totals = [zero; 3];
            for piece in Pieces::of_steps(walk.steps::<S>(tile.len)) {
                let mut parts = [zero; 3];
                for step in piece {
                    let place = walk.place::<S>(tile.len, strip, step);
                    s.prefetch(walk.ahead::<S>(tile.ahead, strip, step));
                    let (d, _) = logit.distance(s, load(s, tile.x, place), max);
                    let e = exp_nonpositive(s, d);
                    let [below, tops, moment] = parts;
                    parts = [
                        s.add(below, s.select_eq(e, one, zero, e)),
                        s.add(tops, s.select_eq(e, one, one, zero)),
                        s.fma(e, s.max(farthest, d), moment),
                    ];
                }
                for (total, part) in totals.iter_mut().zip(parts) {
                    *total = s.add(*total, part);
                }
            }
            for (fold, total) in folds.iter_mut().zip(totals) {
                fold.put(s, strip, total);
            }
        }
        let [mut below, mut tops] = [Lane::of(0.0); 2];
        for (fold, lane) in folds.iter().zip([&mut below, &mut tops, &mut sums.moment]) {
            fold.rows(s, walk, false, lane);
        }
        for at in (0..ROWS).step_by(S::LANES) {
            let max = finite(s, sums.max.load(s, at));
            let (d, slope) = logit.distance(s, own.load(s, at), max);
            let (target, distance) = (exp_nonpositive(s, d), s.sub(zero, d));
            let (below, tops) = (below.load(s, at), tops.load(s, at));
            let rest = s.add(below, tops);
            // All but one copy of the largest, which is 1: what a sum barely above 1 has no digits for.
            let copies = s.add(tops, s.select_eq(target, one, zero, s.splat(-1.0)));
            let smaller = s.add(below, s.select_eq(target, one, zero, target));
            let log_sum = ln_1p(s, s.add(smaller, copies));
            let near = ln_1p(s, s.div(rest, target));
            let far = s.add(log_sum, distance);
            sums.nll.store(s, at, s.select_lt(s.splat(NEGLIGIBLE), target, near, far));
            sums.log_sum.store(s, at, log_sum);
            sums.rest.store(s, at, rest);
            sums.target.store(s, at, target);
            sums.distance.store(s, at, distance);
            sums.slope.store(s, at, slope);
            sums.moment.store(s, at, s.sub(zero, sums.moment.load(s, at)));
        }
        put_infinite(infinite, &mut sums.log_sum);
    }
}

struct GradientRows<'k, 't, W, L> {
    tile: &'k mut Tile<'t>,
    walk: W,
    logit: L,
    class: &'k Lane<f32>,
    sums: &'k MomentSums,
    terms: &'k MomentTerms,
}

impl<W: Walk, L: Logit> Kernel for GradientRows<'_, '_, W, L> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let GradientRows { tile, walk, logit, class, sums, terms } = self;
        let (zero, farthest) = (s.splat(0.0), s.splat(FARTHEST));
        for strip in 0..walk.strips::<S>() {
            let max = finite(s, walk.number(s, strip, &sums.max));
            let constant = walk.number(s, strip, &terms.constant);
            let slope = walk.number(s, strip, &terms.slope);
            let of_class = walk.number(s, strip, class);
            for step in 0..walk.steps::<S>(tile.len) {
                let place = walk.place::<S>(tile.len, strip, step);
                let (d, bend) = logit.distance(s, load(s, tile.x, place), max);
                let factor = s.fma(slope, s.max(farthest, d), constant);
                let mut g = s.mul(exp_nonpositive(s, d), factor);
                if !L::LINEAR {
                    g = s.mul(g, bend);
                }
                store(s, tile.x, place, s.select_lt(of_class, zero, zero, g));
            }
        }
        for (row, &class) in class.0.iter().enumerate() {
            if class >= 0.0 {
                *tile.at(row, column(class)) = terms.at_target.0[row];
            }
        }
    }
}
