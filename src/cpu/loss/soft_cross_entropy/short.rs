//! Cross entropy of short rows against probabilities or a teacher's logits, sixteen rows side by side.

use crate::cpu::batch::numbers::Sums;
use crate::cpu::batch::results::Results;
use crate::cpu::batch::tiles::{Lined, TileOp};
use crate::cpu::loss::soft_cross_entropy::batch::Batch;
use crate::cpu::row::soft_row::ALONE;
use crate::cpu::row::softmax::DISTANCE_UNIT;
use crate::cpu::row::tile::{Lane, ROWS, SoftTile, SoftTileSums, SoftTileTerms, Tile};
use crate::cpu::simd::{Kernel, Level, Simd};
use crate::cpu::threads::SyncPtr;

/// A call on short rows: results where they are asked for, and the gradients in the place of logits and targets.
pub(super) struct Short<'a> {
    pub(super) level: Level,
    pub(super) batch: &'a Batch<'a>,
    /// Class weights over the batch's unit; null for 1 each.
    pub(super) weights: SyncPtr<f32>,
    pub(super) results: Option<Results>,
    /// Whether the logits' gradient is asked for, and that of the targets.
    pub(super) gradients: [bool; 2],
}

impl TileOp for Short<'_> {
    type Sum = Sums;

    fn filling(&self) -> f32 {
        // Of nothing, a teacher's probability as well.
        if self.batch.teacher.is_some() { f32::NEG_INFINITY } else { 0.0 }
    }

    fn tile(&self, tile: Lined<'_>, sums: &mut Sums) {
        let Lined { first, lines, lie, len, ahead, x, a: target } = tile;
        let (level, batch) = (self.level, self.batch);
        let weights = self.weights.get().cast_const();
        let weights = (!weights.is_null()).then(|| {
            // SAFETY: there is a weight a class.
            unsafe { std::slice::from_raw_parts(weights, len) }
        });
        let taught = batch.teacher.is_some();
        let [hard, soft] = if taught { [1.0, 0.0] } else { [batch.hard, batch.soft] };
        let (transform, class) = (batch.transform, None);
        let smoothing = taught && batch.soft > 0.0;
        let [gradient, both] = self.gradients;
        let mut tile = SoftTile {
            tile: Tile { level, transform, lie, len, x, ahead, class, smoothing, weights },
            target,
            teacher: batch.teacher,
            hard: hard as f32,
            soft: soft as f32,
            keep_logits: both,
        };
        let mut of_rows = SoftTileSums::EMPTY;
        tile.sum(&mut of_rows);
        let mut upstream = [Lane::of(0.0); 2];
        if gradient {
            for row in 0..lines {
                let (g, g_z) = batch.scaling.upstream(first + row);
                upstream[0].0[row] = g * batch.unit;
                upstream[1].0[row] = g_z;
            }
        }
        let (mut rows, mut terms) = (Rows::EMPTY, SoftTileTerms::NONE);
        level.run(Finish {
            batch,
            of: &of_rows,
            upstream: &upstream,
            rows: &mut rows,
            terms: &mut terms,
        });
        if let Some(results) = &self.results {
            for row in 0..lines {
                let losses = (rows.loss.0[row], rows.z_loss.0[row]);
                // SAFETY: results have an element a row, and this row is this call's.
                unsafe { results.put(first + row, losses, rows.lse.0[row] as f32, sums) };
            }
        }
        if gradient {
            tile.gradient(&of_rows, &terms, both);
        }
    }

    fn merge(total: &mut Sums, part: &Sums) {
        total.add(part);
    }
}

/// Results of rows.
struct Rows {
    loss: Lane<f64>,
    z_loss: Lane<f64>,
    lse: Lane<f64>,
}

impl Rows {
    const EMPTY: Rows = Rows { loss: Lane::of(0.0), z_loss: Lane::of(0.0), lse: Lane::of(0.0) };
}

/// From what rows sum to their results, and what their gradients are made of: arithmetic of f64 without a
/// branch, so that rows share vectors here too.
struct Finish<'k> {
    batch: &'k Batch<'k>,
    of: &'k SoftTileSums,
    /// Upstream gradients of losses, in the unit of the weights, and of z-losses.
    upstream: &'k [Lane<f64>; 2],
    rows: &'k mut Rows,
    terms: &'k mut SoftTileTerms,
}

impl Kernel for Finish<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Finish { batch, of, upstream, rows, terms } = self;
        let slope = f64::from(batch.transform.slope());
        let (taught, z_losses) = (batch.teacher.is_some(), batch.lambda > 0.0);
        let smooth_unit = slope / f64::from(of.unit);
        let (soft, weight_sum) = (batch.soft, batch.weight_sum);
        for i in 0..ROWS {
            let max = f64::from(of.max.0[i]);
            let log_sum = f64::from(of.log_sum.0[i]);
            // 0 of a teacher that is −∞ throughout.
            let norm = f64::from(of.norm.0[i]);
            let norm = if !taught {
                1.0
            } else if norm == 0.0 {
                f64::NAN
            } else {
                norm
            };
            let defined = max.abs() < f64::INFINITY && !log_sum.is_nan() && !norm.is_nan();
            let lse = slope * max + log_sum;
            // What u of a teacher is still to be divided and multiplied by.
            let share = if taught { batch.hard / norm } else { 1.0 };
            let own_share = if taught { soft } else { 0.0 };
            let mut mass = share * f64::from(of.mass.0[i]) + own_share * weight_sum;
            let deviation = share * f64::from(of.deviation.0[i]) / f64::from(DISTANCE_UNIT);
            let smooth = own_share * f64::from(of.smooth.0[i]) * smooth_unit;
            let mut deviation = if share == 0.0 { 0.0 } else { deviation };
            deviation += if own_share > 0.0 { smooth } else { 0.0 };
            let spread = if mass == 0.0 { 0.0 } else { mass * log_sum };
            let loss = (spread + deviation) * batch.unit;
            rows.loss.0[i] = if defined { loss } else { f64::NAN };
            let z_loss = if defined { batch.lambda * lse * lse } else { f64::NAN };
            rows.z_loss.0[i] = if z_losses { z_loss } else { 0.0 };
            rows.lse.0[i] = lse;

            mass = if defined { mass } else { f64::NAN };
            let (rest, tops) = (f64::from(of.rest.0[i]), f64::from(of.tops.0[i]));
            let total = rest + tops;
            let (g, g_z) = (upstream[0].0[i], upstream[1].0[i]);
            let z = if z_losses { g_z * 2.0 * batch.lambda * lse } else { 0.0 };
            terms.prob.0[i] = ((g * mass + z) * slope / total) as f32;
            terms.hard.0[i] = (g * batch.hard * slope / norm) as f32;
            terms.soft.0[i] = (g * soft * slope) as f32;
            let target = if defined { g * batch.hard } else { f64::NAN };
            terms.target.0[i] = target as f32;
            // One class has nearly all of p: its difference is made of sums over the others.
            let alone = tops == 1.0 && total < ALONE;
            terms.alone.0[i] = if alone && defined { 1.0 } else { f32::NAN };
            let others = share * f64::from(of.others.0[i]);
            let others = others + own_share * (weight_sum - f64::from(of.weight.0[i]));
            let value = g * (others - mass * (rest / total)) + z / total;
            terms.at_top.0[i] = (value * slope) as f32;
        }
    }
}
