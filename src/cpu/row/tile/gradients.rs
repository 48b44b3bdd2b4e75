//! What becomes of a tile once its rows are summed.

use crate::cpu::row::logit::{Linear, Logit, Transform, each_logit};
use crate::cpu::row::tile::lane::{Lane, Lie, ROWS};
use crate::cpu::row::tile::rows::{Tile, TileSums, TileTerms, column};
use crate::cpu::row::tile::walk::{Along, Beside, Folds, Walk, each_walk, load, store};
use crate::cpu::simd::{Kernel, Simd, exp_nonpositive};

impl Tile<'_> {
    /// Turns what [`Tile::sum`] has left into the gradient: no logit is at a row's class any more.
    pub(crate) fn gradient(&mut self, sums: &TileSums, terms: &TileTerms) {
        let level = self.level;
        each_walk!(self.lie, walk => each_logit!(self.transform, logit => {
            level.run(GradientRows { tile: self, walk, logit, sums, terms });
        }));
    }

    /// Turns logits into log-probabilities, (x − max) − ln Σ; NaN where there are none.
    pub(crate) fn log_probabilities(&mut self, sums: &TileSums) {
        let level = self.level;
        each_walk!(self.lie, walk => level.run(LogRows { tile: self, walk, sums }));
    }

    /// As [`Tile::log_probabilities`], of rows that lie elsewhere.
    pub(super) fn log_probabilities_of(&mut self, walk: impl Walk, sums: &TileSums) {
        self.level.run(LogRows { tile: self, walk, sums });
    }

    /// Turns exponentials into the gradient of a log-softmax, g − p·Σg; NaN where there are no
    /// probabilities.
    pub(crate) fn log_softmax_gradient(&mut self, upstream: &[Lane<f32>], sums: &TileSums) {
        let level = self.level;
        each_walk!(self.lie, walk => {
            level.run(LogGradientRows { tile: self, walk, upstream: (walk, upstream), sums });
        });
    }

    /// As [`Tile::log_softmax_gradient`], of upstream gradients that lie elsewhere, as the results do.
    pub(super) fn log_softmax_gradient_of(
        &mut self,
        walk: impl Walk,
        upstream: impl Walk,
        sums: &TileSums,
    ) {
        self.level.run(LogGradientRows { tile: self, walk, upstream: (upstream, &[]), sums });
    }
}

/// The rows' log-sums, NaN where they have no probabilities.
#[inline(always)]
pub(super) fn defined<S: Simd>(s: S, sums: &TileSums) -> Lane<f32> {
    let mut defined = Lane::of(0.0);
    for at in (0..ROWS).step_by(S::LANES) {
        let (max, log_sum) = (sums.max.load(s, at), sums.log_sum.load(s, at));
        let finite = s.select_lt(s.abs(max), s.splat(f32::INFINITY), log_sum, s.splat(f32::NAN));
        defined.store(s, at, s.select_eq(max, max, finite, s.splat(f32::NAN)));
    }
    defined
}

struct LogRows<'k, 't, W> {
    tile: &'k mut Tile<'t>,
    walk: W,
    sums: &'k TileSums,
}

impl<W: Walk> Kernel for LogRows<'_, '_, W> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let LogRows { tile, walk, sums } = self;
        let log_sums = defined(s, sums);
        for strip in 0..walk.strips::<S>() {
            let max = walk.number(s, strip, &sums.max);
            let log_sum = walk.number(s, strip, &log_sums);
            for step in 0..walk.steps::<S>(tile.len) {
                let distance = s.sub(walk.load(s, tile.x, tile.len, strip, step), max);
                walk.put(s, tile.x, tile.len, (strip, step), s.sub(distance, log_sum));
            }
        }
    }
}

struct LogGradientRows<'k, 't, W, U> {
    tile: &'k mut Tile<'t>,
    walk: W,
    upstream: (U, &'k [Lane<f32>]),
    sums: &'k TileSums,
}

impl<W: Walk, U: Walk> Kernel for LogGradientRows<'_, '_, W, U> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let LogGradientRows { tile, walk, upstream: (upstream_walk, upstream), sums } = self;
        let (len, steps) = (tile.len, walk.steps::<S>(tile.len));
        let mut folds = Folds::new();
        for strip in 0..walk.strips::<S>() {
            let mut parts = [s.splat(0.0); 4];
            for first in (0..steps).step_by(4) {
                for (i, part) in parts.iter_mut().enumerate().take(steps - first) {
                    let g = upstream_walk.load(s, upstream, len, strip, first + i);
                    *part = s.add(*part, g);
                }
            }
            folds.put(s, strip, s.add(s.add(parts[0], parts[1]), s.add(parts[2], parts[3])));
        }
        let (mut upstreams, mut factors) = (Lane::of(0.0), Lane::of(0.0));
        folds.rows(s, walk, false, &mut upstreams);
        let log_sums = defined(s, sums);
        for at in (0..ROWS).step_by(S::LANES) {
            let total = s.add(sums.rest.load(s, at), sums.target.load(s, at));
            let share = s.div(upstreams.load(s, at), total);
            // NaN, or what is less 0.
            let undefined = s.mul(log_sums.load(s, at), s.splat(0.0));
            factors.store(s, at, s.sub(undefined, share));
        }
        for strip in 0..walk.strips::<S>() {
            let factor = walk.number(s, strip, &factors);
            for step in 0..steps {
                let e = load(s, tile.x, walk.place::<S>(len, strip, step));
                let g = upstream_walk.load(s, upstream, len, strip, step);
                walk.put(s, tile.x, len, (strip, step), s.fma(e, factor, g));
            }
        }
    }
}

struct GradientRows<'k, 't, W, L> {
    tile: &'k mut Tile<'t>,
    walk: W,
    logit: L,
    sums: &'k TileSums,
    terms: &'k TileTerms,
}

impl<W: Walk, L: Logit> Kernel for GradientRows<'_, '_, W, L> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let GradientRows { tile, walk, logit, sums, terms } = self;
        let (zero, one, len) = (s.splat(0.0), s.splat(1.0), tile.len);
        let all_kept = terms.kept.0 == [1.0; ROWS];
        for strip in 0..walk.strips::<S>() {
            let max = walk.number(s, strip, &sums.max);
            let prob = walk.number(s, strip, &terms.prob);
            let smooth = walk.number(s, strip, &terms.smooth);
            let kept = walk.number(s, strip, &terms.kept);
            for step in 0..walk.steps::<S>(len) {
                let place = walk.place::<S>(len, strip, step);
                let x = load(s, tile.x, place);
                let (e, slope) = match L::LINEAR {
                    true => (x, one),
                    false => {
                        let (d, slope) = logit.distance(s, x, max);
                        (exp_nonpositive(s, d), slope)
                    }
                };
                let mut g = s.mul(e, prob);
                if tile.smoothing {
                    let w = walk.weights(s, len, step, tile.weights);
                    g = s.fma(smooth, s.sub(zero, w), g);
                }
                if !L::LINEAR {
                    g = s.mul(g, slope);
                }
                if !all_kept {
                    g = s.select_eq(kept, one, g, zero);
                }
                store(s, tile.x, place, g);
            }
        }
        for (row, &class) in tile.class.into_iter().flat_map(|class| class.0.iter().enumerate()) {
            if class >= 0.0 && terms.kept.0[row] == 1.0 {
                *tile.at(row, column(class)) = terms.at_target.0[row];
            }
        }
    }
}
