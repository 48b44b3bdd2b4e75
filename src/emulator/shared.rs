//! Shared memory's shadow: who wrote and read each half-word, and when.
//!
//! Two accesses are ordered by a barrier of the block between them, by `wl_syncwarp` within a
//! warp, or by a cluster barrier at which the first arrived after its access and from which the
//! second had returned before its own. Epochs count each of them.

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
    pub(super) arrived: u32,
    pub(super) waited: u32,
    pub(super) line: u32,
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
        }
    }

    fn before(&self, who: &Who) -> bool {
        self.span == Span::Thread && u32::from(self.thread) == who.thread
            || self.before_in_block(who)
            || who.waited > self.arrived
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
    Race { name: &'static str, thread: u32, line: u32 },
}

impl Cell {
    pub(super) fn access(&mut self, life: u32, who: &Who, write: bool) -> Result<(), Conflict> {
        if self.life != life {
            *self = Cell { life, ..Cell::default() };
        }
        let race = |name, other: &Trace| {
            Err(Conflict::Race { name, thread: other.thread.into(), line: other.line })
        };
        if write {
            if !self.wrote.before(who) {
                return race("write after write", &self.wrote);
            }
            if !self.read.before(who) {
                return race("write after read", &self.read);
            }
            self.wrote = Trace::of(who);
            self.read = Trace::default();
        } else {
            if self.wrote.span == Span::Nobody {
                return Err(Conflict::Uninitialised);
            }
            if !self.wrote.before(who) {
                return race("read after write", &self.wrote);
            }
            self.read.join(who);
        }
        Ok(())
    }
}
