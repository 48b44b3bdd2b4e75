//! Runs a cluster of blocks: every CUDA thread a coroutine, all on one OS thread.
//!
//! A thread runs until it waits in a collective or at a barrier. The last to come finds the
//! others' values, works out every lane's result, wakes them and goes on. When nobody can run and
//! somebody waits, that is a deadlock. A thread that does wrong notes the [`Fault`] and never runs
//! again; the scheduler then abandons every coroutine of the cluster where it stands (there is
//! nothing on their stacks to drop, and no C++ frame is unwound).

use super::abi;
use super::arena;
use super::fault::{Fault, FaultKind};
use super::registry::Kernel;
use super::shared::{Cell, Conflict, GRANULE, Who};
use super::stacks::{Slot, Stacks};
use corosensei::{Coroutine, Yielder};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_void};

/// Words of an emulated launch that all its clusters share.
pub(super) struct Context<'a> {
    pub(super) name: &'a str,
    pub(super) kernel: &'a Kernel,
    pub(super) args: *const c_void,
    pub(super) grid: [u32; 2],
    pub(super) threads: u32,
    pub(super) ranks: u32,
    /// Bytes of dynamic shared memory, and the most a block may have in all.
    pub(super) dynamic: u32,
    pub(super) shared_limit: u32,
    pub(super) allocations: &'a [(u64, u64)],
    pub(super) seed: Option<u64>,
}

// SAFETY: `args` is read by all threads and written by none while the launch runs.
unsafe impl Sync for Context<'_> {}

/// A place in a source file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Site {
    file: *const c_char,
    line: u32,
}

impl Site {
    const NOWHERE: Site = Site { file: c"".as_ptr(), line: 0 };

    fn file(self) -> &'static str {
        // SAFETY: from `__builtin_FILE()`: a static string.
        let path = unsafe { CStr::from_ptr(self.file) }.to_str().unwrap_or("?");
        path.strip_prefix(env!("CARGO_MANIFEST_DIR")).map_or(path, |p| p.trim_start_matches('/'))
    }
}

/// What a thread waits with.
#[derive(Clone, Copy)]
struct Wait {
    op: u32,
    mask: u32,
    arg: u32,
    width: u32,
    value: u64,
    site: Site,
}

#[repr(C)]
struct Thread {
    shown: abi::Thread,
    yielder: *const Yielder<(), ()>,
    /// Place in [`Cluster::threads`].
    index: u32,
    warp: u32,
    block: u32,
    lane: u32,
    wait: Wait,
    result: u64,
    /// Cluster barriers arrived at, and returned from.
    arrived: u32,
    waited: u32,
    copies: VecDeque<Copy>,
    /// Copies in each committed group, and in the open one.
    groups: VecDeque<usize>,
    open: usize,
}

#[derive(Clone, Copy)]
struct Copy {
    to: u32,
    from: u64,
}

/// Sets of lanes, as bits.
#[derive(Default)]
struct Warp {
    all: u32,
    ready: u32,
    collective: u32,
    barrier: u32,
    cluster: u32,
    exited: u32,
    syncs: u32,
}

struct Block {
    live: u32,
    arrived: u32,
    op: u32,
    site: Site,
    count: u32,
    result: u32,
    barriers: u32,
    life: u32,
}

#[repr(C)]
struct Cluster {
    shown: abi::Cluster,
    context: *const Context<'static>,
    worker: *mut Memory,
    id: u32,
    live: u32,
    arrived: u32,
    barriers: u32,
    threads: Vec<Thread>,
    warps: Vec<Warp>,
    blocks: Vec<Block>,
    /// Static shared arrays: their site, offset and size; the same in every block.
    sites: Vec<(*const c_void, u32)>,
    shared_used: u32,
    fault: Option<Box<Fault>>,
}

/// Shared memory of one block, as wide as any launch asked for so far.
#[derive(Default)]
struct Shared {
    bytes: Vec<u128>,
    cells: Vec<Cell>,
}

/// What stays with an OS thread from cluster to cluster.
#[derive(Default)]
struct Memory {
    shared: Vec<Shared>,
    life: u32,
}

#[derive(Default)]
struct Worker {
    memory: Box<Memory>,
    stacks: Stacks,
    fibers: Vec<Fiber>,
}

type Fiber = Coroutine<(), (), (), Slot>;

thread_local! {
    static WORKER: RefCell<Worker> = RefCell::default();
}

/// Bytes of global memory read and written.
pub(super) type Traffic = [u64; 2];

const WARP: u32 = 32;
/// Shared addresses of peers: a mark, the rank, the offset.
const PEER: u32 = 1 << 31;
const PEER_SHIFT: u32 = 20;

/// Runs cluster `id` of a launch to its end.
pub(super) fn run(context: &Context<'_>, id: u32) -> Result<Traffic, Box<Fault>> {
    WORKER.with_borrow_mut(|worker| worker.run(context, id))
}

impl Worker {
    fn run(&mut self, context: &Context<'_>, id: u32) -> Result<Traffic, Box<Fault>> {
        let mut cluster = Cluster::new(context, id, &mut self.memory);
        let cluster: *mut Cluster = &raw mut *cluster;
        // SAFETY: `cluster` outlives the loop; the threads in it stay where they are. From here on
        // it is only touched through this pointer, for moments that end before any switch.
        unsafe {
            for thread in (*cluster).threads.iter_mut() {
                thread.shown.cluster = &raw mut (*cluster).shown;
            }
            let count = (*cluster).threads.len();
            let first = (*cluster).threads.as_mut_ptr();
            for index in 0..count {
                let (thunk, args) = (context.kernel.thunk, context.args);
                let thread = first.add(index);
                let body = move |yielder: &Yielder<(), ()>, ()| {
                    (*thread).yielder = yielder;
                    thunk(args);
                };
                self.fibers.push(Fiber::with_stack_unchecked(self.stacks.slot(index), body));
            }
            Self::turn(cluster, &mut self.fibers, context.seed);
            for mut fiber in self.fibers.drain(..) {
                fiber.force_reset();
            }
            if let Some(index) = (0..count).find(|&index| !self.stacks.intact(index)) {
                let detail = "a kernel's frames are too large for the emulator".into();
                (*cluster).note(index as u32, Site::NOWHERE, FaultKind::StackOverflow, detail);
            }
            match (*cluster).fault.take() {
                Some(fault) => Err(fault),
                None => Ok([(*cluster).shown.bytes_read, (*cluster).shown.bytes_written]),
            }
        }
    }

    /// Gives every thread its turns until all have ended or one is at fault.
    unsafe fn turn(cluster: *mut Cluster, fibers: &mut [Fiber], seed: Option<u64>) {
        // SAFETY: see `run`; no reference into the cluster is held while a fiber runs.
        unsafe {
            let slot = abi::wl_emu_self_slot();
            let mut random = seed.map(|seed| Random::new(seed, (*cluster).id));
            let warps = (*cluster).warps.len();
            let mut order: Vec<u32> = (0..warps as u32).collect();
            while (*cluster).live > 0 {
                if let Some(random) = &mut random {
                    random.shuffle(&mut order);
                }
                let mut idle = true;
                for &warp in &order {
                    loop {
                        let ready = (&(*cluster).warps)[warp as usize].ready;
                        if ready == 0 {
                            break;
                        }
                        idle = false;
                        let lane = match &mut random {
                            None => ready.trailing_zeros(),
                            Some(random) => random.bit(ready),
                        };
                        let index = (warp * WARP + lane) as usize;
                        let thread = (*cluster).threads.as_mut_ptr().add(index);
                        *slot = &raw mut (*thread).shown;
                        if fibers[index].resume(()).as_return().is_some() {
                            Cluster::exit(cluster, thread);
                        }
                        if (*cluster).fault.is_some() {
                            return;
                        }
                        // Leave a warp in the middle, now and then.
                        if random.as_mut().is_some_and(|random| random.below(8) == 0) {
                            break;
                        }
                    }
                }
                if idle {
                    (*cluster).deadlock();
                    return;
                }
            }
        }
    }
}

/// A small generator: the order of threads depends on the seed and the cluster alone.
struct Random(u64);

impl Random {
    fn new(seed: u64, id: u32) -> Random {
        Random(
            (seed ^ (u64::from(id) << 32 | u64::from(id))).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        )
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u32) -> u32 {
        ((self.next() >> 32) * u64::from(n) >> 32) as u32
    }

    fn shuffle(&mut self, order: &mut [u32]) {
        for i in (1..order.len()).rev() {
            order.swap(i, self.below(i as u32 + 1) as usize);
        }
    }

    /// One of the bits set.
    fn bit(&mut self, bits: u32) -> u32 {
        let turn = self.below(32);
        (bits.rotate_right(turn).trailing_zeros() + turn) % 32
    }
}

impl Cluster {
    fn new(context: &Context<'_>, id: u32, memory: &mut Memory) -> Box<Cluster> {
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
            });
        }
        cluster
    }

    fn context(&self) -> &Context<'_> {
        // SAFETY: the context outlives the cluster.
        unsafe { &*self.context }
    }

    fn note(&mut self, index: u32, site: Site, kind: FaultKind, detail: String) {
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
    fn called(&self, index: u32) -> String {
        let Thread { shown, block, .. } = &self.threads[index as usize];
        match self.blocks.len() {
            1 => format!("thread {}", shown.thread),
            _ => format!("thread {} of the cluster's block {block}", shown.thread),
        }
    }

    fn exit(this: *mut Cluster, thread: *mut Thread) {
        // SAFETY: called between turns: nothing else refers into the cluster.
        let (cluster, thread) = unsafe { (&mut *this, &*thread) };
        let (index, bit) = (thread.index, 1u32 << thread.lane);
        let (arrived, block) = (thread.arrived, thread.block as usize);
        let first = thread.warp * WARP;
        let warp = &mut cluster.warps[thread.warp as usize];
        warp.ready &= !bit;
        warp.exited |= bit;
        let waiting = warp.collective;
        cluster.live -= 1;
        cluster.blocks[block].live -= 1;
        let name = cluster.called(index);
        for lane in bits(waiting) {
            let wait = cluster.threads[(first + lane) as usize].wait;
            if wait.mask & bit != 0 {
                let detail = format!("{name}, which is in mask {:#010x}, has exited", wait.mask);
                return cluster.note(first + lane, wait.site, FaultKind::MissingLane, detail);
            }
        }
        let Block { arrived: at_barrier, site, .. } = cluster.blocks[block];
        if at_barrier > 0 {
            let waiter = cluster.at_barrier(block);
            let detail = format!("{at_barrier} threads wait here, but {name} has exited");
            return cluster.note(waiter, site, FaultKind::BarrierDivergence, detail);
        }
        if arrived > cluster.barriers {
            cluster.arrived -= 1;
        }
        cluster.cluster_barrier();
    }

    /// Some thread that waits at a block's barrier.
    fn at_barrier(&self, block: usize) -> u32 {
        let warps = self.warps.len() / self.blocks.len();
        let of_block = (block * warps..(block + 1) * warps).find(|&w| self.warps[w].barrier != 0);
        of_block.map_or(0, |w| w as u32 * WARP + self.warps[w].barrier.trailing_zeros())
    }

    /// Ends the cluster barrier, if all that still run have arrived.
    fn cluster_barrier(&mut self) {
        if self.live > 0 && self.arrived == self.live {
            self.barriers += 1;
            self.arrived = 0;
            for warp in &mut self.warps {
                warp.ready |= std::mem::take(&mut warp.cluster);
            }
        }
    }

    fn deadlock(&mut self) {
        let mut places: Vec<(Site, &str, u32, u32)> = Vec::new();
        for thread in &self.threads {
            let (warp, bit) = (&self.warps[thread.warp as usize], 1 << thread.lane);
            let what = match () {
                () if warp.collective & bit != 0 => "in a collective",
                () if warp.barrier & bit != 0 => "at a barrier",
                () if warp.cluster & bit != 0 => "at a cluster barrier",
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
        let (site, _, index, _) = places[0];
        self.note(index, site, FaultKind::Deadlock, detail);
    }

    /// One access to a block's shared memory, checked.
    fn shared(
        &mut self,
        index: u32,
        block: usize,
        offset: u32,
        size: u32,
        write: bool,
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
            line: site.line,
        };
        let life = self.blocks[block].life;
        // SAFETY: the worker's memory outlives the cluster; nothing else refers into it now.
        let cells = unsafe { &mut (&mut (*self.worker).shared)[block].cells };
        let range = offset as usize / GRANULE..(offset + size) as usize / GRANULE;
        for cell in range {
            let Err(conflict) = cells[cell].access(life, &who, write) else { continue };
            let byte = cell * GRANULE;
            let (kind, detail) = match conflict {
                Conflict::Uninitialised => {
                    (FaultKind::SharedUninitialised, format!("byte {byte} was never written"))
                }
                Conflict::Race { name, thread, line } => (
                    FaultKind::SharedRace,
                    format!("{name} of byte {byte}, with {} at line {line}", self.called(thread)),
                ),
            };
            self.note(index, site, kind, detail);
            return false;
        }
        true
    }
}

fn bits(mut set: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then(|| set.trailing_zeros())?;
        set &= set - 1;
        Some(bit)
    })
}

// ---- Called by kernels -----------------------------------------------------------------------
//
// SAFETY, for all of them: they run on a fiber of `Worker::run`, so the current thread and its
// cluster are alive, and references into them end before the fiber is suspended.

/// The thread that runs, and its cluster.
fn current() -> (*mut Thread, *mut Cluster) {
    // SAFETY: set before every turn; `shown` is the first field of both.
    unsafe {
        let thread = (*abi::wl_emu_self_slot()).cast::<Thread>();
        (thread, (*thread).shown.cluster.cast::<Cluster>())
    }
}

unsafe fn suspend(thread: *mut Thread) {
    // SAFETY: the yielder lives on this fiber's stack.
    unsafe { (*(*thread).yielder).suspend(()) }
}

/// Notes a fault of the running thread, which does not run again.
fn fail(site: Site, kind: FaultKind, detail: String) -> ! {
    let (thread, cluster) = current();
    // SAFETY: see above.
    unsafe {
        (*cluster).note((*thread).index, site, kind, detail);
        loop {
            suspend(thread);
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_global(
    address: u64,
    size: u32,
    align: u32,
    write: u32,
    file: *const c_char,
    line: u32,
) {
    let (_, cluster) = current();
    let site = Site { file, line };
    let what = if write != 0 { "write" } else { "read" };
    if address % u64::from(align) != 0 {
        let detail = format!("{what} of {size} bytes at {address:#x}, needs a multiple of {align}");
        fail(site, FaultKind::GlobalMisaligned, detail);
    }
    // SAFETY: see above.
    let cluster = unsafe { &mut *cluster };
    let allocations = cluster.context().allocations;
    match arena::find(allocations, address, size.into()) {
        Some((lo, hi)) if write != 0 => {
            (cluster.shown.write_lo, cluster.shown.write_hi) = (lo, hi);
        }
        Some((lo, hi)) => (cluster.shown.read_lo, cluster.shown.read_hi) = (lo, hi),
        None => {
            let detail = format!("{what} of {}", arena::outside(allocations, address, size.into()));
            fail(site, FaultKind::GlobalOutOfBounds, detail)
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_global_uninitialised(
    address: u64,
    size: u32,
    file: *const c_char,
    line: u32,
) -> ! {
    let (_, cluster) = current();
    // SAFETY: see above.
    let allocations = unsafe { (*cluster).context().allocations };
    let at = arena::find(allocations, address, 1).map_or(0, |(start, _)| address - start);
    let detail = format!("read of {size} bytes at byte {at} of an allocation, not all written");
    fail(Site { file, line }, FaultKind::GlobalUninitialised, detail)
}

/// Offset of a static shared array.
#[unsafe(no_mangle)]
extern "C" fn wl_emu_shared_site(
    site: *const c_void,
    bytes: u64,
    file: *const c_char,
    line: u32,
) -> u32 {
    let (_, cluster) = current();
    // SAFETY: see above.
    let cluster = unsafe { &mut *cluster };
    if let Some(&(_, offset)) = cluster.sites.iter().find(|known| known.0 == site) {
        return offset;
    }
    let offset = cluster.shared_used;
    let limit = cluster.context().shared_limit;
    let end = u64::from(offset).saturating_add(bytes).next_multiple_of(16);
    if end > limit.into() {
        let detail = format!("{bytes} bytes after {offset} others: a block has {limit}");
        fail(Site { file, line }, FaultKind::SharedOutOfBounds, detail);
    }
    cluster.shared_used = end as u32;
    cluster.sites.push((site, offset));
    offset
}

/// Offset of a part of the dynamic shared memory.
#[unsafe(no_mangle)]
extern "C" fn wl_emu_shared_dynamic(
    offset: u64,
    bytes: u64,
    align: u32,
    file: *const c_char,
    line: u32,
) -> u32 {
    let (_, cluster) = current();
    // SAFETY: see above.
    let dynamic = unsafe { (*cluster).context().dynamic };
    if offset.checked_add(bytes).is_none_or(|end| end > dynamic.into()) {
        let detail = format!("{bytes} bytes from byte {offset} on: the launch gave {dynamic}");
        fail(Site { file, line }, FaultKind::SharedOutOfBounds, detail);
    }
    if offset % u64::from(align) != 0 {
        let detail = format!("an array at byte {offset}, needs a multiple of {align}");
        fail(Site { file, line }, FaultKind::SharedMisaligned, detail);
    }
    offset as u32
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_shared_outside(index: i64, count: u64, file: *const c_char, line: u32) -> ! {
    let detail = format!("element {index} of a shared array of {count}");
    fail(Site { file, line }, FaultKind::SharedOutOfBounds, detail)
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_shared(
    offset: u32,
    size: u32,
    align: u32,
    write: u32,
    file: *const c_char,
    line: u32,
) {
    let (thread, cluster) = current();
    let site = Site { file, line };
    if offset % align != 0 {
        let detail = format!("{size} bytes at byte {offset}, needs a multiple of {align}");
        fail(site, FaultKind::SharedMisaligned, detail);
    }
    // SAFETY: see above.
    unsafe {
        let (index, block) = ((*thread).index, (*thread).block as usize);
        if !(*cluster).shared(index, block, offset, size, write != 0, site) {
            loop {
                suspend(thread);
            }
        }
    }
}

/// The address of an offset in a peer's shared memory.
#[unsafe(no_mangle)]
extern "C" fn wl_emu_peer(offset: u32, rank: u32, file: *const c_char, line: u32) -> u32 {
    let (_, cluster) = current();
    // SAFETY: see above.
    let ranks = unsafe { (*cluster).blocks.len() };
    if rank as usize >= ranks {
        let detail = format!("rank {rank} of a cluster of {ranks} blocks");
        fail(Site { file, line }, FaultKind::SharedOutOfBounds, detail);
    }
    PEER | rank << PEER_SHIFT | offset
}

/// Checks an access to a peer's shared memory and says where it lies.
#[unsafe(no_mangle)]
extern "C" fn wl_emu_peer_access(
    address: u32,
    size: u32,
    write: u32,
    file: *const c_char,
    line: u32,
) -> *mut u8 {
    let (thread, cluster) = current();
    let site = Site { file, line };
    let (rank, offset) = ((address & !PEER) >> PEER_SHIFT, address & ((1 << PEER_SHIFT) - 1));
    // SAFETY: see above.
    unsafe {
        let (ranks, used) = ((*cluster).blocks.len(), (*cluster).shared_used);
        if address & PEER == 0 || rank as usize >= ranks || offset + size > used {
            let detail = format!("{size} bytes at {address:#x}: no address that wl_peer gave");
            fail(site, FaultKind::SharedOutOfBounds, detail);
        }
        if offset % size != 0 {
            let detail = format!("{size} bytes at byte {offset}, needs a multiple of {size}");
            fail(site, FaultKind::SharedMisaligned, detail);
        }
        if rank != (*thread).block {
            if (&(*cluster).blocks)[rank as usize].live == 0 {
                let detail = format!("block {rank} of the cluster has exited");
                fail(site, FaultKind::PeerExited, detail);
            }
            if (*thread).waited == 0 {
                let detail = format!(
                    "block {rank} of the cluster may not have started: no cluster barrier yet"
                );
                fail(site, FaultKind::PeerNotStarted, detail);
            }
        }
        if !(*cluster).shared((*thread).index, rank as usize, offset, size, write != 0, site) {
            loop {
                suspend(thread);
            }
        }
        let memory = &mut (&mut (*(*cluster).worker).shared)[rank as usize];
        memory.bytes.as_mut_ptr().cast::<u8>().add(offset as usize)
    }
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_cp_async(offset: u32, address: u64, file: *const c_char, line: u32) {
    let (thread, _) = current();
    if !offset.is_multiple_of(16) {
        let detail = format!("16 bytes at byte {offset}, needs a multiple of 16");
        fail(Site { file, line }, FaultKind::SharedMisaligned, detail);
    }
    // SAFETY: see above.
    let thread = unsafe { &mut *thread };
    thread.copies.push_back(Copy { to: offset, from: address });
    thread.open += 1;
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_cp_async_commit() {
    let (thread, _) = current();
    // SAFETY: see above.
    let thread = unsafe { &mut *thread };
    thread.groups.push_back(std::mem::take(&mut thread.open));
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_cp_async_wait(open: u32, file: *const c_char, line: u32) {
    let (thread, _) = current();
    // SAFETY: see above; the source was checked when the copy was asked for.
    unsafe {
        while (*thread).groups.len() > open as usize {
            let copies = (*thread).groups.pop_front().unwrap_or(0);
            for _ in 0..copies {
                let Some(Copy { to, from }) = (*thread).copies.pop_front() else { break };
                wl_emu_shared(to, 16, 16, 1, file, line);
                let to = (*thread).shown.shared.add(to as usize);
                std::ptr::copy_nonoverlapping(from as *const u8, to, 16);
            }
        }
    }
}

/// The operations of `WlEmuCollective`.
mod op {
    pub(super) const XOR: u32 = 0;
    pub(super) const DOWN: u32 = 1;
    pub(super) const UP: u32 = 2;
    pub(super) const IDX: u32 = 3;
    pub(super) const BALLOT: u32 = 4;
    pub(super) const SYNCWARP: u32 = 5;
    pub(super) const ADD: u32 = 6;
    pub(super) const MIN: u32 = 7;
    pub(super) const MAX: u32 = 8;
    pub(super) const OR: u32 = 9;

    pub(super) const NAMES: [&str; 10] = [
        "shfl_xor",
        "shfl_down",
        "shfl_up",
        "shfl",
        "ballot",
        "syncwarp",
        "redux_add",
        "redux_min",
        "redux_max",
        "redux_or",
    ];

    /// `WlEmuBarrier`.
    pub(super) const BARRIER_OR: u32 = 1;
    pub(super) const BARRIER_AND: u32 = 2;
    pub(super) const BARRIER_COUNT: u32 = 3;
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_collective(
    op: u32,
    mask: u32,
    value: u64,
    arg: u32,
    width: u32,
    file: *const c_char,
    line: u32,
) -> u64 {
    let (thread, cluster) = current();
    let site = Site { file, line };
    // SAFETY: see above.
    unsafe {
        (*thread).wait = Wait { op, mask, arg, width, value, site };
        match meet(&mut *cluster, (*thread).index) {
            Err((kind, detail)) => fail(site, kind, detail),
            Ok(true) => (),
            Ok(false) => suspend(thread),
        }
        (*thread).result
    }
}

/// A thread comes to a collective. True: it was the last, and every lane has its result.
fn meet(cluster: &mut Cluster, index: u32) -> Result<bool, (FaultKind, String)> {
    let thread = &cluster.threads[index as usize];
    let (wait, bit, first) = (thread.wait, 1u32 << thread.lane, thread.warp * WARP);
    let Wait { op, mask, width, .. } = wait;
    let number = thread.warp as usize;
    let warp = &mut cluster.warps[number];
    let missing = |lanes: u32, why: &str| {
        let lane = lanes.trailing_zeros();
        Err((
            FaultKind::MissingLane,
            format!("{} with mask {mask:#010x}: lane {lane} {why}", op::NAMES[op as usize]),
        ))
    };
    if mask & bit == 0 {
        return missing(bit, "calls it and is not in the mask");
    }
    if mask & !warp.all != 0 {
        return missing(mask & !warp.all, "does not exist in this warp");
    }
    if mask & warp.exited != 0 {
        return missing(mask & warp.exited, "has exited");
    }
    if mask & (warp.barrier | warp.cluster) != 0 {
        return missing(mask & (warp.barrier | warp.cluster), "waits at a barrier");
    }
    if !(width.is_power_of_two() && width <= WARP) {
        return Err((FaultKind::LanesDisagree, format!("a shuffle of width {width}")));
    }
    warp.ready &= !bit;
    warp.collective |= bit;
    let mut here = bit;
    for lane in bits(mask & warp.collective & !bit) {
        let other = &cluster.threads[(first + lane) as usize].wait;
        if (other.op, other.mask, other.site) == (op, mask, wait.site) {
            here |= 1 << lane;
        } else if other.mask & bit != 0 {
            let detail = format!(
                "{} with mask {mask:#010x} meets lane {lane}'s {} with mask {:#010x} at {}:{}",
                op::NAMES[op as usize],
                op::NAMES[other.op as usize],
                other.mask,
                other.site.file(),
                other.site.line,
            );
            return Err((FaultKind::LanesDisagree, detail));
        }
        // Else that lane meets others first, and then comes here.
        if here != bit && mask & !warp.collective != 0 {
            // Not the last; this lane agrees, and so do those that it has met.
            return Ok(false);
        }
    }
    if here != mask {
        return Ok(false);
    }
    let lanes = &mut cluster.threads[first as usize..(first + WARP) as usize];
    let values = |lanes: &[Thread], f: fn(u64, u64) -> u64| {
        bits(mask).map(|l| lanes[l as usize].wait.value).reduce(f).unwrap_or(0)
    };
    let all = match op {
        op::BALLOT => bits(mask).map(|l| lanes[l as usize].wait.value << l).sum(),
        op::ADD => values(lanes, |a, b| u64::from((a as u32).wrapping_add(b as u32))),
        op::MIN => values(lanes, u64::min),
        op::MAX => values(lanes, u64::max),
        op::OR => values(lanes, |a, b| a | b),
        _ => 0,
    };
    if op == op::SYNCWARP && mask == warp.all & !warp.exited {
        warp.syncs += 1;
    }
    for lane in bits(mask) {
        let Wait { arg, width, .. } = lanes[lane as usize].wait;
        let (low, high) = (lane & !(width - 1), lane | (width - 1));
        let source = match op {
            op::XOR => Some(lane ^ arg).filter(|&s| s <= high),
            op::DOWN => lane.checked_add(arg).filter(|&s| s <= high),
            op::UP => lane.checked_sub(arg).filter(|&s| s >= low),
            op::IDX => Some(low | arg & (width - 1)),
            _ => None,
        };
        let source = source.unwrap_or(lane);
        if source < WARP && mask & (1 << source) == 0 {
            return missing(1 << source, &format!("is read by lane {lane} and not in the mask"));
        }
        lanes[lane as usize].result =
            if op <= op::IDX { lanes[source as usize].wait.value } else { all };
    }
    let warp = &mut cluster.warps[number];
    warp.collective &= !mask;
    warp.ready |= mask;
    Ok(true)
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_barrier(op: u32, value: u32, file: *const c_char, line: u32) -> u32 {
    let (thread, cluster) = current();
    let site = Site { file, line };
    // SAFETY: see above.
    unsafe {
        (*thread).wait.site = site;
        match block_barrier(&mut *cluster, (*thread).index, op, value, site) {
            Err((kind, detail)) => fail(site, kind, detail),
            Ok(true) => (),
            Ok(false) => suspend(thread),
        }
        (&(*cluster).blocks)[(*thread).block as usize].result
    }
}

/// Lanes that wait in a collective for a thread which now waits elsewhere.
fn waited_for(cluster: &Cluster, index: u32) -> Result<(), (FaultKind, String)> {
    let thread = &cluster.threads[index as usize];
    for lane in bits(cluster.warps[thread.warp as usize].collective) {
        let wait = &cluster.threads[(thread.warp * WARP + lane) as usize].wait;
        if wait.mask & 1 << thread.lane != 0 {
            let (name, file, line) =
                (op::NAMES[wait.op as usize], wait.site.file(), wait.site.line);
            let detail =
                format!("lane {lane} waits for lane {} in {name} at {file}:{line}", thread.lane);
            return Err((FaultKind::MissingLane, detail));
        }
    }
    Ok(())
}

fn block_barrier(
    cluster: &mut Cluster,
    index: u32,
    op: u32,
    value: u32,
    site: Site,
) -> Result<bool, (FaultKind, String)> {
    waited_for(cluster, index)?;
    let thread = &cluster.threads[index as usize];
    let (number, bit) = (thread.block as usize, 1u32 << thread.lane);
    let warps = cluster.warps.len() / cluster.blocks.len();
    let threads = cluster.context().threads;
    let block = &mut cluster.blocks[number];
    if block.live < threads {
        let gone = threads - block.live;
        let detail = format!("{gone} threads of the block have exited before this barrier");
        return Err((FaultKind::BarrierDivergence, detail));
    }
    if block.arrived > 0 && (block.op, block.site) != (op, site) {
        let (file, line) = (block.site.file(), block.site.line);
        let detail = format!("other threads of the block wait at {file}:{line}");
        return Err((FaultKind::BarrierDivergence, detail));
    }
    if block.arrived == 0 {
        (block.op, block.site, block.count) = (op, site, 0);
    }
    block.arrived += 1;
    block.count += u32::from(value != 0);
    let warp = &mut cluster.warps[thread.warp as usize];
    warp.ready &= !bit;
    warp.barrier |= bit;
    if block.arrived < threads {
        return Ok(false);
    }
    block.arrived = 0;
    block.barriers += 1;
    block.result = match op {
        op::BARRIER_OR => u32::from(block.count > 0),
        op::BARRIER_AND => u32::from(block.count == threads),
        op::BARRIER_COUNT => block.count,
        _ => 0,
    };
    for warp in &mut cluster.warps[number * warps..(number + 1) * warps] {
        warp.ready |= std::mem::take(&mut warp.barrier);
    }
    Ok(true)
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_cluster_arrive(file: *const c_char, line: u32) {
    let (thread, cluster) = current();
    let site = Site { file, line };
    // SAFETY: see above.
    unsafe {
        if (*thread).arrived != (*thread).waited {
            fail(site, FaultKind::ClusterBarrier, "arrives twice without a wait".into());
        }
        (*thread).arrived += 1;
        (*cluster).arrived += 1;
        (*cluster).cluster_barrier();
    }
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_cluster_wait(file: *const c_char, line: u32) {
    let (thread, cluster) = current();
    let site = Site { file, line };
    // SAFETY: see above.
    unsafe {
        if (*thread).arrived == (*thread).waited {
            fail(site, FaultKind::ClusterBarrier, "waits without having arrived".into());
        }
        if (*cluster).barriers < (*thread).arrived {
            (*thread).wait.site = site;
            if let Err((kind, detail)) = waited_for(&*cluster, (*thread).index) {
                fail(site, kind, detail);
            }
            let bit = 1 << (*thread).lane;
            let warp = &mut (&mut (*cluster).warps)[(*thread).warp as usize];
            warp.ready &= !bit;
            warp.cluster |= bit;
            suspend(thread);
        }
        (*thread).waited += 1;
    }
}
