//! A GPU imitated on the host: the very kernels of `kernels/`, compiled as C++, every CUDA thread
//! a coroutine.
//!
//! A tool for truth, not for speed. It is stricter than a GPU: a barrier that not all threads
//! reach, a shuffle with lanes missing, an access out of bounds or misaligned, a read of memory
//! that nothing wrote, a race in shared memory, a message to a peer that has ended or that nobody has waited
//! for, what the launch before has written read before a wait for it: each ends the
//! launch with a [`Fault`] that names kernel, block, thread and line.
//!
//! What it does not see: the time anything takes (but for turns lost at banks of shared memory, if asked),
//! races in global memory, weak memory order, the
//! rounding of the special-function unit, and blocks of different clusters that wait for each
//! other without taking turns first (they may run one after the other).

mod abi;
mod arena;
mod banks;
mod calls;
mod cluster;
mod context;
mod description;
mod fault;
mod meeting;
mod messages;
mod order;
mod registry;
mod scheduler;
mod shared;
mod stacks;

pub use description::{Asked, Description};
pub use fault::{Fault, FaultKind};

use arena::Arena;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, PoisonError};

/// Bytes of shared memory that a kernel's own arrays may take on every card; more is asked for.
const STATIC_SHARED: u32 = 48 << 10;

/// An allocation that did not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes asked for.
    pub requested: u64,
    /// Bytes free.
    pub free: u64,
}

/// The process may not have the address space that an emulator's memory needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the emulator needs 1 GiB of address space, which this process may not have")]
pub struct NoAddresses;

/// A kernel and the shape of its grid.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The kernel's name.
    pub kernel: &'a str,
    /// Blocks along x and y.
    pub grid: [u32; 2],
    /// Threads of a block.
    pub threads: u32,
    /// Blocks of a cluster, along x.
    pub cluster: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// What it writes is remembered, for an early launch after it.
    pub leads: bool,
    /// It begins early: its threads wait for the launch before it, which leads, before they read what that has
    /// written, and before they write.
    pub early: bool,
    /// The kernel's argument struct, as it lies in memory.
    pub args: &'a [u8],
}

/// What a launch did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaunchStats {
    /// Bytes of global memory read, counted at each access (of the allocations that
    /// [`Description::counted`] says).
    pub bytes_read: u64,
    /// Bytes of global memory written.
    pub bytes_written: u64,
    /// Turns that lanes of a warp have lost to each other at banks of shared memory (if
    /// [`Description::bank_conflicts`] says so).
    pub bank_conflicts: u64,
}

/// One imitated card. Calls return when their work is done.
pub struct Emulator {
    description: Description,
    seed: Option<u64>,
    memory: Arena,
    /// What the last launch that led has written, in order.
    led: Mutex<Vec<(u64, u64)>>,
}

impl Emulator {
    /// A card of this description. Threads take turns in a fixed order.
    ///
    /// # Errors
    /// There is no address space for its memory: all cards together need 1 GiB at the least.
    pub fn new(description: Description) -> Result<Emulator, NoAddresses> {
        let memory = Arena::new(description.memory).ok_or(NoAddresses)?;
        Ok(Emulator { description, seed: None, memory, led: Mutex::default() })
    }

    /// Threads, warps and clusters take turns in a random order, the same for the same seed within
    /// a cluster.
    pub fn with_seed(mut self, seed: u64) -> Emulator {
        self.seed = Some(seed);
        self
    }

    /// The card that is imitated.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Bytes of memory free, and in all.
    pub fn memory(&self) -> (u64, u64) {
        self.memory.info()
    }

    /// The address of new memory, which counts as never written.
    ///
    /// # Errors
    /// Less is free.
    pub fn alloc(&self, bytes: u64) -> Result<u64, OutOfMemory> {
        self.memory.alloc(bytes).map_err(|free| OutOfMemory { requested: bytes, free })
    }

    /// Gives memory back.
    ///
    /// # Errors
    /// `address` is not what [`Emulator::alloc`] gave, or was given back already.
    pub fn free(&self, address: u64) -> Result<(), Fault> {
        self.memory.free(address)
    }

    /// Copies to the device.
    ///
    /// # Errors
    /// No allocation holds the bytes; the same for all that follow.
    pub fn copy_to_device(&self, to: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.memory.write(to, bytes)
    }

    /// Copies to the host. What was never written reads as it may.
    ///
    /// # Errors
    /// As [`Emulator::copy_to_device`].
    pub fn copy_to_host(&self, from: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.memory.read(from, bytes)
    }

    /// Copies on the device; what was never written stays so.
    ///
    /// # Errors
    /// As [`Emulator::copy_to_device`].
    pub fn copy_on_device(&self, to: u64, from: u64, bytes: u64) -> Result<(), Fault> {
        self.memory.copy(to, from, bytes)
    }

    /// Sets bytes.
    ///
    /// # Errors
    /// As [`Emulator::copy_to_device`].
    pub fn set(&self, at: u64, value: u8, bytes: u64) -> Result<(), Fault> {
        self.memory.set(at, value, bytes)
    }

    /// Makes memory count as never written: what a pool does with memory that it hands out again.
    ///
    /// # Errors
    /// As [`Emulator::copy_to_device`].
    pub fn forget(&self, at: u64, bytes: u64) -> Result<(), Fault> {
        self.memory.forget(at, bytes)
    }

    /// Whether every byte was written.
    ///
    /// # Errors
    /// As [`Emulator::copy_to_device`].
    pub fn written(&self, at: u64, bytes: u64) -> Result<bool, Fault> {
        self.memory.written(at, bytes)
    }

    /// Whether there is a kernel of this name.
    pub fn has(&self, kernel: &str) -> bool {
        registry::kernels().contains_key(kernel)
    }

    /// Runs a kernel to its end.
    ///
    /// # Errors
    /// The shape is refused, or a thread did what it may not do; then memory holds what was
    /// written up to there.
    pub fn launch(&self, launch: &Launch<'_>) -> Result<LaunchStats, Fault> {
        let kernel = self.check(launch).map_err(|detail| Fault {
            kind: FaultKind::Launch,
            kernel: launch.kernel.into(),
            block: [0; 2],
            thread: 0,
            file: String::new(),
            line: 0,
            detail,
        })?;
        let mut args = vec![0u128; launch.args.len().div_ceil(16)];
        // SAFETY: as many bytes as were asked for, and no invalid ones.
        unsafe {
            let to = args.as_mut_ptr().cast::<u8>();
            std::ptr::copy_nonoverlapping(launch.args.as_ptr(), to, launch.args.len());
        }
        let allocations = self.memory.snapshot();
        let led = || self.led.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if launch.early { std::mem::take(&mut *led()) } else { Vec::new() };
        let written = launch.leads.then(Mutex::default);
        let context = context::Context {
            name: launch.kernel,
            kernel,
            args: args.as_ptr().cast(),
            grid: launch.grid,
            threads: launch.threads,
            ranks: launch.cluster,
            dynamic: launch.shared,
            shared_limit: self.description.shared_per_block.max(STATIC_SHARED),
            allocations: &allocations,
            counted: self.description.counted,
            bank_conflicts: self.description.bank_conflicts,
            seed: self.seed,
            early: launch.early,
            before: &before,
            written: written.as_ref(),
            running: AtomicU32::new(0),
            ended: AtomicU32::new(0),
        };
        let clusters = launch.grid[0] / launch.cluster * launch.grid[1];
        let order = Order::new(clusters, self.seed);
        let [bytes_read, bytes_written, bank_conflicts] = (0..clusters)
            .into_par_iter()
            .map(|i| scheduler::run(&context, order.at(i)))
            .try_reduce(|| [0; 3], |a, b| Ok(std::array::from_fn(|i| a[i] + b[i])))
            .map_err(|fault| *fault)?;
        if let Some(written) = written {
            let mut written = written.into_inner().unwrap_or_else(PoisonError::into_inner);
            written.sort_unstable();
            *led() = written;
        }
        Ok(LaunchStats { bytes_read, bytes_written, bank_conflicts })
    }

    fn check(&self, launch: &Launch<'_>) -> Result<&'static registry::Kernel, String> {
        let card = &self.description;
        let kernel = registry::kernels().get(launch.kernel).ok_or("no such kernel")?;
        let refuse =
            |what: &str, got: u64, limit: u64| Err(format!("{what}: {got}, the limit is {limit}"));
        if launch.args.len() != kernel.args_size {
            let (got, expected) = (launch.args.len(), kernel.args_size);
            return Err(format!("arguments: {got} bytes, the kernel takes {expected}"));
        }
        let limit = kernel.threads.min(1024);
        if launch.threads == 0 || launch.threads > limit {
            return refuse("threads", launch.threads.into(), limit.into());
        }
        let [x, y] = launch.grid;
        if x == 0 || x > i32::MAX as u32 {
            return refuse("blocks along x", x.into(), i32::MAX as u64);
        }
        if y == 0 || y > 65535 {
            return refuse("blocks along y", y.into(), 65535);
        }
        if launch.cluster == 0 || launch.cluster > card.cluster || x % launch.cluster != 0 {
            let detail = format!("clusters of {} in {x} blocks", launch.cluster);
            return Err(format!("{detail}, the largest is {}", card.cluster));
        }
        if kernel.cluster != 0 && kernel.cluster != launch.cluster {
            let (got, expected) = (launch.cluster, kernel.cluster);
            return Err(format!("clusters of {got}, the kernel was compiled for {expected}"));
        }
        if launch.shared > card.shared_per_block {
            let limit = card.shared_per_block.into();
            return refuse("bytes of shared memory", launch.shared.into(), limit);
        }
        u32::try_from(u64::from(x / launch.cluster) * u64::from(y))
            .map_err(|_| "more than 2^32 clusters".to_string())?;
        Ok(kernel)
    }
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Emulator { description, seed, .. } = self;
        f.debug_struct("Emulator").field("description", description).field("seed", seed).finish()
    }
}

/// The order of clusters: as they are, or strided by a number that has no factor with theirs.
struct Order {
    clusters: u64,
    stride: u64,
    start: u64,
}

impl Order {
    fn new(clusters: u32, seed: Option<u64>) -> Order {
        let clusters = u64::from(clusters);
        let Some(seed) = seed else { return Order { clusters, stride: 1, start: 0 } };
        let start = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % clusters;
        let coprime = |&n: &u64| gcd(n, clusters) == 1;
        let stride = (start.max(1)..).find(coprime).unwrap_or(1);
        Order { clusters, stride, start }
    }

    fn at(&self, i: u32) -> u32 {
        ((u64::from(i) * self.stride + self.start) % self.clusters) as u32
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The host's conversions of the kernels' half-width types, for tests.
#[doc(hidden)]
pub mod convert {
    use super::abi;

    /// f16 bits to f32.
    pub fn f16_to_f32(bits: u16) -> f32 {
        // SAFETY: a pure function.
        unsafe { abi::wl_emu_f16_to_f32(bits) }
    }

    /// f32 to f16 bits.
    pub fn f32_to_f16(value: f32) -> u16 {
        // SAFETY: a pure function.
        unsafe { abi::wl_emu_f32_to_f16(value) }
    }

    /// bf16 bits to f32.
    pub fn bf16_to_f32(bits: u16) -> f32 {
        // SAFETY: a pure function.
        unsafe { abi::wl_emu_bf16_to_f32(bits) }
    }

    /// f32 to bf16 bits.
    pub fn f32_to_bf16(value: f32) -> u16 {
        // SAFETY: a pure function.
        unsafe { abi::wl_emu_f32_to_bf16(value) }
    }
}
