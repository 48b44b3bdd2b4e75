//! What the kernels of negative log-likelihood are handed.

use super::address::{In, InTotals, Out, OutF32};
use super::batch::SumArgs;
use super::kind::size;

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
    /// Of the rows' losses.
    pub(crate) sum: SumArgs,
}

impl NllArgs {
    /// The same for `n` rows from row `first` on, but for `x` and `y`, which stay.
    pub(crate) fn part(mut self, first: usize, n: usize) -> NllArgs {
        let losses = if self.wide != 0 { size_of::<f64>() } else { size_of::<f32>() };
        let upstream = self.upstream_rows as usize * size(self.upstream_kind);
        for (address, bytes) in [
            (&mut self.target, size(self.target_kind)),
            (&mut self.upstream, upstream),
            (&mut self.loss, losses),
        ] {
            if *address != 0 {
                *address += (first * bytes) as u64;
            }
        }
        self.rows = n as i64;
        self
    }
}
