//! Cross entropy of short rows, sixteen of them side by side.

use crate::cpu::batch::numbers::{Batch, Sums};
use crate::cpu::batch::results::Results;
use crate::cpu::batch::tiles::{Lined, TileOp};
use crate::cpu::row::tile::{Factors, Lane, NO_CLASS, ROWS, Tile, TileSums, TileTerms};
use crate::cpu::simd::Level;
use crate::cpu::threads::SyncPtr;

/// A call on short rows: results where they are asked for, and the gradient in the rows' place.
pub(super) struct Short<'a> {
    pub(super) level: Level,
    pub(super) batch: &'a Batch<'a>,
    /// Smoothing weights over the batch's unit; null for 1 each.
    pub(super) weights: SyncPtr<f32>,
    pub(super) results: Option<Results>,
    /// Upstream gradients, where all rows have the same ones.
    pub(super) upstream: Option<(f64, f64)>,
    pub(super) gradient: bool,
    /// Whether all rows come to their results at once: [`Short::is_plain`].
    pub(super) plain: bool,
}

impl TileOp for Short<'_> {
    type Sum = Sums;

    fn tile(&self, tile: Lined<'_>, sums: &mut Sums) {
        let Lined { first, lines, lie, len, ahead, x, .. } = tile;
        let batch = self.batch;
        let mut class = Lane::of(NO_CLASS);
        let mut labels = [0; ROWS];
        batch.targets.labels(first, &mut labels[..lines]);
        for (class, &label) in class.0.iter_mut().zip(&labels[..lines]) {
            // Exact: there are few classes.
            *class = batch.targets.class_of(label).map_or(NO_CLASS, |class| class as f32);
        }
        let weights = self.weights.get().cast_const();
        let weights = (!weights.is_null()).then(|| {
            // SAFETY: there is a weight a class.
            unsafe { std::slice::from_raw_parts(weights, len) }
        });
        let (level, transform) = (self.level, batch.transform);
        let smoothing = batch.epsilon > 0.0;
        let mut tile =
            Tile { level, transform, lie, len, x, ahead, class: Some(&class), smoothing, weights };
        let mut of_rows = TileSums::EMPTY;
        tile.sum(false, &mut of_rows);
        let mut terms = TileTerms::NONE;
        if self.plain {
            self.plain_rows((first, lines), &class, &of_rows, &mut terms, sums);
        } else {
            for (i, &class) in class.0.iter().enumerate().take(lines) {
                let class = (class >= 0.0).then_some(class as usize);
                self.row((first + i, i), class, &of_rows, &mut terms, sums);
            }
        }
        if self.gradient {
            tile.gradient(&of_rows, &terms);
        }
    }

    fn merge(total: &mut Sums, part: &Sums) {
        total.add(part);
    }
}

impl Short<'_> {
    /// Whether options ask for the negative log-likelihood alone, and no factor is near the ends of f32.
    pub(super) fn is_plain(batch: &Batch<'_>, upstream: Option<(f64, f64)>) -> bool {
        let Some((g, _)) = upstream else { return false };
        let tame = |class| {
            let weight = batch.weights.get(class);
            Factors::is_tame(weight) && Factors::is_tame(g * weight)
        };
        let weighted = if batch.weights.0.is_some() { batch.targets.classes } else { 1 };
        batch.is_plain() && (0..weighted).all(tame)
    }

    /// All rows' results and terms at once.
    fn plain_rows(
        &self,
        (first, lines): (usize, usize),
        class: &Lane<f32>,
        of_rows: &TileSums,
        terms: &mut TileTerms,
        sums: &mut Sums,
    ) {
        let factors = self.factors(class, terms);
        let losses = of_rows.plain(self.level, &factors, terms);
        let Some(results) = &self.results else { return };
        sums.loss += losses.sum();
        if !results.of_rows() {
            return;
        }
        for (i, &loss) in losses.0.iter().enumerate().take(lines) {
            let kept = terms.kept.0[i] == 1.0;
            let lse = if kept { of_rows.lse(i) } else { 0.0 };
            // SAFETY: results have an element a row, and this row is this call's.
            unsafe { results.put(first + i, (loss.into(), 0.0), lse, &mut Sums::default()) };
        }
    }

    /// What multiplies rows' losses and gradients; in the terms, which rows are kept.
    fn factors(&self, class: &Lane<f32>, terms: &mut TileTerms) -> Factors {
        let (weights, mut factors) = (self.batch.weights, Factors::NONE);
        let (g, _) = self.upstream.unwrap_or_default();
        for (kept, &class) in terms.kept.0.iter_mut().zip(&class.0) {
            *kept = if class >= 0.0 { 1.0 } else { 0.0 };
        }
        factors.loss = terms.kept;
        if weights.0.is_some() {
            for (loss, &class) in factors.loss.0.iter_mut().zip(&class.0) {
                *loss = if class >= 0.0 { weights.get(class as usize) as f32 } else { 0.0 };
            }
        }
        for (gradient, weight) in factors.gradient.0.iter_mut().zip(&factors.loss.0) {
            *gradient = (g * f64::from(*weight)) as f32;
        }
        factors
    }

    /// A row's results, and what its gradient is made of.
    #[inline(always)]
    fn row(
        &self,
        (row, lane): (usize, usize),
        class: Option<usize>,
        of_rows: &TileSums,
        terms: &mut TileTerms,
        sums: &mut Sums,
    ) {
        debug_assert!(lane < ROWS);
        let batch = self.batch;
        let Some(class) = class else {
            if let Some(results) = &self.results {
                // SAFETY: results have an element a row, and this row is this call's.
                unsafe { results.put(row, (0.0, 0.0), 0.0, sums) };
            }
            return;
        };
        let summed = of_rows.summed(lane, batch.transform);
        if let Some(results) = &self.results {
            let lse = summed.lse() as f32;
            // SAFETY: results have an element a row, and this row is this call's.
            unsafe { results.put(row, batch.loss(&summed, class), lse, sums) };
        }
        if !self.gradient {
            return;
        }
        terms.kept.0[lane] = 1.0;
        if summed.undefined() {
            for term in [&mut terms.prob, &mut terms.smooth, &mut terms.at_target] {
                term.0[lane] = f32::NAN;
            }
            return;
        }
        let (rest, target) = (f64::from(of_rows.rest.0[lane]), f64::from(of_rows.target.0[lane]));
        let upstream = self.upstream.unwrap_or_else(|| batch.scaling.upstream(row));
        let factors = batch.factors_of(upstream, class, summed.lse());
        let of_all = factors.terms(batch.transform);
        let slope = f64::from(batch.transform.slope()) * f64::from(of_rows.slope.0[lane]);
        let share = 1.0 / (rest + target);
        terms.prob.0[lane] = (of_all.prob * share) as f32;
        terms.smooth.0[lane] = of_all.smooth;
        let own = (slope, batch.smoothing_weight(class));
        terms.at_target.0[lane] = factors.at_share((rest * share, target * share), own);
    }
}
