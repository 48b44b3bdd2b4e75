//! Kernels without an element type of their own: over targets, rows' results, panels of products.

use super::Module;

/// The kernels, each with its file and the function that is its body.
macro_rules! batch {
    ($($(#[$doc:meta])* $name:ident = $module:ident $body:literal,)*) => {
        /// Kernels without an element type of their own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Batch {
            $($(#[$doc])* $name,)*
        }

        impl Batch {
            pub(crate) const ALL: &'static [Batch] = &[$(Batch::$name),*];

            pub(super) const fn module(self) -> Module {
                match self {
                    $(Batch::$name => Module::$module,)*
                }
            }

            pub(super) const fn body(self) -> &'static str {
                match self {
                    $(Batch::$name => $body,)*
                }
            }
        }
    };
}

batch! {
    /// Class weights and targets: the weights' sum, rows kept, what those weigh, the first that is wrong.
    Census = Batch "census",
    /// Losses of rows.
    Sum = Batch "sum_losses",
    /// Elements of a tensor, line by line, and back.
    Permute = Permute "permute",
    /// The same by tiles, where lines are neighbours in the tensor.
    PermuteTiled = Permute "permute_tiled",
    /// Ranks below each of some limits.
    Ranks = Ranks "count_ranks",
    /// A part's states of rows, into those of more blocks.
    MergeStates = States "merge_states",
    /// One element of each row, to its loss.
    NllPick = Nll "nll_pick",
    /// Zeros, and one element of each row.
    NllSpread = Nll "nll_spread",
    /// Element weights, block by block: their sum.
    WeightsSum = Elementwise "weights_sum",
    /// The blocks' sums in order.
    WeightsSumTotal = Elementwise "weights_sum_total",
    /// A tensor of elementwise losses, block by block: the first number outside of its range.
    Outside = Elementwise "outside",
    /// The first of the blocks'.
    OutsideTotal = Elementwise "outside_total",
    /// The sums of an elementwise loss, in order.
    LossTotal = Elementwise "loss_total",
    /// The parts of a gradient that is summed back, in order.
    SumBackTotal = Elementwise "sum_back_total",
    /// Each row's column of an adaptive softmax's head, and its cluster.
    BinColumns = Bins "bin_columns",
    /// The rows of each cluster, and what counts.
    BinSlots = Bins "bin_slots",
    /// Upstream gradients of rows.
    BinFactors = Bins "bin_factors",
    /// Outputs and the loss.
    BinFinish = Bins "bin_finish",
    /// Log-probabilities of all classes, of those of columns and clusters.
    DistributionShift = Distribution "distribution_shift",
    /// The same in the caller's order.
    DistributionRename = Distribution "distribution_rename",
    /// The rows that need each cluster.
    DistributionNeeds = Distribution "distribution_needs",
    /// The likeliest classes.
    DistributionTop = Distribution "distribution_top",
    /// A class by chance.
    DistributionDraw = Distribution "distribution_draw",
    /// Rows from other places.
    PanelGather = Panels "panel_gather",
    /// Rows added to those of other places.
    PanelScatterAdd = Panels "panel_scatter_add",
    /// Rows rounded.
    PanelRound = Panels "panel_round",
    /// Rows rounded, and what that leaves kept.
    PanelCompensate = Panels "panel_compensate",
    /// Rows as bf16 parts.
    PanelParts = Panels "panel_parts",
    /// Rows as f16 parts, by a power of two.
    PanelHalves = Panels "panel_halves",
    /// The sum of each column.
    PanelColumnSums = Panels "panel_column_sums",
    /// Marks of rows, and their upstream gradients with temperatures and weights in them.
    LinearRows = LinearRows "linear_rows",
    /// The rows that count, and then the others.
    LinearPack = LinearRows "linear_pack",
    /// Rows over their temperatures.
    LinearDivide = LinearRows "linear_divide",
    /// Losses of rows times their weights.
    LinearLosses = LinearRows "linear_losses",
    /// What slots have, put where their rows are.
    LinearResults = LinearRows "linear_results",
    /// Lists of classes in order.
    SubsetLists = Subset "subset_lists",
    /// The first list that is wrong.
    SubsetVerdict = Subset "subset_verdict",
    /// Logits of listed classes.
    SubsetLogits = Subset "subset_logits",
    /// Hidden rows' gradient by those of listed classes.
    SubsetInput = Subset "subset_input",
    /// The gradient of given logits.
    SubsetScatter = Subset "subset_scatter",
    /// Places in lists become classes.
    SubsetClasses = Subset "subset_classes",
    /// Probabilities of listed classes, or their gradient.
    SubsetSoft = Subset "subset_soft",
    /// Logits of listed classes and of all others as one.
    RestSums = Rest "rest_sums",
    /// Their gradient, spread over all classes.
    RestSpread = Rest "rest_spread",
    /// The likeliest classes of rows.
    Top = Top "top_classes",
    /// Each part with its class.
    SortKeys = Sort "sort_keys",
    /// How often each digit is in a tile.
    SortCount = Sort "sort_count",
    /// Where each tile's parts of a digit go.
    SortScan = Sort "sort_scan",
    /// Parts to their places.
    SortScatter = Sort "sort_scatter",
    /// Rows added up by class.
    SegmentSums = Segments "segment_sums",
    /// What a split's classes give of each row's softmax.
    TileForwardF16 = LinearSoftmax "tile_forward_f16",
    TileForwardBf16 = LinearSoftmax "tile_forward_bf16",
    /// The rows' losses of all splits, and what their gradients are made of.
    TileFinish = LinearSoftmax "tile_finish",
    /// The gradient of hidden rows, split by split.
    TileHiddenF16 = LinearSoftmax "tile_hidden_f16",
    TileHiddenBf16 = LinearSoftmax "tile_hidden_bf16",
    /// That of all splits.
    TileHiddenSum = LinearSoftmax "tile_hidden_sum",
    /// The gradient of weights.
    TileWeightF16 = LinearSoftmax "tile_weight_f16",
    TileWeightBf16 = LinearSoftmax "tile_weight_bf16",
    /// The same with soft-cap and label smoothing.
    TileFullForwardF16 = LinearSoftmax "tile_full_forward_f16",
    TileFullForwardBf16 = LinearSoftmax "tile_full_forward_bf16",
    TileFullFinish = LinearSoftmax "tile_full_finish",
    TileFullHiddenF16 = LinearSoftmax "tile_full_hidden_f16",
    TileFullHiddenBf16 = LinearSoftmax "tile_full_hidden_bf16",
    TileFullWeightF16 = LinearSoftmax "tile_full_weight_f16",
    TileFullWeightBf16 = LinearSoftmax "tile_full_weight_bf16",
    /// What a split's classes leave of each row's softmax; of any number of features.
    LinearForwardF16 = LinearCrossEntropy "linear_forward_f16",
    LinearForwardBf16 = LinearCrossEntropy "linear_forward_bf16",
    /// The rows' losses of all splits, and what their gradients are made of.
    LinearFinish = LinearCrossEntropy "linear_finish",
    /// The gradient of the logits of some classes.
    LinearGradientF16 = LinearCrossEntropy "linear_gradient_f16",
    LinearGradientBf16 = LinearCrossEntropy "linear_gradient_bf16",
    /// The same with all that may be asked of rows.
    LinearFullForwardF16 = LinearCrossEntropy "linear_full_forward_f16",
    LinearFullForwardBf16 = LinearCrossEntropy "linear_full_forward_bf16",
    LinearFullFinish = LinearCrossEntropy "linear_full_finish",
    LinearFullGradientF16 = LinearCrossEntropy "linear_full_gradient_f16",
    LinearFullGradientBf16 = LinearCrossEntropy "linear_full_gradient_bf16",
    /// Products of a matrix of which tiles are zeros.
    BlockSparseF32 = BlockSparse "block_sparse_f32",
    /// The same of that matrix turned.
    BlockSparseTurnedF16 = BlockSparse "block_sparse_turned_f16",
    BlockSparseTurnedBf16 = BlockSparse "block_sparse_turned_bf16",
    /// The sums of its columns.
    BlockSparseSums = BlockSparse "block_sparse_sums",
    /// Of each row of an index its class by frequency, and its slot.
    EmbeddingPlaces = Embedding "embedding_places",
    /// What targets and negatives have beside their products; targets that are never drawn.
    SampledOffsets = Sampled "sampled_offsets",
    /// Rows of logits, of products.
    SampledLogits = Sampled "sampled_logits",
    /// The gradient of the input, of products.
    SampledInput = Sampled "sampled_input",
}

/// Bytes of the stages that large products come through (`WL_PIPE_WORDS`).
const PIPELINE: u32 = 3 * (128 + 256) * 32 * 2;

impl Batch {
    /// Bytes of shared memory that a block asks for beside what it has.
    #[allow(dead_code)] // Launches ask, the build script does not.
    pub(crate) const fn dynamic_shared(self) -> u32 {
        match self {
            Batch::LinearForwardF16
            | Batch::LinearForwardBf16
            | Batch::LinearGradientF16
            | Batch::LinearGradientBf16
            | Batch::LinearFullForwardF16
            | Batch::LinearFullForwardBf16
            | Batch::LinearFullGradientF16
            | Batch::LinearFullGradientBf16
            | Batch::BlockSparseF32
            | Batch::BlockSparseTurnedF16
            | Batch::BlockSparseTurnedBf16 => PIPELINE,
            _ => 0,
        }
    }
}

/// Threads of every block of [`Batch`].
pub(crate) const BATCH_THREADS: u32 = 256;
