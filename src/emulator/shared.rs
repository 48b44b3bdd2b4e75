//! Shared memory's shadow: who wrote and read each half-word, and when.
//!
//! Two accesses are ordered by a barrier of the block between them, or by `wl_syncwarp` within a
//! warp. What a peer sends is ordered by the mbarrier that counts it, for whoever has returned from a wait
//! for that, and those who met them at a barrier since. Of a cluster's barrier only mbarriers that were
//! shown before come to peers. Epochs count each of them.

/// Bytes of a cell: the smallest element that may be shared.
pub(super) const GRANULE: usize = 2;

/// Who accesses, and what it has been ordered after.
#[derive(Clone, Copy)]
pub(super) struct Who {
    /// Thread in the cluster; blocks begin at multiples of 32.
    pub(super) thread: u32,
    pub(super) block: u32,
    /// Threads between the starts of blocks.
    pub(super) pitch: u32,
    pub(super) barriers: u32,
    pub(super) warp_syncs: u32,
    /// Cluster barriers arrived at, and returned from.
    pub(super) arrived: u32,
    pub(super) waited: u32,
    /// The block's mbarriers that are known to have had everything, as bits.
    pub(super) met: u64,
    pub(super) line: u32,
}

/// What an access does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    /// Makes an mbarrier.
    Init,
    /// Names it in a sending.
    Count,
    /// Is sent, to be counted by the block's mbarrier of this number.
    Send(u32),
}

/// Which threads a [`Trace`] is of.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Span {
    #[default]
    Nobody,
    Thread,
    Warp,
    Block,
    Cluster,
    /// A thread that has sent it; `barriers` numbers the mbarrier.
    Sender,
    /// A thread that has made an mbarrier.
    Maker,
}

/// Past accesses of one kind: the threads, and the latest epochs at which they happened.
#[derive(Clone, Copy, Default)]
struct Trace {
    span: Span,
    thread: u16,
    line: u32,
    barriers: u32,
    warp_syncs: u32,
    arrived: u32,
}

impl Trace {
    fn of(who: &Who) -> Trace {
        Trace {
            span: Span::Thread,
            thread: who.thread as u16,
            line: who.line,
            barriers: who.barriers,
            warp_syncs: who.warp_syncs,
            arrived: who.arrived,
        }
    }

    fn same_warp(&self, who: &Who) -> bool {
        u32::from(self.thread) / 32 == who.thread / 32
    }

    fn same_block(&self, who: &Who) -> bool {
        u32::from(self.thread) / who.pitch == who.block
    }

    /// Whether a barrier within the block, or within the warp, lies between.
    fn before_in_block(&self, who: &Who) -> bool {
        match self.span {
            Span::Nobody => true,
            Span::Thread | Span::Warp => {
                self.same_block(who) && who.barriers > self.barriers
                    || self.same_warp(who) && who.warp_syncs > self.warp_syncs
            }
            Span::Block => self.same_block(who) && who.barriers > self.barriers,
            Span::Cluster => false,
            Span::Sender => who.met >> self.barriers & 1 != 0,
            // Peers know it by the cluster's barrier alone, its own block by any.
            Span::Maker => {
                who.waited > self.arrived || self.same_block(who) && who.barriers > self.barriers
            }
        }
    }

    fn before(&self, who: &Who) -> bool {
        matches!(self.span, Span::Thread | Span::Maker) && u32::from(self.thread) == who.thread
            || self.before_in_block(who)
    }

    /// Adds a reader.
    fn join(&mut self, who: &Who) {
        let mut joined = Trace::of(who);
        joined.arrived = joined.arrived.max(self.arrived);
        let alone = self.span == Span::Thread && u32::from(self.thread) == who.thread;
        // What is ordered before `who` is ordered before all that `who` is.
        if !alone && !self.before_in_block(who) {
            joined.span = match self.span {
                Span::Nobody | Span::Thread | Span::Warp if self.same_warp(who) => Span::Warp,
                Span::Cluster => Span::Cluster,
                _ if self.same_block(who) => Span::Block,
                _ => Span::Cluster,
            };
            joined.barriers = joined.barriers.max(self.barriers);
            joined.warp_syncs = joined.warp_syncs.max(self.warp_syncs);
        }
        *self = joined;
    }
}

/// The shadow of [`GRANULE`] bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Cell {
    /// The run of a block that the rest is of.
    life: u32,
    wrote: Trace,
    read: Trace,
}

/// A conflict: what to call it, and the other thread with its line.
pub(super) enum Conflict {
    Uninitialised,
    Race {
        name: &'static str,
        thread: u32,
        line: u32,
    },
    /// Still on its way.
    Sent {
        thread: u32,
        line: u32,
    },
    /// Sent over what was sent before, and read by nobody.
    Unread {
        thread: u32,
        line: u32,
    },
}

impl Cell {
    pub(super) fn access(&mut self, life: u32, who: &Who, access: Access) -> Result<(), Conflict> {
        if self.life != life {
            *self = Cell { life, ..Cell::default() };
        }
        let race = |name, other: &Trace| {
            let (thread, line) = (other.thread.into(), other.line);
            Err(match other.span {
                Span::Sender => Conflict::Sent { thread, line },
                _ => Conflict::Race { name, thread, line },
            })
        };
        let mut trace = Trace::of(who);
        match access {
            Access::Read | Access::Count => {
                if self.wrote.span == Span::Nobody {
                    return Err(Conflict::Uninitialised);
                }
                if !self.wrote.before(who) {
                    return race("read after write", &self.wrote);
                }
                self.read.join(who);
                return Ok(());
            }
            Access::Write => (),
            Access::Init => trace.span = Span::Maker,
            Access::Send(mbarrier) => (trace.span, trace.barriers) = (Span::Sender, mbarrier),
        }
        // Who has read it was ordered after its sending, and who sends over it after that.
        let over = trace.span == Span::Sender && self.wrote.span == Span::Sender;
        if over && self.read.span == Span::Nobody {
            let Trace { thread, line, .. } = self.wrote;
            return Err(Conflict::Unread { thread: thread.into(), line });
        }
        if !over && !self.wrote.before(who) {
            return race("write after write", &self.wrote);
        }
        if !self.read.before(who) {
            return race("write after read", &self.read);
        }
        (self.wrote, self.read) = (trace, Trace::default());
        Ok(())
    }
}
