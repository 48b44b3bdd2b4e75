//! Cross entropy of short rows, sixteen of them side by side.

use crate::cpu::batch::numbers::{Batch, Sums};
use crate::cpu::batch::results::Results;
use crate::cpu::batch::tiles::{Lined, TileOp};
use crate::cpu::row::tile::{Factors, Lane, ROWS, Tile, TileSums, TileTerms};
use crate::cpu::simd::{Kernel, Level, Simd};
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
        let class = batch.targets.classes_of_tile(first, lines);
        let weights = self.weights.get().cast_const();
        let weights = (!weights.is_null()).then(|| {
            // SAFETY: there is a weight a class.
            unsafe { std::slice::from_raw_parts(weights, len) }
        });
        let (level, transform) = (self.level, batch.transform);
        let smoothing = batch.epsilon > 0.0;
        let mut tile =
            Tile { level, transform, lie, len, x, ahead, class: Some(&class), smoothing, weights };
        if let Some(results) = &self.results {
            // SAFETY: results have an element a row, and these rows are this call's.
            unsafe { tile.put_ranks(&results.ranks, &class, (first, lines)) };
        }
        let mut of_rows = TileSums::EMPTY;
        tile.sum(false, &mut of_rows);
        let mut terms = TileTerms::NONE;
        if self.plain {
            self.plain_rows((first, lines), &class, &of_rows, &mut terms, sums);
        } else {
            self.rows((first, lines), &class, &of_rows, &mut terms, sums);
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

    /// Rows' results and terms with every option.
    fn rows(
        &self,
        (first, lines): (usize, usize),
        class: &Lane<f32>,
        of_rows: &TileSums,
        terms: &mut TileTerms,
        sums: &mut Sums,
    ) {
        let batch = self.batch;
        let mut given = Given::NONE;
        for (i, &class) in
            class.0.iter().enumerate().take(lines).filter(|(_, class)| **class >= 0.0)
        {
            terms.kept.0[i] = 1.0;
            given.weight.0[i] = batch.weights.get(class as usize);
            let upstream = self.upstream.unwrap_or_else(|| batch.scaling.upstream(first + i));
            (given.upstream[0].0[i], given.upstream[1].0[i]) = upstream;
        }
        let mut results = RowResults::EMPTY;
        let (given, of) = (&given, of_rows);
        self.level.run(Finish { batch, of, given, results: &mut results, terms });
        let Some(to) = &self.results else { return };
        for i in 0..lines {
            let RowResults { loss, z_loss, lse } = &results;
            let (losses, lse) = match terms.kept.0[i] == 1.0 {
                true => ((loss.0[i], z_loss.0[i]), lse.0[i] as f32),
                false => ((0.0, 0.0), 0.0),
            };
            // SAFETY: results have an element a row, and this row is this call's.
            unsafe { to.put(first + i, losses, lse, sums) };
        }
    }
}

/// What the caller gives for each row: its class's weight, upstream gradients of loss and z-loss.
struct Given {
    weight: Lane<f64>,
    upstream: [Lane<f64>; 2],
}

impl Given {
    const NONE: Given = Given { weight: Lane::of(0.0), upstream: [Lane::of(0.0); 2] };
}

/// Results of rows.
struct RowResults {
    loss: Lane<f64>,
    z_loss: Lane<f64>,
    lse: Lane<f64>,
}

impl RowResults {
    const EMPTY: RowResults =
        RowResults { loss: Lane::of(0.0), z_loss: Lane::of(0.0), lse: Lane::of(0.0) };
}

/// From what rows sum to their results and terms: arithmetic of f64 with branches on options alone, so that
/// rows share vectors here too.
struct Finish<'k> {
    batch: &'k Batch<'k>,
    of: &'k TileSums,
    given: &'k Given,
    results: &'k mut RowResults,
    terms: &'k mut TileTerms,
}

impl Kernel for Finish<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Finish { batch, of, given, results, terms } = self;
        let slope = f64::from(batch.transform.slope());
        for i in 0..ROWS {
            let (summed, weight) = (of.summed(i, batch.transform), given.weight.0[i]);
            let (lse, undefined) = (summed.lse(), summed.undefined());
            (results.loss.0[i], results.z_loss.0[i]) = batch.loss_of(&summed, weight);
            results.lse.0[i] = lse;
            let upstream = (given.upstream[0].0[i], given.upstream[1].0[i]);
            let factors = batch.factors_of(upstream, weight, lse);
            let of_all = factors.terms(batch.transform);
            let (rest, target) = (f64::from(of.rest.0[i]), f64::from(of.target.0[i]));
            let share = 1.0 / (rest + target);
            let own = (slope * f64::from(of.slope.0[i]), batch.smoothing_of(weight));
            let at_target = factors.at_share((rest * share, target * share), own);
            let nothing = if undefined { f32::NAN } else { 0.0 };
            terms.prob.0[i] = (of_all.prob * share) as f32 + nothing;
            terms.smooth.0[i] = of_all.smooth + nothing;
            terms.at_target.0[i] = at_target + nothing;
        }
    }
}
