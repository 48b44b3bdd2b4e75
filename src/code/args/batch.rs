//! What is handed to the kernels that serve a batch.

use super::address::{
    In, InF32, InI64, InTotals, Out, OutF32, OutF64, OutI64, OutStatus, OutTotals, OutU32,
};
use crate::base::shape::MAX_RANK;

/// Numbers of the batch, on the device.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    /// Sum of the kept rows' weights.
    pub(crate) weight: f64,
    /// Sum of the weights of all classes.
    pub(crate) class_weight: f64,
    /// What divides a sum over kept rows that class weights have no part in: how many they are, or what those weigh.
    pub(crate) kept: f64,
    /// The first row whose target or factor is wrong, or -1.
    pub(crate) bad_row: i64,
    /// Its target.
    pub(crate) bad_value: i64,
    /// 1 / weight; NaN where that is 0.
    pub(crate) per_weight: f64,
    /// 1 / kept.
    pub(crate) per_row: f32,
    /// A power of two: class weights times this add up within f32.
    pub(crate) weight_unit: f32,
}

/// The device's memory of an error.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Status {
    /// 0: none; else a kind of error, as the stream that reads it numbers them.
    pub(crate) kind: u64,
    pub(crate) index: i64,
    /// The target, or the weight's bits.
    pub(crate) value: i64,
    pub(crate) classes: i64,
    pub(crate) ignore_index: i64,
    /// Blocks of a census that are done; 0 between launches.
    pub(crate) ticket: u32,
    pub(crate) pad: u32,
}

/// What rows' losses are to add up to, and where.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SumArgs {
    /// Per row, doubles where they are wide.
    pub(crate) loss: In,
    /// Per row, or null.
    pub(crate) z_loss: In,
    /// Two numbers a chunk.
    pub(crate) chunks: OutF64,
    /// Rows of each chunk that are done, then the chunks that are; null where nothing is added up.
    pub(crate) tickets: OutU32,
    pub(crate) totals: InTotals,
    pub(crate) loss_out: OutF32,
    /// Null where there is no z-loss.
    pub(crate) z_loss_out: OutF32,
    pub(crate) rows: i64,
    /// Rows' losses are doubles.
    pub(crate) wide: u32,
    /// Divide by the totals.
    pub(crate) mean: u32,
}

/// A part's states of rows, put into those of more blocks.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MergeArgs {
    /// The part's numbers, a row's one after another.
    pub(crate) part: InF32,
    pub(crate) state: OutF32,
    pub(crate) rows: i64,
    /// Numbers of a row of the part, the target's included.
    pub(crate) part_numbers: i64,
    /// Numbers of a row of the states.
    pub(crate) numbers: i64,
    /// Where the part's blocks begin in a row of the states.
    pub(crate) at: i64,
    /// Numbers of the target.
    pub(crate) of_target: u32,
    /// The first part: nothing is known of targets yet.
    pub(crate) is_first: u32,
}

/// Targets, class weights and rows' losses.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BatchArgs {
    /// Class indices; null where every row counts.
    pub(crate) target: In,
    pub(crate) weight: In,
    /// Of rows, or null: what divides their logits,
    pub(crate) temperature: InF32,
    /// and what multiplies their losses.
    pub(crate) row_weight: InF32,
    /// Two numbers a chunk.
    pub(crate) chunks: OutF64,
    /// A chunk's first bad weight; of rows the first that is bad, with what is wrong in its low bits; or -1.
    pub(crate) bad: OutI64,
    pub(crate) totals: OutTotals,
    pub(crate) status: OutStatus,
    /// One a chunk of rows, and one: zeroed.
    pub(crate) tickets: OutU32,
    /// Of the losses of rows.
    pub(crate) sum: SumArgs,
    pub(crate) rows: i64,
    pub(crate) classes: i64,
    pub(crate) ignore_index: i64,
    pub(crate) target_kind: u32,
    pub(crate) weight_kind: u32,
    /// The kind of error that a class out of range is.
    pub(crate) bad_target: u32,
    /// Rows of the class to be ignored do not count.
    pub(crate) ignores: u32,
    /// Rows count as 1 each, whatever their classes weigh.
    pub(crate) by_rows: u32,
    /// The kind of error that a temperature out of range is.
    pub(crate) bad_temperature: u32,
}

/// Ranks of rows, and the limits that they are counted below.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RankArgs {
    pub(crate) ranks: InI64,
    pub(crate) limits: InI64,
    /// One a limit.
    pub(crate) counts: OutI64,
    pub(crate) rows: i64,
}

/// Most dimensions of a permutation.
pub(crate) const MAX_DIMS: usize = MAX_RANK;

/// Elements between a tensor and the same elements line by line.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PermuteArgs {
    pub(crate) from: In,
    pub(crate) to: Out,
    pub(crate) elements: i64,
    /// Sizes, outermost first, in the order of the lines; 1 where there are fewer dimensions.
    pub(crate) sizes: [i64; MAX_DIMS],
    /// The tensor's strides in that order.
    pub(crate) strides: [i64; MAX_DIMS],
    /// Bytes of an element.
    pub(crate) size: u32,
    /// 0: from the tensor to the lines, 1: back.
    pub(crate) back: u32,
}
