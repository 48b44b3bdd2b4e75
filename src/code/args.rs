//! What a launch hands to a kernel, each struct as it lies in memory. Kernels have the same structs by
//! a header that is made of these: `cargo run -p xtask -- table`.

pub(crate) mod address;
mod argument;
mod batch;
mod elements;
mod kind;
mod layers;
mod likeliest;
mod linear;
mod lists;
mod nll;
mod parts;
mod rows;

pub(crate) use argument::{Argument, bytes};
pub(crate) use batch::{
    BatchArgs, MAX_DIMS, MergeArgs, PermuteArgs, RankArgs, Status, SumArgs, Totals,
};
pub(crate) use elements::ElementwiseArgs;
pub(crate) use kind::kind;
pub(crate) use layers::{
    BinArgs, DistributionArgs, EmbeddingArgs, MAX_CLUSTERS, PanelArgs, SampledArgs, SegmentArgs,
    SortArgs, TileArgs,
};
pub(crate) use likeliest::MOST_LISTED;
pub(crate) use linear::{BlockSparseArgs, LinearRowsArgs, LinearTileArgs};
pub(crate) use lists::{RestArgs, SubsetArgs};
pub(crate) use nll::NllArgs;
pub(crate) use parts::PartArgument;
pub(crate) use rows::{
    BesideArgs, CrossEntropyArgs, InformationArgs, JsDivLogitsArgs, LabelArgs, LogSoftmaxArgs,
    LogSumExpArgs, LogitArgs, LogprobEntropyArgs, LossOutputs, MultiMarginArgs, RankOutputs,
    RowArgument, RowOperands, ShardArgs, SmoothingArgs, SoftCrossEntropyArgs, TokenArgs,
    TokenOutputs, TopArgs, UpstreamArgs, WeightArgs,
};

macro_rules! arguments {
    ($($name:ident)*) => {$(
        // SAFETY: the header is made of these structs, and nothing is made of one that has padding
        // or a field that is no number: `what_is_written_twice_says_the_same` (xtask) fails.
        unsafe impl Argument for $name {}
    )*};
}
arguments! {
    CrossEntropyArgs LogprobEntropyArgs SoftCrossEntropyArgs JsDivLogitsArgs
    LogSoftmaxArgs LogSumExpArgs InformationArgs MultiMarginArgs NllArgs BatchArgs RankArgs MergeArgs PermuteArgs ElementwiseArgs
    BinArgs DistributionArgs EmbeddingArgs SampledArgs SortArgs SegmentArgs TileArgs PanelArgs LinearRowsArgs
    LinearTileArgs BlockSparseArgs SubsetArgs RestArgs TopArgs
}
