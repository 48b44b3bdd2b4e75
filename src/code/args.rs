//! What a launch hands to a kernel, each struct as it lies in memory. Kernels have the same structs by
//! a header that is made of these: `cargo run -p xtask -- table`.

pub(crate) mod address;
mod batch;
mod elements;
mod kind;
mod layers;
mod rows;

pub(crate) use batch::{BatchArgs, MAX_DIMS, PermuteArgs, RankArgs, Status, Totals};
pub(crate) use elements::ElementwiseArgs;
pub(crate) use kind::kind;
pub(crate) use layers::{
    BinArgs, DistributionArgs, EmbeddingArgs, MAX_CLUSTERS, NarrowArgs, PanelArgs, SampledArgs,
    SegmentArgs, SortArgs,
};
pub(crate) use rows::{NllArgs, RowArgs};

/// A struct that is handed to a kernel as it lies in memory.
///
/// # Safety
/// `repr(C)` without padding, plain numbers alone, aligned to at most 8 bytes.
pub(crate) unsafe trait Argument: Copy {}

macro_rules! arguments {
    ($($name:ident)*) => {$(
        // SAFETY: the header is made of these structs, and nothing is made of one that has padding
        // or a field that is no number: `what_is_written_twice_says_the_same` (xtask) fails.
        unsafe impl Argument for $name {}
    )*};
}
arguments! {
    RowArgs NllArgs BatchArgs RankArgs PermuteArgs ElementwiseArgs
    BinArgs DistributionArgs EmbeddingArgs SampledArgs SortArgs SegmentArgs NarrowArgs PanelArgs
}

/// The bytes of an argument.
pub(crate) fn bytes<A: Argument>(args: &A) -> &[u8] {
    // SAFETY: an `Argument` has no padding, so it is that many initialised bytes.
    unsafe { std::slice::from_raw_parts((&raw const *args).cast(), size_of::<A>()) }
}
