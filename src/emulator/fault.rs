//! What a kernel did wrong, and where.

use std::fmt;

/// The kind of a [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// The launch itself: no such kernel, or a shape that the device refuses.
    Launch,
    /// A barrier that not all threads of the block reach, or not at the same line.
    BarrierDivergence,
    /// A collective whose mask names a lane that cannot come, or a shuffle from outside its mask.
    MissingLane,
    /// Lanes that meet with different collectives, masks or lines.
    LanesDisagree,
    /// Cluster barrier steps out of order.
    ClusterBarrier,
    /// Threads that wait for each other.
    Deadlock,
    /// Global memory outside every allocation.
    GlobalOutOfBounds,
    /// Global memory at an address that the access cannot have.
    GlobalMisaligned,
    /// Global memory that nothing has written.
    GlobalUninitialised,
    /// An index outside a shared array, or an array outside the block's shared memory.
    SharedOutOfBounds,
    /// Shared memory at an offset that the access cannot have.
    SharedMisaligned,
    /// Shared memory that this block has not written.
    SharedUninitialised,
    /// Two threads at one shared word, one of them writing, with nothing that orders them.
    SharedRace,
    /// Shared memory that something is sent to, by who has not waited for the mbarrier that counts it.
    NotArrived,
    /// An mbarrier that is sent more or fewer bytes than it was made for, or whose block ends before they are there.
    TransactionCount,
    /// Shared memory of a peer before any cluster barrier: the peer may not have started.
    PeerNotStarted,
    /// Shared memory of a peer whose block has ended.
    PeerExited,
    /// Memory that the launch before has written, or any write, in a launch that begins early, before the thread has
    /// waited.
    BeforeWait,
    /// A thread's stack ran over.
    StackOverflow,
}

/// A kernel's violation of the rules of its machine: the launch ended there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// What was violated.
    pub kind: FaultKind,
    /// The kernel's name.
    pub kernel: String,
    /// Block in the grid.
    pub block: [u32; 2],
    /// Thread in the block.
    pub thread: u32,
    /// Source file; empty where the fault has no line.
    pub file: String,
    /// Line in it, from 1.
    pub line: u32,
    /// The rest, in words.
    pub detail: String,
}

impl Fault {
    /// A product that reads what nothing has written.
    pub(crate) fn unwritten(address: u64, bytes: u64) -> Fault {
        Fault {
            kind: FaultKind::GlobalUninitialised,
            kernel: "product".into(),
            block: [0, 0],
            thread: 0,
            file: String::new(),
            line: 0,
            detail: format!("{bytes} bytes at {address:#x}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}", self.kernel)?;
        if !self.file.is_empty() {
            let [x, y] = self.block;
            write!(f, ", block ({x}, {y}), thread {}, {}:{}", self.thread, self.file, self.line)?;
        }
        write!(f, ": {:?}: {}", self.kind, self.detail)
    }
}

impl std::error::Error for Fault {}
