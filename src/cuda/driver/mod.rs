//! What the launches need of a device: memory, kernels, a stream. The one implementation is
//! cudarc's (`real/`), the other the emulator's: everything above is the same for both.

pub(crate) mod product;

use crate::base::error::{Error, Result};
use crate::code::card::{Block, Card};
use crate::code::variants::Variant;
use crate::cuda::driver::product::Product;
use crate::device::facts::DriverCalls;
use std::any::Any;
use std::sync::Arc;

/// A kernel that a driver has loaded: its own number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kernel(pub(crate) u64);

/// What a launch has to do with those before and after it on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It begins when all that comes before it is done.
    Alone,
    /// The same, and its kernel says early that one which follows it may begin.
    Leads,
    /// It may begin before one that leads is done, if nothing comes between them: its kernel waits for that one
    /// before it reads what it writes, and before it writes anything.
    Follows,
}

impl Turn {
    /// The architectures whose launches may begin early.
    pub(crate) fn on(arch: u32) -> bool {
        arch >= 90
    }
}

/// One launch. The grid and the blocks have one dimension.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Launch<'a> {
    pub(crate) kernel: Kernel,
    pub(crate) blocks: u32,
    pub(crate) threads: u32,
    /// Blocks of a cluster; 1: none.
    pub(crate) cluster: u32,
    /// Bytes of dynamic shared memory.
    pub(crate) shared: u32,
    pub(crate) turn: Turn,
    /// The kernel's one argument, aligned to 8 bytes.
    pub(crate) args: &'a [u8],
}

/// What a kernel takes of a multiprocessor.
#[cfg_attr(not(feature = "cli"), allow(dead_code))] // `info --kernels` asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resources {
    /// Registers of a thread; `None` where there is no machine code.
    pub(crate) registers: Option<u32>,
    /// Bytes of shared memory that are the kernel's own.
    pub(crate) shared: Option<u32>,
    /// Bytes of local memory of a thread.
    pub(crate) local: Option<u32>,
    /// Most threads of a block.
    pub(crate) threads: u32,
}

/// Host memory that the device copies from and to on its own, and a number (an event) that
/// stands for the last such copy. Given back by [`Driver::free_pinned`].
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) address: *mut u8,
    pub(crate) bytes: usize,
    pub(crate) event: u64,
}

// SAFETY: the memory is this object's alone, whichever thread holds it.
unsafe impl Send for Pinned {}

/// A device and the stream that everything on it is ordered by.
///
/// Beside the stream there are two copy queues, each ordered in itself: one that `upload` puts on,
/// one that `download` does. All else goes on the stream, and nothing orders the three but `meet`.
///
/// Addresses are the device's. Errors are [`crate::Error::Device`], but for
/// [`crate::Error::OutOfMemory`] from `allocate` and `pinned`. Calls may come from any thread.
pub(crate) trait Driver: Send + Sync + std::fmt::Debug {
    /// The name that the command line has for this kind of device.
    fn name(&self) -> &'static str;

    /// What plans are made for.
    fn card(&self) -> &Card;

    /// Which of the machine's devices it is.
    fn ordinal(&self) -> usize;

    /// The same for all streams that share addresses, and for no others.
    fn space(&self) -> u64;

    /// Another stream of the same device.
    fn another_stream(&self) -> Result<Arc<dyn Driver>>;

    /// Whether the stream is being captured into a graph: only launches and `clear` may be put
    /// on it then.
    fn capturing(&self) -> Result<bool>;

    /// What comes on this stream from now on runs after what `other` was given so far.
    ///
    /// `other` has the same [`Driver::space`].
    fn after(&self, other: &dyn Driver) -> Result<()>;

    /// Memory for `argument` (named in the error), aligned to 256 bytes, undefined.
    fn allocate(&self, argument: &'static str, bytes: usize) -> Result<u64>;

    /// Gives memory back once the stream has come here.
    ///
    /// # Safety
    /// The address came from `allocate` and is used no more.
    unsafe fn free(&self, address: u64);

    /// Told of memory that a pool hands out again; it is undefined from now on.
    ///
    /// # Safety
    /// The bytes at `address` are allocated, and nothing needs their contents.
    unsafe fn reused(&self, address: u64, bytes: usize) -> Result<()> {
        let _ = (address, bytes);
        Ok(())
    }

    /// Copies a few device bytes to the host and waits for them.
    ///
    /// # Safety
    /// The bytes at `from` are allocated and initialised.
    unsafe fn copy_out(&self, to: &mut [u8], from: u64) -> Result<()>;

    /// Copies on the device.
    ///
    /// # Safety
    /// Both ranges are allocated and do not overlap.
    unsafe fn copy_within(&self, to: u64, from: u64, bytes: usize) -> Result<()>;

    /// Zeros `bytes` bytes.
    ///
    /// # Safety
    /// They are allocated.
    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()>;

    /// Finds (and where needed compiles and loads) a kernel.
    fn kernel(&self, variant: Variant) -> Result<Kernel>;

    /// What a kernel takes.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // `info --kernels` asks.
    fn resources(&self, kernel: Kernel) -> Result<Resources>;

    /// How many such blocks of a kernel a multiprocessor holds at once.
    fn places(&self, kernel: Kernel, block: Block) -> Result<u32>;

    /// How many clusters of so many such blocks are active on the device at once, where that is
    /// known; 0: there can be none.
    fn active_clusters(&self, kernel: Kernel, block: Block, cluster: u32) -> Result<Option<u32>>;

    /// Puts a launch on the stream.
    ///
    /// # Safety
    /// `args` is the kernel's own struct, and the memory it names is allocated and as long as
    /// it says.
    unsafe fn launch(&self, launch: Launch<'_>) -> Result<()>;

    /// Puts a product of matrices on the stream; may be captured once one was made before.
    ///
    /// # Safety
    /// The panels are device memory of the product's sizes; `a` and `b` are initialised, and so is
    /// `c` where it is added to.
    unsafe fn product(&self, product: &Product) -> Result<()>;

    /// Waits until the stream has come here.
    fn synchronize(&self) -> Result<()>;

    /// A moment of the stream, for [`Driver::seconds`]: here by the host's clock once the stream
    /// has come here, on a GPU by an event.
    fn moment(&self) -> Result<u64> {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        self.synchronize()?;
        Ok(START.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64)
    }

    /// Seconds from one moment to a later one, each given to this once; waits for the later one.
    fn seconds(&self, [from, to]: [u64; 2]) -> Result<f64> {
        Ok(to.saturating_sub(from) as f64 * 1e-9)
    }

    /// Bytes of a buffer, and of the chunks that larger copies are cut into.
    fn chunk(&self) -> usize {
        4 << 20
    }

    /// A buffer for `upload` and `download`, initialised.
    fn pinned(&self, bytes: usize) -> Result<Pinned>;

    /// Gives a buffer back.
    ///
    /// # Safety
    /// It came from `pinned` of a driver of the same space, and its copies are done.
    unsafe fn free_pinned(&self, buffer: Pinned);

    /// Puts a copy of the buffer's first `bytes` bytes to `to` on the queue of uploads.
    ///
    /// # Safety
    /// The bytes at `to` are allocated, and nothing uses them between the last `meet` and the
    /// next; the buffer is not written before `await_copy`.
    unsafe fn upload(&self, from: &Pinned, to: u64, bytes: usize) -> Result<()>;

    /// Puts a copy of `bytes` bytes at `from` into the buffer on the queue of downloads.
    ///
    /// # Safety
    /// The bytes at `from` are allocated, initialised by what came before the last `meet`, and not
    /// written before the next; the buffer is not touched before `await_copy`.
    unsafe fn download(&self, to: &Pinned, from: u64, bytes: usize) -> Result<()>;

    /// Waits for the buffer's last copy.
    fn await_copy(&self, buffer: &Pinned) -> Result<()>;

    /// Whether the buffer's last copy is done.
    fn copied(&self, buffer: &Pinned) -> bool;

    /// What comes on the stream, or on either copy queue, from now on runs after all that the
    /// three were given so far.
    fn meet(&self) -> Result<()>;

    /// Bytes of global memory that kernels have read and written so far, where they are counted.
    fn traffic(&self) -> Option<(u64, u64)> {
        None
    }

    /// What this driver was asked so far, where it is counted.
    fn calls(&self) -> Option<DriverCalls> {
        None
    }

    /// Itself, for what knows one kind of driver.
    fn as_any(&self) -> &dyn Any;
}

/// An error where the stream is being captured into a graph, which cannot hold `what`.
pub(crate) fn not_captured(driver: &dyn Driver, what: &str) -> Result<()> {
    match driver.capturing()? {
        false => Ok(()),
        true => Err(Error::Device {
            reason: format!("{what} while the stream is captured into a graph"),
        }),
    }
}

/// Memory that is not this device's.
pub(crate) fn elsewhere(argument: &'static str) -> Error {
    Error::Place { argument, expected: "this device's", got: "another device's" }
}
