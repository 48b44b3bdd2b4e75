//! What rows of a tile sum to.

use crate::cpu::row::logit::{Linear, Logit, Transform, each_logit};
use crate::cpu::row::softmax::share;
use crate::cpu::row::tile::lane::{Lane, Lie, ROWS};
use crate::cpu::row::tile::rows::{Tile, TileSums};
use crate::cpu::row::tile::walk::{Along, Beside, Folds, Walk, each_walk, load, store};
use crate::cpu::simd::{Kernel, Simd, exp_nonpositive, ln_1p, ln_plus};

impl Tile<'_> {
    /// Sums the rows. Where z is linear the exponentials take the logits' place, unless these are to be
    /// kept.
    pub(crate) fn sum(&mut self, keep_logits: bool, sums: &mut TileSums) {
        let level = self.level;
        each_walk!(self.lie, walk => each_logit!(self.transform, logit => {
            level.run(SumRows { tile: self, walk, logit, keep_logits, sums });
        }));
    }
}

struct SumRows<'k, 't, W, L> {
    tile: &'k mut Tile<'t>,
    walk: W,
    logit: L,
    keep_logits: bool,
    sums: &'k mut TileSums,
}

impl<W: Walk, L: Logit> Kernel for SumRows<'_, '_, W, L> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        self.largest(s);
        let infinite = self.infinite();
        if self.tile.smoothing {
            self.deviations(s);
        }
        match self.tile.class {
            None => self.exponentials(s),
            Some(class) => {
                let own = self.take(class);
                self.exponentials(s);
                self.classes(s, &own);
            }
        }
        self.logarithms(s);
        if let Some(log_sums) = infinite {
            for (log_sum, infinite) in self.sums.log_sum.0.iter_mut().zip(log_sums) {
                *log_sum = infinite.unwrap_or(*log_sum);
            }
        }
    }
}

impl<W: Walk, L: Logit> SumRows<'_, '_, W, L> {
    #[inline(always)]
    fn largest<S: Simd>(&mut self, s: S) {
        let SumRows { tile, walk, logit, sums, .. } = self;
        let mut maxima = Folds::new();
        for strip in 0..walk.strips::<S>() {
            let mut max = s.splat(f32::NEG_INFINITY);
            for step in 0..walk.steps::<S>(tile.len) {
                let x = load(s, tile.x, walk.place::<S>(tile.len, strip, step));
                // NaN is disregarded.
                max = s.max(logit.reference(s, x), max);
            }
            maxima.put(s, strip, max);
        }
        maxima.rows(s, *walk, true, &mut sums.max);
    }

    /// The log-sums of rows whose largest is +∞, where there are any: 0, or NaN where a NaN stands beside it.
    fn infinite(&self) -> Option<[Option<f32>; ROWS]> {
        let infinite = |max: &f32| *max == f32::INFINITY;
        self.sums.max.0.iter().any(infinite).then(|| {
            std::array::from_fn(|row| {
                let log_sum = if self.tile.is_numbers(row) { 0.0 } else { f32::NAN };
                infinite(&self.sums.max.0[row]).then_some(log_sum)
            })
        })
    }

    /// Σ w_j·(x_j − max) over the row's classes, in units that keep it finite.
    #[inline(always)]
    fn deviations<S: Simd>(&mut self, s: S) {
        let SumRows { tile, walk, logit, sums, .. } = self;
        let zero = s.splat(0.0);
        sums.unit = share(tile.transform);
        let (unit, negative) = (s.splat(sums.unit), s.splat(-sums.unit));
        let mut deviations = Folds::new();
        for strip in 0..walk.strips::<S>() {
            let max = finite(s, walk.number(s, strip, &sums.max));
            let mut sum = zero;
            for step in 0..walk.steps::<S>(tile.len) {
                let x = load(s, tile.x, walk.place::<S>(tile.len, strip, step));
                let w = walk.weights(s, tile.len, step, tile.weights);
                let distance = s.fma(logit.reference(s, x), negative, s.mul(max, unit));
                // A weight of 0 makes 0 of a distance that is infinite.
                sum = s.fma(s.select_eq(w, zero, zero, distance), w, sum);
            }
            deviations.put(s, strip, sum);
        }
        deviations.rows(s, *walk, false, &mut sums.deviation);
    }

    /// Takes the classes' logits out of the tile: what is left there adds nothing.
    #[inline(always)]
    fn take(&mut self, class: &Lane<f32>) -> Lane<f32> {
        let mut own = Lane::of(f32::NEG_INFINITY);
        for (row, (own, &class)) in own.0.iter_mut().zip(&class.0).enumerate() {
            if class >= 0.0 {
                let at = self.tile.at(row, class as usize);
                *own = std::mem::replace(at, f32::NEG_INFINITY);
            }
        }
        own
    }

    /// Σ e^(z − max).
    #[inline(always)]
    fn exponentials<S: Simd>(&mut self, s: S) {
        let SumRows { tile, walk, logit, keep_logits, sums } = self;
        let (mut rests, ahead) = (Folds::new(), tile.ahead);
        for strip in 0..walk.strips::<S>() {
            let max = finite(s, walk.number(s, strip, &sums.max));
            let mut rest = s.splat(0.0);
            for step in 0..walk.steps::<S>(tile.len) {
                let place = walk.place::<S>(tile.len, strip, step);
                s.prefetch(walk.ahead::<S>(ahead, strip, step));
                let (d, _) = logit.distance(s, load(s, tile.x, place), max);
                let e = exp_nonpositive(s, d);
                rest = s.add(rest, e);
                if L::LINEAR && !*keep_logits {
                    store(s, tile.x, place, e);
                }
            }
            rests.put(s, strip, rest);
        }
        rests.rows(s, *walk, false, &mut sums.rest);
    }

    /// What there is to know of the classes themselves.
    #[inline(always)]
    fn classes<S: Simd>(&mut self, s: S, own: &Lane<f32>) {
        let SumRows { logit, sums, .. } = self;
        for at in (0..ROWS).step_by(S::LANES) {
            let (x, max) = (own.load(s, at), finite(s, sums.max.load(s, at)));
            let (d, slope) = logit.distance(s, x, max);
            sums.target.store(s, at, exp_nonpositive(s, d));
            sums.reference.store(s, at, if L::LINEAR { x } else { s.add(d, max) });
            sums.slope.store(s, at, slope);
        }
    }

    /// Logarithms of the sums.
    #[inline(always)]
    fn logarithms<S: Simd>(&mut self, s: S) {
        let sums = &mut *self.sums;
        let (zero, one) = (s.splat(0.0), s.splat(1.0));
        for at in (0..ROWS).step_by(S::LANES) {
            let (rest, target) = (sums.rest.load(s, at), sums.target.load(s, at));
            // A sum barely above 1 has digits that its logarithm would miss.
            let certain = ln_1p(s, rest);
            let of_all = ln_plus(s, s.add(rest, target), zero);
            sums.log_sum.store(s, at, s.select_eq(target, one, certain, of_all));
            sums.nll.store(s, at, ln_1p(s, s.div(rest, target)));
        }
    }
}

/// What distances are from: of a row that is all −∞ every exponential is 0, and not of ∞ − ∞.
#[inline(always)]
fn finite<S: Simd>(s: S, max: S::V) -> S::V {
    s.select_eq(max, s.splat(f32::NEG_INFINITY), s.splat(0.0), max)
}
