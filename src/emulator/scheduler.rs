//! Runs a cluster of blocks: every CUDA thread a coroutine, all on one OS thread.
//!
//! A thread runs until it waits in a collective or at a barrier. The last to come finds the
//! others' values, works out every lane's result, wakes them and goes on. When nobody can run and
//! somebody waits, that is a deadlock. A thread that does wrong notes the [`Fault`] and never runs
//! again; the scheduler then abandons every coroutine of the cluster where it stands (there is
//! nothing on their stacks to drop, and no C++ frame is unwound).

use super::abi;
use super::cluster::{Cluster, Memory, Site, WARP};
use super::context::Context;
use super::fault::{Fault, FaultKind};
use super::stacks::{Slot, Stacks};
use corosensei::{Coroutine, Yielder};
use std::cell::RefCell;
use std::sync::atomic::Ordering::SeqCst;

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

/// Bytes of global memory read and written, and turns lost at banks.
pub(super) type Traffic = [u64; 3];

/// Runs cluster `id` of a launch to its end.
pub(super) fn run(context: &Context<'_>, id: u32) -> Result<Traffic, Box<Fault>> {
    context.running.fetch_add(1, SeqCst);
    let ran = WORKER.with_borrow_mut(|worker| worker.run(context, id));
    // First: who sees that it runs no more sees that it has ended.
    context.ended.fetch_add(1, SeqCst);
    context.running.fetch_sub(1, SeqCst);
    ran
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
                None => {
                    let lost = (*cluster).banks.as_mut().map_or(0, |banks| banks.conflicts());
                    let shown = &(*cluster).shown;
                    Ok([shown.bytes_read, shown.bytes_written, lost])
                }
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
                        let pauses = (*thread).shown.pauses;
                        if fibers[index].resume(()).as_return().is_some() {
                            Cluster::exit(cluster, thread);
                        }
                        if (*cluster).fault.is_some() {
                            return;
                        }
                        // Leave a warp in the middle, now and then, and where it waits for others.
                        let paused = (*thread).shown.pauses != pauses;
                        if paused || random.as_mut().is_some_and(|random| random.below(8) == 0) {
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
        (((self.next() >> 32) * u64::from(n)) >> 32) as u32
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
