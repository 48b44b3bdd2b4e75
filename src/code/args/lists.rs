//! What is handed to the kernels of rows that bring lists of classes.

use super::address::{In, InF32, InI64, Out, OutF32, OutI64, OutStatus};
use super::rows::LogitArgs;

/// Rows that bring the classes over which their softmax goes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SubsetArgs {
    /// Ids of classes, k a row.
    pub(crate) ids: In,
    /// How many of a row count; null: all.
    pub(crate) counts: In,
    /// Class indices; null where the targets are probabilities.
    pub(crate) target: In,
    /// Of classes, or null.
    pub(crate) weight: In,
    /// Of rows, or null.
    pub(crate) row_weight: InF32,
    /// Per row: its target, or the ignored one where that is not listed.
    pub(crate) labels: OutI64,
    /// Per row: where in its list the target is, or -1 where the row does not count.
    pub(crate) places: OutI64,
    /// Per row: its weight times that of its class; null: nobody reads it.
    pub(crate) factors: OutF32,
    /// Per row: what is wrong with it.
    pub(crate) wrong: OutI64,
    /// Classes of rows, rising.
    pub(crate) listed: OutI64,
    /// The row of each of them.
    pub(crate) slots: OutI64,
    /// Where among the given ids each stood; null: nobody asks.
    pub(crate) sources: OutI64,
    /// Hidden rows, given logits, or probabilities.
    pub(crate) x: In,
    /// The classifier; null where logits are given.
    pub(crate) matrix: In,
    /// Its bias, or null.
    pub(crate) bias: In,
    /// Of listed classes: logits, or their gradient, or probabilities.
    pub(crate) z: OutF32,
    pub(crate) to: Out,
    /// Places of classes, which become their ids.
    pub(crate) found: OutI64,
    pub(crate) status: OutStatus,
    pub(crate) n: i64,
    /// Ids a row.
    pub(crate) k: i64,
    /// Places of a list that may hold a class.
    pub(crate) columns: i64,
    /// Elements between lists.
    pub(crate) stride: i64,
    pub(crate) classes: i64,
    pub(crate) features: i64,
    pub(crate) ignore_index: i64,
    /// Elements between rows; 0: all rows have the same ids.
    pub(crate) ids_stride: i64,
    pub(crate) x_stride: i64,
    pub(crate) matrix_stride: i64,
    pub(crate) to_stride: i64,
    pub(crate) ids_kind: u32,
    pub(crate) counts_kind: u32,
    pub(crate) target_kind: u32,
    pub(crate) weight_kind: u32,
    /// Of x, matrix, bias and to.
    pub(crate) kind: u32,
    /// A row whose target is not listed does not count.
    pub(crate) ignores_missing: u32,
    /// To what is there.
    pub(crate) add: u32,
    pub(crate) pad: u32,
}

/// Rows with lists of classes, beside which all others stand as one.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RestArgs {
    pub(crate) logits: LogitArgs,
    /// Classes of rows, rising.
    pub(crate) listed: InI64,
    /// Logits of all classes, then their gradient.
    pub(crate) x: OutF32,
    /// Of listed classes and, behind their last place, of the rest: logits less the row's shift, then their
    /// gradient.
    pub(crate) z: OutF32,
    /// Their slopes by a soft-cap; null: there is none.
    pub(crate) slopes: OutF32,
    /// Their probabilities.
    pub(crate) probabilities: OutF32,
    /// The gradient of those, or null.
    pub(crate) of_probabilities: OutF32,
    /// Per row: its shift and what its rest is, less that.
    pub(crate) sums: OutF32,
    /// Per row, less its shift; or null.
    pub(crate) lse: OutF32,
    pub(crate) n: i64,
    /// Places of a list and one.
    pub(crate) columns: i64,
    /// Elements between lists.
    pub(crate) stride: i64,
    pub(crate) classes: i64,
    pub(crate) x_stride: i64,
}
