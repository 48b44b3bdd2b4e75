//! What the schedules that go through rows are handed.

use super::address::{In, InTotals, Out, OutF32, OutI64};
use super::kind::size;
use crate::spec::soft_cap::CapFactors;

/// Rows that a schedule goes through.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RowArgs {
    /// Rows of logits.
    pub(crate) x: In,
    /// Rows written: the gradient, or log-probabilities.
    pub(crate) y: Out,
    /// Gradient of the result: one number, one a row, or one an element.
    pub(crate) upstream: In,
    /// Class indices, or rows as long as the logits'.
    pub(crate) target: In,
    /// Class weights.
    pub(crate) weight: In,
    /// Per row, doubles where they are wide.
    pub(crate) loss: OutF32,
    /// Per row, the same.
    pub(crate) z_loss: OutF32,
    /// Per row: written forward, read backward.
    pub(crate) lse: OutF32,
    /// Split rows: a State a part, then a float a part.
    pub(crate) partials: OutF32,
    /// Split rows: the target's x, saved before a gradient overwrites it.
    pub(crate) row_target: OutF32,
    pub(crate) totals: InTotals,
    /// Gradient of the row's second result, as `upstream`.
    pub(crate) second: In,
    /// Per row: the class that beats all others.
    pub(crate) argmax: OutI64,
    /// Per row: how many classes beat the target.
    pub(crate) rank: OutI64,
    pub(crate) rows: i64,
    pub(crate) classes: i64,
    /// Elements between rows.
    pub(crate) x_stride: i64,
    /// Elements between rows.
    pub(crate) y_stride: i64,
    /// Elements between rows.
    pub(crate) upstream_stride: i64,
    /// Elements between rows.
    pub(crate) second_stride: i64,
    pub(crate) ignore_index: i64,
    /// `z = scale * x`, before a cap.
    pub(crate) scale: f32,
    /// 0: none.
    pub(crate) cap: f32,
    /// `1 - epsilon`.
    pub(crate) hard: f32,
    /// `epsilon / classes`.
    pub(crate) soft: f32,
    /// Of a soft-cap, as `cap_rate` and `cap_line`: src/spec/soft_cap.rs.
    pub(crate) cap_first: f32,
    /// The upstream gradient, where `upstream` is null.
    pub(crate) number: f32,
    pub(crate) second_number: f32,
    pub(crate) upstream_kind: u32,
    pub(crate) second_kind: u32,
    pub(crate) target_kind: u32,
    pub(crate) weight_kind: u32,
    /// Divide by the totals.
    pub(crate) mean: u32,
    /// Per-row losses include the z-loss.
    pub(crate) whole: u32,
    /// Split rows: blocks a row.
    pub(crate) parts: u32,
    /// Packs of a block.
    pub(crate) slice: u32,
    /// Split sums: only rows whose saved lse is too coarse.
    pub(crate) coarse: u32,
    /// The target holds a teacher's logits, times this.
    pub(crate) teacher: f32,
    /// Rows' losses are doubles.
    pub(crate) wide: u32,
    /// Gradient of a target of the logits' size.
    pub(crate) grad_target: Out,
    pub(crate) target_stride: i64,
    pub(crate) grad_target_stride: i64,
    /// Which rows do not count, where the target is of the logits' size; of weight_kind.
    pub(crate) labels: In,
    /// What the z-loss is multiplied by.
    pub(crate) lambda: f64,
    pub(crate) cap_rate: f32,
    pub(crate) cap_line: f32,
}

impl RowArgs {
    /// Logit scale and soft-cap.
    pub(crate) fn transform(&mut self, scale: f32, cap: Option<f32>) {
        self.scale = scale;
        if let Some(cap) = cap {
            let factors = CapFactors::new(scale, cap);
            self.cap = cap;
            (self.cap_first, self.cap_rate) = (factors.first, factors.rate);
            self.cap_line = factors.scale;
        }
    }

    /// The same for `n` rows from row `first` on, but for `x` and `y`, which stay.
    pub(crate) fn part(mut self, first: usize, n: usize) -> RowArgs {
        // Every field is named, so that a new one has to say whether each row has its own.
        #[rustfmt::skip]
        let RowArgs {
            target, upstream, second, loss, z_loss, lse, argmax, rank, rows,
            x: _, y: _, weight: _, partials: _, row_target: _, totals: _, classes: _,
            x_stride: _, y_stride: _, upstream_stride, second_stride, ignore_index: _, scale: _, cap: _,
            hard: _, soft: _, lambda: _, cap_first: _, cap_rate: _, cap_line: _, number: _, second_number: _, upstream_kind, second_kind, target_kind,
            weight_kind, mean: _, whole: _, parts: _, slice: _, coarse: _,
            teacher: _, wide, grad_target, target_stride, grad_target_stride,
            labels,
        } = &mut self;
        let (f32s, i64s) = (size_of::<f32>(), size_of::<i64>());
        let losses = if *wide != 0 { size_of::<f64>() } else { f32s };
        for (address, bytes) in [
            // A class a row, or numbers as many as logits.
            (target, (*target_stride).max(1) as usize * size(*target_kind)),
            (grad_target, *grad_target_stride as usize * size(*target_kind)),
            (upstream, *upstream_stride as usize * size(*upstream_kind)),
            (labels, size(*weight_kind)),
            (loss, losses),
            (z_loss, losses),
            (lse, f32s),
            (second, *second_stride as usize * size(*second_kind)),
            (argmax, i64s),
            (rank, i64s),
        ] {
            if *address != 0 {
                *address += (first * bytes) as u64;
            }
        }
        *rows = n as i64;
        self
    }
}

/// Negative log-likelihood: position k of block n has class c at
/// `n * stride + c * class_stride + k`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NllArgs {
    pub(crate) x: In,
    /// The gradient.
    pub(crate) y: Out,
    /// Class indices, a block's positions after one another.
    pub(crate) target: In,
    /// Class weights, or null.
    pub(crate) weight: In,
    /// Gradient of the result: one number or one a row, or null.
    pub(crate) upstream: In,
    /// Per row, doubles where they are wide.
    pub(crate) loss: OutF32,
    pub(crate) totals: InTotals,
    /// Blocks times positions.
    pub(crate) rows: i64,
    pub(crate) classes: i64,
    pub(crate) stride: i64,
    pub(crate) class_stride: i64,
    pub(crate) positions: i64,
    pub(crate) ignore_index: i64,
    /// Rows of neighbouring classes: stretches of a row.
    pub(crate) parts: i64,
    /// Rows of neighbouring classes: packs of a stretch.
    pub(crate) slice: i64,
    /// The upstream gradient, where `upstream` is null.
    pub(crate) number: f32,
    /// Of x and y.
    pub(crate) kind: u32,
    pub(crate) target_kind: u32,
    pub(crate) weight_kind: u32,
    pub(crate) upstream_kind: u32,
    /// 1: one a row.
    pub(crate) upstream_rows: u32,
    /// Divide by the totals.
    pub(crate) mean: u32,
    /// Rows' losses are doubles.
    pub(crate) wide: u32,
}
