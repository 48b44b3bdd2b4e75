//! The source files of kernels.

use crate::spec::elementwise::functors::Functor;

/// The files, each with the type of its kernels' one argument.
macro_rules! modules {
    ($($(#[$doc:meta])* $name:ident = $file:literal $arguments:literal,)*) => {
        /// A source file of kernels.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Module {
            $($(#[$doc])* $name,)*
            /// Of functors over elements: the file's name.
            OfElements(&'static str),
        }

        impl Module {
            #[allow(dead_code)] // The build script's.
            pub(crate) fn all() -> Vec<Module> {
                let mut all = vec![$(Module::$name),*];
                for module in Functor::ALL.iter().map(|f| Module::OfElements(f.file())) {
                    if !all.contains(&module) {
                        all.push(module);
                    }
                }
                all
            }

            /// The file, as `folder/name` under `kernels/`.
            pub(crate) const fn file(self) -> &'static str {
                match self {
                    $(Module::$name => $file,)*
                    Module::OfElements(file) => file,
                }
            }

            /// The same without its folder and ending, which no two files share.
            #[allow(dead_code)] // The build script's.
            pub(crate) fn name(self) -> &'static str {
                let file = self.file();
                let name = file.rsplit_once('/').map_or(file, |(_, name)| name);
                name.trim_end_matches(".cu")
            }

            /// The type of its kernels' one argument.
            pub(super) const fn arguments(self) -> &'static str {
                match self {
                    $(Module::$name => $arguments,)*
                    Module::OfElements(_) => "ElementwiseArgs",
                }
            }
        }
    };
}

modules! {
    CrossEntropy = "loss/cross_entropy.cu" "CrossEntropyArgs",
    LogSoftmax = "loss/log_softmax.cu" "LogSoftmaxArgs",
    LogSumExp = "loss/logsumexp.cu" "LogSumExpArgs",
    LogprobEntropy = "loss/logprob_entropy.cu" "LogprobEntropyArgs",
    /// Counts of ranks.
    Ranks = "batch/ranks.cu" "RankArgs",
    /// States of rows, put together.
    States = "batch/states.cu" "MergeArgs",
    SoftCrossEntropy = "loss/soft_cross_entropy.cu" "SoftCrossEntropyArgs",
    Nll = "loss/nll.cu" "NllArgs",
    /// What the losses share besides: census of targets, sums over rows.
    Batch = "batch/census.cu" "BatchArgs",
    Permute = "batch/permute.cu" "PermuteArgs",
    JsDivLogits = "loss/js_div_logits.cu" "JsDivLogitsArgs",
    Information = "loss/information.cu" "InformationArgs",
    MultiMargin = "loss/multi_margin.cu" "MultiMarginArgs",
    /// What elementwise losses share besides: sums of weights, totals.
    Elementwise = "batch/element_sums.cu" "ElementwiseArgs",
    /// The rows of a layer by cluster.
    Bins = "batch/clusters.cu" "BinArgs",
    /// What is asked of all classes of an adaptive softmax.
    Distribution = "batch/distribution.cu" "DistributionArgs",
    /// Rows of matrices from and to other places.
    Panels = "batch/panels.cu" "PanelArgs",
    /// Rows of logits that are products, and what they have beside them.
    LinearRows = "batch/linear_rows.cu" "LinearRowsArgs",
    /// Rows that bring lists of classes.
    Subset = "batch/subset.cu" "SubsetArgs",
    /// All classes that rows do not list, as one.
    Rest = "loss/class_subset.cu" "RestArgs",
    /// Likeliest classes of rows.
    Top = "loss/top_classes.cu" "TopArgs",
    /// Parts sorted by class.
    Sort = "batch/sort.cu" "SortArgs",
    /// Rows added up by class.
    Segments = "batch/segment_sum.cu" "SegmentArgs",
    /// A softmax whose logits are products of few features.
    LinearSoftmax = "loss/linear_softmax.cu" "TileArgs",
    /// A softmax whose logits are products of any number of features.
    LinearCrossEntropy = "loss/linear_cross_entropy.cu" "LinearTileArgs",
    /// Products of matrices of which tiles are zeros.
    BlockSparse = "batch/block_sparse.cu" "BlockSparseArgs",
    Embedding = "batch/adaptive_embedding.cu" "EmbeddingArgs",
    Sampled = "loss/sampled_softmax.cu" "SampledArgs",
}
