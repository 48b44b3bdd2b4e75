//! What is handed to the kernels of layers, and of what goes between their products.

use super::address::{
    In, InF32, InF64, InI64, InU32, Out, OutF32, OutI64, OutStatus, OutTotals, OutU32,
};
use super::rows::CrossEntropyArgs;

/// Most clusters of a layer.
pub(crate) const MAX_CLUSTERS: usize = 32;

/// The rows of a layer by cluster. A cluster has as many slots as its capacity.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BinArgs {
    /// Class indices.
    pub(crate) target: In,
    /// Row weights, or null.
    pub(crate) weight: In,
    /// Gradient of the loss: one number, or one a row, or null.
    pub(crate) upstream: In,
    /// Of a class its place by frequency, or null.
    pub(crate) places: InU32,
    /// Per row: the head's column, or -1 where the row does not count.
    pub(crate) column: OutI64,
    /// Per row: the class, counted from its cluster's first.
    pub(crate) local: OutI64,
    /// Per row: its cluster, or one of WL_ROW_*.
    pub(crate) cluster: OutI64,
    /// Per slot: the row.
    pub(crate) rows: OutI64,
    /// Per slot: its class in the cluster, or -1: nothing is there.
    pub(crate) locals: OutI64,
    /// Per row: the gradient of minus its log-probability.
    pub(crate) factor: OutF32,
    /// Per slot: the same.
    pub(crate) factors: OutF32,
    /// Per cluster: its rows, those beyond its capacity as well.
    pub(crate) counts: OutI64,
    pub(crate) totals: OutTotals,
    pub(crate) status: OutStatus,
    /// Per row: minus the log-probability.
    pub(crate) nll: OutF32,
    /// Per row.
    pub(crate) output: OutF32,
    /// Per row, or one.
    pub(crate) loss: OutF32,
    pub(crate) n: i64,
    pub(crate) classes: i64,
    pub(crate) ignore_index: i64,
    pub(crate) clusters: i64,
    /// The first cluster's column of the head; where there is no such, so low that every
    /// cluster's is below 0.
    pub(crate) shortlist: i64,
    pub(crate) cutoffs: [i64; MAX_CLUSTERS],
    /// First slot of each cluster, and the end of the last.
    pub(crate) begins: Begins,
    /// The upstream gradient, where `upstream` is null.
    pub(crate) number: f32,
    pub(crate) target_kind: u32,
    pub(crate) weight_kind: u32,
    pub(crate) upstream_kind: u32,
    /// 1: one a row.
    pub(crate) upstream_rows: u32,
    /// Whether there is an ignore_index.
    pub(crate) ignores: u32,
    /// Divide by the weights.
    pub(crate) mean: u32,
    /// A loss a row.
    pub(crate) whole: u32,
    /// The kind of error that a target out of range is.
    pub(crate) bad_target: u32,
    pub(crate) pad: u32,
}

/// One more than clusters.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begins(pub(crate) [i64; MAX_CLUSTERS + 1]);

impl Default for Begins {
    fn default() -> Begins {
        Begins([0; MAX_CLUSTERS + 1])
    }
}

/// Rows of log-probabilities of classes, by their place.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DistributionArgs {
    /// `[n, places]`, `stride` elements between rows.
    pub(crate) log_prob: OutF32,
    /// Log-probabilities of the head's columns, `[.., head_size]`.
    pub(crate) head: InF32,
    /// Of a place its class, or null.
    pub(crate) classes: InU32,
    /// `[.., k]`, from row `row` on.
    pub(crate) picked: OutI64,
    /// The same, or null: drawn; renamed: `[n, ..]`, `k` elements between rows.
    pub(crate) values: OutF32,
    /// Per slot of a cluster: the row, or -1; null: the head's, as they stand.
    pub(crate) rows: InI64,
    /// `[clusters, n]`: the rows that need each.
    pub(crate) needed: OutI64,
    /// Per cluster: how many those are.
    pub(crate) counts: OutI64,
    /// Per slot: memory for k candidates.
    pub(crate) names: OutI64,
    pub(crate) logs: OutF32,
    pub(crate) seed: u64,
    pub(crate) n: i64,
    pub(crate) places: i64,
    pub(crate) stride: i64,
    /// Elements between rows of `head`.
    pub(crate) head_stride: i64,
    pub(crate) shortlist: i64,
    pub(crate) clusters: i64,
    pub(crate) row: i64,
    pub(crate) k: i64,
    /// The first place.
    pub(crate) begin: i64,
    /// Whose places they are.
    pub(crate) cluster: i64,
    pub(crate) cutoffs: [i64; MAX_CLUSTERS],
}

/// Rows of an adaptive embedding's index.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EmbeddingArgs {
    pub(crate) bins: BinArgs,
    /// Per row: its class by frequency, or -1.
    pub(crate) places: OutI64,
    /// Per row of a cluster: its slot there.
    pub(crate) slots: OutI64,
}

/// Rows against their targets and sampled classes. Weights, bias, input and gradient are of one
/// kind.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SampledArgs {
    /// Per row: its target, or -1 where the row does not count.
    pub(crate) column: OutI64,
    /// Per row: as of BinArgs.
    pub(crate) cluster: OutI64,
    /// Per row: the target's column of its logits, or -1.
    pub(crate) marks: OutI64,
    /// Per row: b - ln E of the target.
    pub(crate) target_offsets: OutF32,
    /// Per negative: b - ln E.
    pub(crate) offsets: OutF32,
    /// The negatives.
    pub(crate) drawn: InI64,
    /// Of each class, or null: log-uniform.
    pub(crate) probabilities: InF64,
    /// `[classes, features]`.
    pub(crate) weight: In,
    /// `[classes]`, or null.
    pub(crate) bias: In,
    /// `[n, features]`.
    pub(crate) x: In,
    /// `[n, samples + 1]`, the target's logit last.
    pub(crate) z: OutF32,
    /// `[n, features]`: the gradient's part of the negatives.
    pub(crate) products: InF32,
    /// `[n, features]`: the gradient of the input.
    pub(crate) grad: Out,
    /// Draws of distinct negatives; 0: they may repeat.
    pub(crate) tries: f64,
    pub(crate) n: i64,
    pub(crate) samples: i64,
    pub(crate) classes: i64,
    pub(crate) features: i64,
    /// Elements between rows.
    pub(crate) weight_stride: i64,
    /// Elements between rows.
    pub(crate) x_stride: i64,
    /// Elements between rows.
    pub(crate) z_stride: i64,
    /// Elements between rows.
    pub(crate) products_stride: i64,
    /// Elements between rows.
    pub(crate) grad_stride: i64,
    pub(crate) kind: u32,
    /// Negatives that are the row's target count.
    pub(crate) keep_hits: u32,
}

/// Parts that are sorted by class, eight bits of it a pass.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SortArgs {
    /// The classes of parts 0 to `split`; below 0: none.
    pub(crate) first: InI64,
    /// Those of the others.
    pub(crate) second: InI64,
    /// Per place: classes as sorted so far, and the parts.
    pub(crate) keys: InI64,
    pub(crate) parts: InI64,
    /// The same after this pass.
    pub(crate) to_keys: OutI64,
    pub(crate) to_parts: OutI64,
    /// `[256, tiles]`.
    pub(crate) counts: OutU32,
    pub(crate) n: i64,
    pub(crate) split: i64,
    pub(crate) classes: i64,
    pub(crate) tiles: i64,
    pub(crate) shift: u32,
    pub(crate) pad: u32,
}

/// Rows of parts, added up by class. Parts before `split` have rows of `whole`, as they are; part
/// `split + i` has row `slots[i] - from` of `rest` times `factors[i]`, if that slot is from `from`
/// to `to_slot`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SegmentArgs {
    /// Per place, sorted.
    pub(crate) keys: InI64,
    pub(crate) parts: InI64,
    pub(crate) whole: In,
    /// Or null: ones.
    pub(crate) rest: In,
    /// Or null: as they stand.
    pub(crate) slots: InI64,
    /// Or null: ones.
    pub(crate) factors: InF32,
    /// A row a class, from `begin` to `end`.
    pub(crate) to: Out,
    pub(crate) n: i64,
    pub(crate) split: i64,
    pub(crate) from: i64,
    pub(crate) to_slot: i64,
    pub(crate) begin: i64,
    pub(crate) end: i64,
    pub(crate) columns: i64,
    /// Elements between rows.
    pub(crate) whole_stride: i64,
    /// Elements between rows.
    pub(crate) rest_stride: i64,
    /// Elements between rows.
    pub(crate) to_stride: i64,
    pub(crate) whole_kind: u32,
    pub(crate) rest_kind: u32,
    pub(crate) to_kind: u32,
    pub(crate) pad: u32,
}

/// Rows whose logits are products of at most 64 features: f32 hidden rows against weights of 16 bits.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TileArgs {
    /// The rows and the loss's options; x and y stand unused.
    pub(crate) row: CrossEntropyArgs,
    /// `[rows, width]`, f32.
    pub(crate) hidden: In,
    /// `[classes, width]`.
    pub(crate) weight: In,
    /// Rows that there are, of which these hold those from `from` on; null: all.
    pub(crate) count: InI64,
    /// `[splits, rows, words of a state and one]` or `[splits, rows, width]`.
    pub(crate) partials: OutF32,
    /// Per row: what its gradient is made of, and behind all of them its class (i64) and one, 0 where it does not
    /// count; null: there is no backward pass.
    pub(crate) slopes: OutF32,
    /// The gradient of hidden rows or of weights.
    pub(crate) to: Out,
    pub(crate) width: i64,
    pub(crate) from: i64,
    /// Elements between rows.
    pub(crate) hidden_stride: i64,
    /// Elements between rows.
    pub(crate) weight_stride: i64,
    /// Elements between rows.
    pub(crate) to_stride: i64,
    /// Parts of the classes.
    pub(crate) splits: i64,
    pub(crate) to_kind: u32,
    /// To what is there.
    pub(crate) add: u32,
}

/// Rows of a matrix from and to other places.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PanelArgs {
    /// Or null: zeros.
    pub(crate) from: In,
    pub(crate) to: Out,
    /// Where a row is, or goes; null: where it stands.
    pub(crate) rows: InI64,
    /// Below 0: the row holds nothing; null: all do.
    pub(crate) marks: InI64,
    pub(crate) n: i64,
    pub(crate) columns: i64,
    pub(crate) from_stride: i64,
    pub(crate) to_stride: i64,
    pub(crate) from_kind: u32,
    pub(crate) to_kind: u32,
    /// To what is there.
    pub(crate) add: u32,
    /// Which bf16 part stands where (panel_parts): a digit of 2 bits each.
    pub(crate) parts: u32,
    /// What rounding left (panel_compensate), of `to`'s kind; or what rows were multiplied by (panel_halves), f32.
    pub(crate) rest: Out,
    pub(crate) rest_stride: i64,
}
