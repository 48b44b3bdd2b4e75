//! The source files of kernels.

/// The files, each with the type of its kernels' one argument.
macro_rules! modules {
    ($($(#[$doc:meta])* $name:ident = $file:literal $arguments:literal,)*) => {
        /// A source file of kernels.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Module {
            $($(#[$doc])* $name,)*
        }

        impl Module {
            #[allow(dead_code)] // The build script's.
            pub(crate) const ALL: &'static [Module] = &[$(Module::$name),*];

            /// The file's name under `kernels/`.
            pub(crate) const fn file(self) -> &'static str {
                match self {
                    $(Module::$name => $file,)*
                }
            }

            /// The type of its kernels' one argument.
            pub(super) const fn arguments(self) -> &'static str {
                match self {
                    $(Module::$name => $arguments,)*
                }
            }
        }
    };
}

modules! {
    CrossEntropy = "cross_entropy.cu" "RowArgs",
    LogSoftmax = "log_softmax.cu" "RowArgs",
    LogSumExp = "logsumexp.cu" "RowArgs",
    LogprobEntropy = "logprob_entropy.cu" "RowArgs",
    /// Counts of ranks.
    Ranks = "ranks.cu" "RankArgs",
    SoftCrossEntropy = "soft_cross_entropy.cu" "RowArgs",
    Nll = "nll.cu" "NllArgs",
    /// What the losses share besides: census of targets, sums over rows.
    Batch = "batch.cu" "BatchArgs",
    Permute = "permute.cu" "PermuteArgs",
    Mse = "mse.cu" "ElementwiseArgs",
    L1 = "l1.cu" "ElementwiseArgs",
    Huber = "huber.cu" "ElementwiseArgs",
    BceWithLogits = "bce_with_logits.cu" "ElementwiseArgs",
    KlDiv = "kl_div.cu" "ElementwiseArgs",
    JsDiv = "js_div.cu" "ElementwiseArgs",
    JsDivLogits = "js_div_logits.cu" "RowArgs",
    Information = "information.cu" "RowArgs",
    /// What elementwise losses share besides: sums of weights, totals.
    Elementwise = "elementwise.cu" "ElementwiseArgs",
    /// The rows of a layer by cluster.
    Bins = "bins.cu" "BinArgs",
    /// What is asked of all classes of an adaptive softmax.
    Distribution = "distribution.cu" "DistributionArgs",
    /// Rows of matrices from and to other places.
    Panels = "panels.cu" "PanelArgs",
    /// Parts sorted by class.
    Sort = "sort.cu" "SortArgs",
    /// Rows added up by class.
    Segments = "segments.cu" "SegmentArgs",
    /// A softmax whose logits are products of few features.
    LinearSoftmax = "linear_softmax.cu" "NarrowArgs",
    Embedding = "adaptive_embedding.cu" "EmbeddingArgs",
    Sampled = "sampled_softmax.cu" "SampledArgs",
}
