//! What rows of a tile sum to.

use crate::cpu::row::logit::{Linear, Logit, Plain, Transform, each_logit};
use crate::cpu::row::softmax::share;
use crate::cpu::row::tile::lane::{Lane, Lie, ROWS};
use crate::cpu::row::tile::rows::{Tile, TileSums, column};
use crate::cpu::row::tile::walk::{Along, Beside, Folds, Walk, each_walk, load, store};
use crate::cpu::simd::{Kernel, Pieces, Simd, exp_nonpositive, ln_1p, ln_plus};

impl Tile<'_> {
    /// Sums the rows. Where z is linear the exponentials take the logits' place, unless these are to be
    /// kept.
    pub(crate) fn sum(&mut self, keep_logits: bool, sums: &mut TileSums) {
        let level = self.level;
        each_walk!(self.lie, walk => each_logit!(self.transform, logit => {
            level.run(SumRows { tile: self, walk, logit, keep_logits, sums });
        }));
    }

    /// As [`Tile::sum`], of plain rows that lie elsewhere; the log-sum of one whose largest is +∞ is of no use.
    pub(super) fn sum_of(&mut self, walk: impl Walk, keep_logits: bool, sums: &mut TileSums) {
        self.level.run(SumRows { tile: self, walk, logit: Plain, keep_logits, sums });
    }

    /// The log-sums of rows whose largest is +∞, where there are any: 0, or NaN where a NaN stands beside it.
    pub(super) fn infinite(&self, max: &Lane<f32>) -> Option<[Option<f32>; ROWS]> {
        let infinite = |max: &f32| *max == f32::INFINITY;
        max.0.iter().any(infinite).then(|| {
            std::array::from_fn(|row| {
                let log_sum = if self.is_numbers(row) { 0.0 } else { f32::NAN };
                infinite(&max.0[row]).then_some(log_sum)
            })
        })
    }

    /// Takes the classes' logits out of the tile: what is left there adds nothing.
    #[inline(always)]
    pub(super) fn take(&mut self, class: &Lane<f32>) -> Lane<f32> {
        let mut own = Lane::of(f32::NEG_INFINITY);
        for (row, (own, &class)) in own.0.iter_mut().zip(&class.0).enumerate() {
            if class >= 0.0 {
                let at = self.at(row, column(class));
                *own = std::mem::replace(at, f32::NEG_INFINITY);
            }
        }
        own
    }

    /// Σ w_j·(r(max) − r(x_j)) over each row's classes, in the returned unit, which keeps it finite.
    #[inline(always)]
    pub(super) fn deviations<S: Simd, W: Walk, L: Logit>(
        &self,
        s: S,
        walk: W,
        logit: L,
        max: &Lane<f32>,
    ) -> (Lane<f32>, f32) {
        let (zero, of_unit) = (s.splat(0.0), share(self.transform));
        let (unit, negative) = (s.splat(of_unit), s.splat(-of_unit));
        let mut deviations = Folds::new();
        for strip in 0..walk.strips::<S>() {
            let max = finite(s, walk.number(s, strip, max));
            let mut total = zero;
            for piece in Pieces::of_steps(walk.steps::<S>(self.len)) {
                let mut sum = zero;
                for step in piece {
                    let x = load(s, self.x, walk.place::<S>(self.len, strip, step));
                    let w = walk.weights(s, self.len, step, self.weights);
                    let distance = s.fma(logit.reference(s, x), negative, s.mul(max, unit));
                    // A weight of 0 makes 0 of a distance that is infinite.
                    sum = s.fma(s.select_eq(w, zero, zero, distance), w, sum);
                }
                total = s.add(total, sum);
            }
            deviations.put(s, strip, total);
        }
        let mut rows = Lane::of(0.0);
        deviations.rows(s, walk, false, &mut rows);
        (rows, of_unit)
    }
}

/// Writes what [`Tile::infinite`] has found.
pub(super) fn put_infinite(infinite: Option<[Option<f32>; ROWS]>, log_sums: &mut Lane<f32>) {
    for (log_sum, infinite) in log_sums.0.iter_mut().zip(infinite.into_iter().flatten()) {
        *log_sum = infinite.unwrap_or(*log_sum);
    }
}

/// Each row's largest, as a reference; NaN is disregarded.
#[inline(always)]
pub(super) fn maxima<S: Simd, W: Walk, L: Logit>(
    s: S,
    walk: W,
    logit: L,
    (x, len): (&[Lane<f32>], usize),
) -> Lane<f32> {
    let (mut folds, mut rows) = (Folds::new(), Lane::of(0.0));
    for strip in 0..walk.strips::<S>() {
        let mut max = s.splat(f32::NEG_INFINITY);
        for step in 0..walk.steps::<S>(len) {
            let x = walk.load(s, x, len, strip, step);
            max = s.max(logit.reference(s, x), max);
        }
        folds.put(s, strip, max);
    }
    folds.rows(s, walk, true, &mut rows);
    rows
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
        self.sums.max = maxima(s, self.walk, self.logit, (&*self.tile.x, self.tile.len));
        let infinite = if W::IN_TILE { self.tile.infinite(&self.sums.max) } else { None };
        if self.tile.smoothing {
            let SumRows { tile, walk, logit, sums, .. } = &mut self;
            (sums.deviation, sums.unit) = tile.deviations(s, *walk, *logit, &sums.max);
        }
        match self.tile.class {
            None => self.exponentials(s),
            Some(class) => {
                let own = self.tile.take(class);
                self.exponentials(s);
                self.classes(s, &own);
            }
        }
        self.logarithms(s);
        put_infinite(infinite, &mut self.sums.log_sum);
    }
}

impl<W: Walk, L: Logit> SumRows<'_, '_, W, L> {
    /// Σ e^(z − max).
    #[inline(always)]
    fn exponentials<S: Simd>(&mut self, s: S) {
        let SumRows { tile, walk, logit, keep_logits, sums } = self;
        let (mut rests, ahead) = (Folds::new(), tile.ahead);
        for strip in 0..walk.strips::<S>() {
            let max = finite(s, walk.number(s, strip, &sums.max));
            let mut total = s.splat(0.0);
            for piece in Pieces::of_steps(walk.steps::<S>(tile.len)) {
                let mut rest = s.splat(0.0);
                for step in piece {
                    walk.ask_ahead(s, ahead, strip, step);
                    let x = walk.load(s, tile.x, tile.len, strip, step);
                    let (d, _) = logit.distance(s, x, max);
                    let e = exp_nonpositive(s, d);
                    rest = s.add(rest, e);
                    if L::LINEAR && !*keep_logits {
                        store(s, tile.x, walk.place::<S>(tile.len, strip, step), e);
                    }
                }
                total = s.add(total, rest);
            }
            rests.put(s, strip, total);
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
pub(super) fn finite<S: Simd>(s: S, max: S::V) -> S::V {
    s.select_eq(max, s.splat(f32::NEG_INFINITY), s.splat(0.0), max)
}
