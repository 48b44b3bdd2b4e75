//! The state of a cluster while it runs: threads, warps, blocks and what each waits for.

use super::banks::Banks;
use super::context::Context;
use super::fault::{Fault, FaultKind};
use super::shared::{Access, Cell, Conflict, GRANULE, Who};
use super::{abi, arena};
use corosensei::Yielder;
use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_void};

/// Lanes of a warp.
pub(super) const WARP: u32 = 32;

/// Where a thread waits for what is sent to its block.
const AT_MBARRIER: &str = "at an mbarrier";

/// A place in a source file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) file: *const c_char,
    pub(super) line: u32,
}

impl Site {
    pub(super) const NOWHERE: Site = Site { file: c"".as_ptr(), line: 0 };

    pub(super) fn file(self) -> &'static str {
        // SAFETY: from `__builtin_FILE()`: a static string.
        let path = unsafe { CStr::from_ptr(self.file) }.to_str().unwrap_or("?");
        path.strip_prefix(env!("CARGO_MANIFEST_DIR")).map_or(path, |p| p.trim_start_matches('/'))
    }
}

/// What a thread waits with.
#[derive(Clone, Copy)]
pub(super) struct Wait {
    pub(super) op: u32,
    pub(super) mask: u32,
    pub(super) arg: u32,
    pub(super) width: u32,
    pub(super) value: u64,
    pub(super) site: Site,
}

#[repr(C)]
pub(super) struct Thread {
    pub(super) shown: abi::Thread,
    pub(super) yielder: *const Yielder<(), ()>,
    /// Place in [`Cluster::threads`].
    pub(super) index: u32,
    pub(super) warp: u32,
    pub(super) block: u32,
    pub(super) lane: u32,
    pub(super) wait: Wait,
    pub(super) result: u64,
    /// Cluster barriers arrived at, and returned from.
    pub(super) arrived: u32,
    pub(super) waited: u32,
    /// The block's mbarriers that it knows to have had everything, as bits; whether it has made any that it
    /// has not shown.
    pub(super) met: u64,
    pub(super) unshown: bool,
    /// Clusters that had ended when it looked in vain for what others write, while none ran but its own.
    pub(super) alone: Option<u32>,
    pub(super) copies: VecDeque<Transfer>,
    /// Copies in each committed group, and in the open one.
    pub(super) groups: VecDeque<usize>,
    pub(super) open: usize,
}

#[derive(Clone, Copy)]
pub(super) struct Transfer {
    pub(super) to: u32,
    pub(super) from: u64,
    /// Zeros follow them, up to 16.
    pub(super) bytes: usize,
}

/// Sets of lanes, as bits.
#[derive(Default)]
pub(super) struct Warp {
    pub(super) all: u32,
    pub(super) ready: u32,
    pub(super) collective: u32,
    pub(super) barrier: u32,
    pub(super) cluster: u32,
    pub(super) mbarrier: u32,
    pub(super) exited: u32,
    pub(super) syncs: u32,
}

/// Counts what is sent to its block.
pub(super) struct Mbarrier {
    pub(super) offset: u32,
    /// Bytes that have still to come.
    pub(super) left: u32,
    /// Somebody has waited for it, or waits.
    pub(super) awaited: bool,
    /// Where it was made.
    pub(super) site: Site,
}

pub(super) struct Block {
    pub(super) live: u32,
    pub(super) arrived: u32,
    pub(super) op: u32,
    pub(super) site: Site,
    pub(super) count: u32,
    pub(super) result: u32,
    pub(super) barriers: u32,
    pub(super) life: u32,
    pub(super) mbarriers: Vec<Mbarrier>,
}

#[repr(C)]
pub(super) struct Cluster {
    pub(super) shown: abi::Cluster,
    pub(super) context: *const Context<'static>,
    pub(super) worker: *mut Memory,
    pub(super) id: u32,
    pub(super) live: u32,
    pub(super) arrived: u32,
    pub(super) barriers: u32,
    pub(super) threads: Vec<Thread>,
    pub(super) warps: Vec<Warp>,
    pub(super) blocks: Vec<Block>,
    /// Static shared arrays: their site, offset and size; the same in every block.
    pub(super) sites: Vec<(*const c_void, u32)>,
    pub(super) shared_used: u32,
    pub(super) fault: Option<Box<Fault>>,
    pub(super) banks: Option<Banks>,
}

/// Shared memory of one block, as wide as any launch asked for so far.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) bytes: Vec<u128>,
    pub(super) cells: Vec<Cell>,
}

/// What stays with an OS thread from cluster to cluster.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) shared: Vec<Shared>,
    pub(super) life: u32,
}

impl Cluster {
    pub(super) fn new(context: &Context<'_>, id: u32, memory: &mut Memory) -> Box<Cluster> {
        let [blocks, blocks_y] = context.grid;
        let (ranks, threads) = (context.ranks, context.threads);
        let along = blocks / ranks;
        let warps = threads.div_ceil(WARP);
        let capacity = context.shared_limit as usize;
        memory.shared.resize_with(memory.shared.len().max(ranks as usize), Shared::default);
        for shared in &mut memory.shared[..ranks as usize] {
            if shared.bytes.len() * 16 < capacity {
                shared.bytes.resize(capacity.div_ceil(16), 0);
                shared.cells.resize(capacity.div_ceil(GRANULE), Cell::default());
            }
        }
        let nothing = abi::Cluster {
            read_lo: 0,
            read_hi: 0,
            write_lo: 0,
            write_hi: 0,
            shadow: arena::shadow(),
            counted: context.counted,
            remembered: context.written.is_some().into(),
            bytes_read: 0,
            bytes_written: 0,
        };
        let mut cluster = Box::new(Cluster {
            shown: nothing,
            context: std::ptr::from_ref(context).cast(),
            worker: memory,
            id,
            live: ranks * threads,
            arrived: 0,
            barriers: 0,
            threads: Vec::with_capacity((ranks * warps * WARP) as usize),
            warps: Vec::with_capacity((ranks * warps) as usize),
            blocks: Vec::with_capacity(ranks as usize),
            sites: Vec::new(),
            shared_used: context.dynamic.next_multiple_of(16),
            fault: None,
            banks: context.bank_conflicts.then(|| Banks::new(ranks * warps)),
        });
        for rank in 0..ranks {
            memory.life = memory.life.checked_add(1).unwrap_or_else(|| {
                memory.shared.iter_mut().for_each(|s| s.cells.fill(Cell::default()));
                1
            });
            let shared = memory.shared[rank as usize].bytes.as_mut_ptr().cast::<u8>();
            for warp in 0..warps {
                let lanes = (threads - warp * WARP).min(WARP);
                let all = u32::MAX >> (WARP - lanes);
                cluster.warps.push(Warp { all, ready: all, ..Warp::default() });
                // Lanes that a last warp lacks have a place, and never run.
                for lane in 0..WARP {
                    let shown = abi::Thread {
                        thread: warp * WARP + lane,
                        threads,
                        block: id % along * ranks + rank,
                        blocks,
                        block_y: id / along,
                        blocks_y,
                        rank,
                        ranks,
                        early: context.early.into(),
                        pauses: 0,
                        shared,
                        cluster: std::ptr::null_mut(),
                    };
                    cluster.threads.push(Thread {
                        shown,
                        yielder: std::ptr::null(),
                        index: (rank * warps + warp) * WARP + lane,
                        warp: rank * warps + warp,
                        block: rank,
                        lane,
                        wait: Wait {
                            op: 0,
                            mask: 0,
                            arg: 0,
                            width: 0,
                            value: 0,
                            site: Site::NOWHERE,
                        },
                        result: 0,
                        arrived: 0,
                        waited: 0,
                        met: 0,
                        unshown: false,
                        alone: None,
                        copies: VecDeque::new(),
                        groups: VecDeque::new(),
                        open: 0,
                    });
                }
            }
            cluster.blocks.push(Block {
                live: threads,
                arrived: 0,
                op: 0,
                site: Site::NOWHERE,
                count: 0,
                result: 0,
                barriers: 0,
                life: memory.life,
                mbarriers: Vec::new(),
            });
        }
        cluster
    }

    pub(super) fn context(&self) -> &Context<'_> {
        // SAFETY: the context outlives the cluster.
        unsafe { &*self.context }
    }

    pub(super) fn note(&mut self, index: u32, site: Site, kind: FaultKind, detail: String) {
        let shown = &self.threads[index as usize].shown;
        let fault = Fault {
            kind,
            kernel: self.context().name.into(),
            block: [shown.block, shown.block_y],
            thread: shown.thread,
            file: site.file().into(),
            line: site.line,
            detail,
        };
        self.fault.get_or_insert_with(|| Box::new(fault));
    }

    /// A name for thread `index` that a reader of another thread's fault understands.
    pub(super) fn called(&self, index: u32) -> String {
        let Thread { shown, block, .. } = &self.threads[index as usize];
        match self.blocks.len() {
            1 => format!("thread {}", shown.thread),
            _ => format!("thread {} of the cluster's block {block}", shown.thread),
        }
    }

    pub(super) fn exit(this: *mut Cluster, thread: *mut Thread) {
        // SAFETY: called between turns: nothing else refers into the cluster.
        let (cluster, thread) = unsafe { (&mut *this, &*thread) };
        let (index, bit) = (thread.index, 1u32 << thread.lane);
        if thread.shown.early != 0 {
            let detail = "ends without a wait for the launch before".into();
            return cluster.note(index, Site::NOWHERE, FaultKind::BeforeWait, detail);
        }
        let (arrived, block) = (thread.arrived, thread.block as usize);
        let first = thread.warp * WARP;
        let warp = &mut cluster.warps[thread.warp as usize];
        warp.ready &= !bit;
        warp.exited |= bit;
        let waiting = warp.collective;
        cluster.live -= 1;
        cluster.blocks[block].live -= 1;
        for lane in bits(waiting) {
            let wait = cluster.threads[(first + lane) as usize].wait;
            if wait.mask & bit != 0 {
                let name = cluster.called(index);
                let detail = format!("{name}, which is in mask {:#010x}, has exited", wait.mask);
                return cluster.note(first + lane, wait.site, FaultKind::MissingLane, detail);
            }
        }
        let Block { arrived: at_barrier, site, .. } = cluster.blocks[block];
        if at_barrier > 0 {
            let (waiter, name) = (cluster.at_barrier(block), cluster.called(index));
            let detail = format!("{at_barrier} threads wait here, but {name} has exited");
            return cluster.note(waiter, site, FaultKind::BarrierDivergence, detail);
        }
        if cluster.blocks[block].live == 0 && cluster.unheard(index, block) {
            return;
        }
        if arrived > cluster.barriers {
            cluster.arrived -= 1;
        }
        cluster.cluster_barrier();
    }

    /// Some thread that waits at a block's barrier.
    pub(super) fn at_barrier(&self, block: usize) -> u32 {
        let warps = self.warps.len() / self.blocks.len();
        let of_block = (block * warps..(block + 1) * warps).find(|&w| self.warps[w].barrier != 0);
        of_block.map_or(0, |w| w as u32 * WARP + self.warps[w].barrier.trailing_zeros())
    }

    /// Ends the cluster barrier, if all that still run have arrived.
    pub(super) fn cluster_barrier(&mut self) {
        if self.live > 0 && self.arrived == self.live {
            self.barriers += 1;
            self.arrived = 0;
            for warp in &mut self.warps {
                warp.ready |= std::mem::take(&mut warp.cluster);
            }
        }
    }

    pub(super) fn deadlock(&mut self) {
        let mut places: Vec<(Site, &str, u32, u32)> = Vec::new();
        for thread in &self.threads {
            let (warp, bit) = (&self.warps[thread.warp as usize], 1 << thread.lane);
            let what = match () {
                () if warp.collective & bit != 0 => "in a collective",
                () if warp.barrier & bit != 0 => "at a barrier",
                () if warp.cluster & bit != 0 => "at a cluster barrier",
                () if warp.mbarrier & bit != 0 => AT_MBARRIER,
                () => continue,
            };
            match places.iter_mut().find(|p| (p.0, p.1) == (thread.wait.site, what)) {
                Some(place) => place.3 += 1,
                None => places.push((thread.wait.site, what, thread.index, 1)),
            }
        }
        let say = |&(site, what, index, count): &(Site, &str, u32, u32)| {
            let (file, line) = (site.file(), site.line);
            format!("{count} threads wait {what} at {file}:{line} ({} first)", self.called(index))
        };
        let detail = places.iter().map(say).collect::<Vec<_>>().join("; ");
        // Who waits for bytes waits for nobody who could wait for it.
        let sent = places.iter().find(|place| place.1 == AT_MBARRIER);
        let kind = sent.map_or(FaultKind::Deadlock, |_| FaultKind::TransactionCount);
        let &(site, _, index, _) = sent.unwrap_or(&places[0]);
        self.note(index, site, kind, detail);
    }

    /// One access to a block's shared memory, checked.
    pub(super) fn shared(
        &mut self,
        index: u32,
        block: usize,
        (offset, size): (u32, u32),
        access: Access,
        site: Site,
    ) -> bool {
        let thread = &self.threads[index as usize];
        let who = Who {
            thread: index,
            block: thread.block,
            pitch: (self.threads.len() / self.blocks.len()) as u32,
            barriers: self.blocks[thread.block as usize].barriers,
            warp_syncs: self.warps[thread.warp as usize].syncs,
            arrived: thread.arrived,
            waited: thread.waited,
            met: if block == thread.block as usize { thread.met } else { 0 },
            line: site.line,
        };
        let life = self.blocks[block].life;
        // SAFETY: the worker's memory outlives the cluster; nothing else refers into it now.
        let cells = unsafe { &mut (&mut (*self.worker).shared)[block].cells };
        let range = offset as usize / GRANULE..(offset + size) as usize / GRANULE;
        for cell in range {
            let Err(conflict) = cells[cell].access(life, &who, access) else { continue };
            let byte = cell * GRANULE;
            let (kind, detail) = match conflict {
                Conflict::Uninitialised => {
                    (FaultKind::SharedUninitialised, format!("byte {byte} was never written"))
                }
                Conflict::Race { name, thread, line } => (
                    FaultKind::SharedRace,
                    format!("{name} of byte {byte}, with {} at line {line}", self.called(thread)),
                ),
                Conflict::Sent { thread, line } => (
                    FaultKind::NotArrived,
                    format!(
                        "byte {byte} is on its way, sent by {} at line {line}",
                        self.called(thread)
                    ),
                ),
                Conflict::Unread { thread, line } => (
                    FaultKind::SharedRace,
                    format!(
                        "byte {byte} is sent over what {} sent at line {line}, which nobody has read",
                        self.called(thread)
                    ),
                ),
            };
            self.note(index, site, kind, detail);
            return false;
        }
        true
    }
}

pub(super) fn bits(mut set: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then(|| set.trailing_zeros())?;
        set &= set - 1;
        Some(bit)
    })
}
