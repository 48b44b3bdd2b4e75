//! What is handed to the kernels of layers, and of what goes between their products.

use crate::code::args::Argument;

/// Most clusters of a layer.
pub(crate) const MAX_CLUSTERS: usize = 32;

/// The rows of a layer by cluster.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BinArgs {
    pub(crate) target: u64,
    pub(crate) weight: u64,
    pub(crate) upstream: u64,
    pub(crate) places: u64,
    pub(crate) column: u64,
    pub(crate) local: u64,
    pub(crate) cluster: u64,
    pub(crate) rows: u64,
    pub(crate) locals: u64,
    pub(crate) factor: u64,
    pub(crate) factors: u64,
    pub(crate) counts: u64,
    pub(crate) totals: u64,
    pub(crate) status: u64,
    pub(crate) nll: u64,
    pub(crate) output: u64,
    pub(crate) loss: u64,
    pub(crate) n: i64,
    pub(crate) classes: i64,
    pub(crate) ignore_index: i64,
    pub(crate) clusters: i64,
    pub(crate) shortlist: i64,
    pub(crate) cutoffs: [i64; MAX_CLUSTERS],
    /// First slot of each cluster, and the end of the last.
    pub(crate) begins: Begins,
    pub(crate) number: f32,
    pub(crate) target_kind: u32,
    pub(crate) weight_kind: u32,
    pub(crate) upstream_kind: u32,
    pub(crate) upstream_rows: u32,
    pub(crate) ignores: u32,
    pub(crate) mean: u32,
    pub(crate) whole: u32,
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
    pub(crate) log_prob: u64,
    pub(crate) head: u64,
    pub(crate) classes: u64,
    pub(crate) picked: u64,
    pub(crate) values: u64,
    pub(crate) rows: u64,
    pub(crate) needed: u64,
    pub(crate) counts: u64,
    pub(crate) names: u64,
    pub(crate) logs: u64,
    pub(crate) seed: u64,
    pub(crate) n: i64,
    pub(crate) places: i64,
    pub(crate) stride: i64,
    pub(crate) head_size: i64,
    pub(crate) shortlist: i64,
    pub(crate) clusters: i64,
    pub(crate) row: i64,
    pub(crate) k: i64,
    pub(crate) begin: i64,
    pub(crate) cluster: i64,
    pub(crate) cutoffs: [i64; MAX_CLUSTERS],
}

/// Rows of an adaptive embedding's index.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EmbeddingArgs {
    pub(crate) bins: BinArgs,
    pub(crate) places: u64,
    pub(crate) slots: u64,
}

/// Rows against their targets and sampled classes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SampledArgs {
    pub(crate) column: u64,
    pub(crate) cluster: u64,
    pub(crate) marks: u64,
    pub(crate) target_offsets: u64,
    pub(crate) offsets: u64,
    pub(crate) drawn: u64,
    pub(crate) probabilities: u64,
    pub(crate) weight: u64,
    pub(crate) bias: u64,
    pub(crate) x: u64,
    pub(crate) z: u64,
    pub(crate) products: u64,
    pub(crate) grad: u64,
    pub(crate) tries: f64,
    pub(crate) n: i64,
    pub(crate) samples: i64,
    pub(crate) classes: i64,
    pub(crate) features: i64,
    pub(crate) weight_stride: i64,
    pub(crate) x_stride: i64,
    pub(crate) z_stride: i64,
    pub(crate) grad_stride: i64,
    pub(crate) kind: u32,
    pub(crate) keep_hits: u32,
}

/// Parts that are sorted by class, eight bits of it a pass.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SortArgs {
    pub(crate) first: u64,
    pub(crate) second: u64,
    pub(crate) keys: u64,
    pub(crate) parts: u64,
    pub(crate) to_keys: u64,
    pub(crate) to_parts: u64,
    pub(crate) counts: u64,
    pub(crate) n: i64,
    pub(crate) split: i64,
    pub(crate) classes: i64,
    pub(crate) tiles: i64,
    pub(crate) shift: u32,
    pub(crate) pad: u32,
}

/// Rows of parts, added up by class.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SegmentArgs {
    pub(crate) keys: u64,
    pub(crate) parts: u64,
    pub(crate) whole: u64,
    pub(crate) rest: u64,
    pub(crate) slots: u64,
    pub(crate) factors: u64,
    pub(crate) to: u64,
    pub(crate) n: i64,
    pub(crate) split: i64,
    pub(crate) from: i64,
    pub(crate) to_slot: i64,
    pub(crate) begin: i64,
    pub(crate) end: i64,
    pub(crate) columns: i64,
    pub(crate) whole_stride: i64,
    pub(crate) rest_stride: i64,
    pub(crate) to_stride: i64,
    pub(crate) whole_kind: u32,
    pub(crate) rest_kind: u32,
    pub(crate) to_kind: u32,
    pub(crate) pad: u32,
}

/// Slots of a cluster against its weights, of few features.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NarrowArgs {
    pub(crate) hidden: u64,
    pub(crate) weight: u64,
    pub(crate) targets: u64,
    pub(crate) factors: u64,
    pub(crate) count: u64,
    pub(crate) partials: u64,
    pub(crate) scale: u64,
    pub(crate) miss: u64,
    pub(crate) nll: u64,
    pub(crate) to: u64,
    pub(crate) n: i64,
    pub(crate) classes: i64,
    pub(crate) width: i64,
    pub(crate) from: i64,
    pub(crate) hidden_stride: i64,
    pub(crate) weight_stride: i64,
    pub(crate) to_stride: i64,
    pub(crate) splits: i64,
    pub(crate) to_kind: u32,
    pub(crate) add: u32,
}

/// Rows of a matrix from and to other places.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PanelArgs {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) rows: u64,
    pub(crate) marks: u64,
    pub(crate) n: i64,
    pub(crate) columns: i64,
    pub(crate) from_stride: i64,
    pub(crate) to_stride: i64,
    pub(crate) from_kind: u32,
    pub(crate) to_kind: u32,
    pub(crate) add: u32,
    pub(crate) parts: u32,
}

const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<BinArgs>() == 736 && offset_of!(BinArgs, cutoffs) == 176);
    assert!(offset_of!(BinArgs, number) == 696 && size_of::<PanelArgs>() == 80);
    assert!(size_of::<DistributionArgs>() == 424 && size_of::<EmbeddingArgs>() == 752);
    assert!(size_of::<SampledArgs>() == 184 && size_of::<SortArgs>() == 96);
    assert!(size_of::<SegmentArgs>() == 152 && size_of::<NarrowArgs>() == 152);
};

// SAFETY: the assertions above leave no room for padding; every field is a number.
unsafe impl Argument for BinArgs {}
// SAFETY: as above.
unsafe impl Argument for DistributionArgs {}
// SAFETY: as above.
unsafe impl Argument for EmbeddingArgs {}
// SAFETY: as above.
unsafe impl Argument for SampledArgs {}
// SAFETY: as above.
unsafe impl Argument for SortArgs {}
// SAFETY: as above.
unsafe impl Argument for SegmentArgs {}
// SAFETY: as above.
unsafe impl Argument for NarrowArgs {}
// SAFETY: as above.
unsafe impl Argument for PanelArgs {}
