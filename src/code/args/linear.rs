//! What is handed to the kernels of losses whose logits are products.

use super::address::{In, InF32, InI64, InU32, Out, OutF32, OutI64, OutU32};
use super::rows::{CrossEntropyArgs, UpstreamArgs};

/// Rows whose logits are products of any number of features; hidden rows and weights are of one type of 16 bits.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LinearTileArgs {
    /// The rows and the loss's options; x and y stand unused.
    pub(crate) row: CrossEntropyArgs,
    /// `[rows, width]`.
    pub(crate) hidden: In,
    /// `[classes, weight_width]`; where hidden rows are wider, they are parts side by side, each of the next multiple of
    /// 8 features, which meet the same weights.
    pub(crate) weight: In,
    /// What divides a row's logits, or null.
    pub(crate) temperature: InF32,
    /// Rows that count come first, in their order: a slot's row,
    pub(crate) slot_rows: InI64,
    /// and its class, or -1 where it does not count.
    pub(crate) slot_marks: InI64,
    /// `[splits, slots, words of a state]`.
    pub(crate) partials: OutF32,
    /// Per slot that counts: its target's logit.
    pub(crate) targets: OutF32,
    /// Per slot: what its gradient is made of; null: there is no backward pass.
    pub(crate) slopes: OutF32,
    /// Per slot: what pieces of 64 classes must reach to have a gradient (`LinearLimits`); null: nothing.
    pub(crate) limits: OutF32,
    /// Per tile of 128 slots and 256 classes of the slab: which pieces have a gradient; null: all do.
    pub(crate) flags: OutU32,
    /// The gradient of the logits, `[slots, end - begin]`, bf16; an even number of elements between rows, the first
    /// of which is at a multiple of 4 bytes.
    pub(crate) gradient: Out,
    /// What that lacks of f32, laid out like it, or null: nobody asks.
    pub(crate) gradient_rest: Out,
    pub(crate) width: i64,
    pub(crate) weight_width: i64,
    /// Elements between rows.
    pub(crate) hidden_stride: i64,
    /// Elements between rows.
    pub(crate) weight_stride: i64,
    /// Elements between rows.
    pub(crate) gradient_stride: i64,
    /// Classes that are gone through, from `begin` to `end`, in so many parts.
    pub(crate) begin: i64,
    pub(crate) end: i64,
    pub(crate) splits: i64,
    /// Of `limits`.
    pub(crate) bound: f32,
    pub(crate) pad: u32,
}

/// Rows of logits that are products, and what they have beside them.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LinearRowsArgs {
    /// Class indices; null where every row counts.
    pub(crate) target: In,
    /// What divides a row's logits, or null.
    pub(crate) temperature: InF32,
    /// What multiplies a row's loss, or null.
    pub(crate) row_weight: InF32,
    /// Per row: its class, or -1 where it does not count.
    pub(crate) marks: OutI64,
    /// The rows that count, in their order, and then the others,
    pub(crate) slot_rows: OutI64,
    /// and the marks of these.
    pub(crate) slot_marks: OutI64,
    /// How many count.
    pub(crate) count: OutI64,
    pub(crate) of_loss: UpstreamArgs,
    pub(crate) of_logprob: UpstreamArgs,
    pub(crate) of_entropy: UpstreamArgs,
    /// The same, a row each; null: nobody reads it.
    pub(crate) given_loss: OutF32,
    pub(crate) given_logprob: OutF32,
    pub(crate) given_entropy: OutF32,
    /// Rows that are divided.
    pub(crate) z: OutF32,
    /// Rows' losses, doubles where they are wide.
    pub(crate) loss: Out,
    /// The same, or null.
    pub(crate) z_loss: Out,
    /// What slots have one of each, and rows are to have; words.
    pub(crate) from: In,
    pub(crate) to: Out,
    pub(crate) n: i64,
    pub(crate) classes: i64,
    /// Class indices of a row.
    pub(crate) positions: i64,
    pub(crate) ignore_index: i64,
    /// Of z, or words of what slots have.
    pub(crate) columns: i64,
    /// Elements between rows of z.
    pub(crate) stride: i64,
    pub(crate) target_kind: u32,
    pub(crate) wide: u32,
    /// Upstream gradients are divided as logits are.
    pub(crate) over_temperature: u32,
    /// Words of a row that does not count.
    pub(crate) missing: u32,
}

/// Products of a matrix of which pieces are zeros, `[m, k]` or turned `[k, m]`, with one `[k, n]`; each of bf16 parts.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BlockSparseArgs {
    pub(crate) a: In,
    /// The second part, or null.
    pub(crate) a_rest: In,
    pub(crate) b: In,
    /// The second part, or null.
    pub(crate) b_rest: In,
    /// Per tile of 128 by 256 of a: a bit for each 32 rows and 64 columns, 0 where zeros are.
    pub(crate) flags: InU32,
    /// `[m, n]`.
    pub(crate) c: Out,
    pub(crate) m: i64,
    pub(crate) n: i64,
    pub(crate) k: i64,
    /// Elements between rows.
    pub(crate) a_stride: i64,
    /// Elements between rows.
    pub(crate) b_stride: i64,
    /// Elements between rows.
    pub(crate) c_stride: i64,
    /// Of a row of tiles.
    pub(crate) tiles: i64,
    /// To what is there.
    pub(crate) add: u32,
    pub(crate) pad: u32,
}
