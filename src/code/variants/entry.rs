//! The schedules of `kernels/schedule/row.cuh`.

/// A schedule's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Entry {
    FewForward,
    FewGradient,
    WarpForward,
    WarpGradient,
    /// Rows side by side.
    NeighboursForward,
    NeighboursGradient,
    Stream,
    Block,
    /// From sm_90 on.
    Cluster,
    SplitSum,
    /// Sums that need the whole row's state.
    SplitSecond,
    SplitFinish,
    SplitGradient,
    /// `SplitSum` and `SplitGradient` in one launch.
    SplitTwice,
    /// Gradient from a saved lse: one read.
    SplitBackward,
    /// The target's element of it.
    SplitTarget,
    /// The state of each block of a shard's classes.
    State,
    /// Results from the states of all blocks.
    StateFinish,
    /// What a row's gradient is made of, from them.
    StateSlopes,
    /// The gradient of a shard's classes, from that.
    StateGradient,
}

impl Entry {
    pub(crate) const ALL: [Entry; 20] = [
        Entry::FewForward,
        Entry::FewGradient,
        Entry::WarpForward,
        Entry::WarpGradient,
        Entry::NeighboursForward,
        Entry::NeighboursGradient,
        Entry::Stream,
        Entry::Block,
        Entry::Cluster,
        Entry::SplitSum,
        Entry::SplitSecond,
        Entry::SplitFinish,
        Entry::SplitGradient,
        Entry::SplitTwice,
        Entry::SplitBackward,
        Entry::SplitTarget,
        Entry::State,
        Entry::StateFinish,
        Entry::StateSlopes,
        Entry::StateGradient,
    ];

    pub(super) const fn symbol(self) -> &'static str {
        match self {
            Entry::FewForward => "few_forward",
            Entry::FewGradient => "few_gradient",
            Entry::WarpForward => "warp_forward",
            Entry::WarpGradient => "warp_gradient",
            Entry::NeighboursForward => "neighbours_forward",
            Entry::NeighboursGradient => "neighbours_gradient",
            Entry::Stream => "stream",
            Entry::Block => "block",
            Entry::Cluster => "cluster",
            Entry::SplitSum => "split_sum",
            Entry::SplitSecond => "split_second",
            Entry::SplitFinish => "split_finish",
            Entry::SplitGradient => "split_gradient",
            Entry::SplitTwice => "split_twice",
            Entry::SplitBackward => "split_backward",
            Entry::SplitTarget => "split_target",
            Entry::State => "state",
            Entry::StateFinish => "state_finish",
            Entry::StateSlopes => "state_slopes",
            Entry::StateGradient => "state_gradient",
        }
    }

    /// The body in `kernels/schedule`, given a functor.
    pub(super) fn body(self, functor: &str) -> String {
        match self {
            Entry::FewForward => format!("lanes_row<{functor}, 4, false>"),
            Entry::FewGradient => format!("lanes_row<{functor}, 4, true>"),
            Entry::WarpForward => format!("lanes_row<{functor}, 32, false>"),
            Entry::WarpGradient => format!("lanes_row<{functor}, 32, true>"),
            Entry::NeighboursForward => format!("neighbours_row<{functor}, false>"),
            Entry::NeighboursGradient => format!("neighbours_row<{functor}, true>"),
            Entry::Stream => format!("stream_row<{functor}>"),
            Entry::Block => format!("on_chip_row<{functor}, false>"),
            Entry::Cluster => format!("on_chip_row<{functor}, true>"),
            Entry::SplitSum => format!("split_sum<{functor}>"),
            Entry::SplitSecond => format!("split_second<{functor}>"),
            Entry::SplitFinish => format!("split_finish<{functor}>"),
            Entry::SplitGradient => format!("split_gradient<{functor}>"),
            Entry::SplitTwice => format!("split_twice<{functor}>"),
            Entry::SplitBackward => format!("split_backward<{functor}>"),
            Entry::SplitTarget => format!("split_target<{functor}>"),
            Entry::State => format!("state_sum<{functor}>"),
            Entry::StateFinish => format!("state_finish<{functor}>"),
            Entry::StateSlopes => format!("state_slopes<{functor}>"),
            Entry::StateGradient => format!("state_gradient<{functor}>"),
        }
    }

    /// Most threads of a block, and blocks that a multiprocessor shall hold at the least.
    pub(super) const fn bounds(self) -> (u32, u32) {
        match self {
            Entry::FewForward
            | Entry::FewGradient
            | Entry::WarpForward
            | Entry::WarpGradient
            | Entry::SplitFinish
            | Entry::SplitTarget
            | Entry::State
            | Entry::StateFinish
            | Entry::StateSlopes
            | Entry::StateGradient => (128, 8),
            Entry::NeighboursForward | Entry::NeighboursGradient => (256, 4),
            Entry::Stream
            | Entry::Block
            | Entry::Cluster
            | Entry::SplitSum
            | Entry::SplitSecond
            | Entry::SplitGradient
            | Entry::SplitTwice
            | Entry::SplitBackward => (512, 2),
        }
    }

    /// Whether its kernel waits for the launch before it, where that has not ended.
    pub(crate) const fn waits(self) -> bool {
        matches!(
            self,
            Entry::FewForward
                | Entry::FewGradient
                | Entry::WarpForward
                | Entry::WarpGradient
                | Entry::Stream
                | Entry::Block
                | Entry::Cluster
                | Entry::SplitSum
                | Entry::SplitTwice
        )
    }

    /// Threads of a launch whose row schedule has `threads` a block.
    pub(crate) const fn block(self, threads: u32) -> u32 {
        match self {
            Entry::SplitFinish | Entry::SplitTarget => self.bounds().0,
            Entry::State | Entry::StateFinish | Entry::StateSlopes | Entry::StateGradient => {
                self.bounds().0
            }
            _ => threads,
        }
    }
}

/// Numbers of rows alone.
pub(super) const FORWARD: &[Entry] =
    &[Entry::FewForward, Entry::WarpForward, Entry::Stream, Entry::SplitSum, Entry::SplitFinish];
/// An element for each of the rows'.
pub(super) const GRADIENT: &[Entry] = &[
    Entry::FewGradient,
    Entry::WarpGradient,
    Entry::Block,
    Entry::Cluster,
    Entry::SplitSum,
    Entry::SplitGradient,
];
/// The same of split rows in one launch, where a sum of them is all that it takes.
pub(super) const TWICE: &[Entry] = &[Entry::SplitTwice];
/// The same of rows side by side.
pub(super) const NEIGHBOURS: &[Entry] = &[Entry::NeighboursForward, Entry::NeighboursGradient];
pub(super) const WRITTEN_NEIGHBOURS: &[Entry] = &[Entry::NeighboursGradient];
/// Sums that need the whole row's state.
pub(super) const SECOND: &[Entry] = &[Entry::SplitSecond];
/// From a saved log-sum-exp, where rows are split.
pub(super) const SAVED: &[Entry] = &[Entry::SplitBackward, Entry::SplitTarget];
/// States that leave a call.
pub(super) const STATES: &[Entry] =
    &[Entry::State, Entry::StateFinish, Entry::StateSlopes, Entry::StateGradient];
