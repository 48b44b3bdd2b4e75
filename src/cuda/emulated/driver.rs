//! The driver of an imitated card.
//!
//! What it is given need not be done soon: kernels and copies wait in three queues, the stream and
//! one for copies each way, until something asks for their results or they meet. Until then a draw
//! decides when any of them gets on. So whoever relies on an order that nobody asked for, in either
//! direction, finds memory as it must not be.

use crate::cuda::emulated::steps::{Copies, Copy, Step, Stream, Way};

use crate::base::error::{Error, Result};
use crate::code::card::{Block, Card, largest_cluster};
use crate::code::variants::Variant;
use crate::cuda::driver::product::Product;
use crate::cuda::driver::{Driver, Kernel, Launch, Pinned, Resources};
use crate::device::facts::DriverCalls;
use crate::emulator::{Asked, Description, Emulator, Fault, LaunchStats};
use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An emulator, and the plan's view of its card.
#[derive(Debug)]
struct Imitation {
    emulator: Emulator,
    card: Card,
    variants: Vec<Variant>,
    /// Names of the kernels that are run for them.
    kernels: Vec<String>,
}

/// A stream of an imitated card.
#[derive(Debug)]
pub(crate) struct Emulated {
    card: Arc<Imitation>,
    pub(crate) traffic: Mutex<LaunchStats>,
    calls: Mutex<DriverCalls>,
    pub(crate) stream: Mutex<Stream>,
    pub(crate) copies: Mutex<Copies>,
    pub(crate) draws: Mutex<u64>,
    /// What was put on the stream since a capture began.
    pub(crate) captured: Mutex<Option<Vec<Step>>>,
    /// What was asked since a trace began.
    trace: Mutex<Option<Vec<Asked>>>,
}

pub(crate) fn fault(fault: Fault) -> Error {
    Error::Device { reason: fault.to_string() }
}

/// Names kernels to be run in the place of others, `kernel=other,…`: how tests see that a kernel
/// which computes something else is found out.
const REPLACE: &str = "WARPLOSS_EMULATOR_REPLACE";

/// The name of the kernel that is run for each variant.
fn kernels(variants: &[Variant]) -> Vec<String> {
    let text = std::env::var(REPLACE).unwrap_or_default();
    let pairs: Vec<_> = text.split(',').filter_map(|pair| pair.split_once('=')).collect();
    let name = |variant: &Variant| {
        let symbol = variant.symbol();
        let other = pairs.iter().find(|(kernel, _)| *kernel == symbol);
        other.map_or(symbol, |(_, other)| (*other).into())
    };
    variants.iter().map(name).collect()
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a plan has to know of a card of this description.
pub(super) fn card_of(description: &Description) -> Card {
    Card {
        name: description.name.clone(),
        arch: description.arch,
        multiprocessors: description.multiprocessors,
        shared_per_block: description.shared_per_block as usize,
        shared_per_multiprocessor: description.shared_per_multiprocessor as usize,
        l2: description.l2 as usize,
        // As on a GPU: what the card itself runs is asked of it.
        cluster: largest_cluster(description.arch),
    }
}

impl Emulated {
    /// A card of this description; with a seed, threads take turns in an order drawn from it.
    pub(crate) fn new(description: Description, seed: Option<u64>) -> Result<Emulated> {
        let card = card_of(&description);
        let emulator =
            Emulator::new(description).map_err(|why| Error::Device { reason: why.to_string() })?;
        let emulator = match seed {
            Some(seed) => emulator.with_seed(seed),
            None => emulator,
        };
        let variants = Variant::all();
        let kernels = kernels(&variants);
        let card = Arc::new(Imitation { emulator, card, variants, kernels });
        Ok(Emulated::on(card, seed.unwrap_or(0)))
    }

    fn on(card: Arc<Imitation>, seed: u64) -> Emulated {
        Emulated {
            card,
            traffic: Mutex::default(),
            calls: Mutex::default(),
            stream: Mutex::default(),
            copies: Mutex::default(),
            draws: Mutex::new(seed),
            captured: Mutex::default(),
            trace: Mutex::default(),
        }
    }

    pub(crate) fn emulator(&self) -> &Emulator {
        &self.card.emulator
    }

    pub(crate) fn count(&self, count: impl FnOnce(&mut DriverCalls)) {
        count(&mut lock(&self.calls));
    }

    /// As a GPU's driver says it of a stream that is being captured.
    fn refuse_captured(&self, what: &str) -> Result<()> {
        crate::cuda::driver::not_captured(self, what)
    }

    /// What comes on the stream is kept instead of done, until [`Emulated::end_capture`].
    pub(crate) fn begin_capture(&self) {
        *lock(&self.captured) = Some(Vec::new());
    }

    /// What came on the stream meanwhile.
    pub(crate) fn end_capture(&self) -> Vec<Step> {
        lock(&self.captured).take().unwrap_or_default()
    }

    /// Does again what was captured.
    pub(crate) fn replay(&self, graph: &[Step]) -> Result<()> {
        graph.iter().try_for_each(|step| self.put(step.clone()))
    }

    fn asked(&self, what: Asked) {
        if let Some(trace) = &mut *lock(&self.trace) {
            trace.push(what);
        }
    }

    /// What is asked from now on is noted, until [`Emulated::end_trace`].
    pub(crate) fn begin_trace(&self) {
        *lock(&self.trace) = Some(Vec::new());
    }

    /// What was asked meanwhile.
    pub(crate) fn end_trace(&self) -> Vec<Asked> {
        lock(&self.trace).take().unwrap_or_default()
    }

    pub(crate) fn copy_written(&self, to: &mut [u8], from: u64) -> Result<()> {
        if !self.emulator().written(from, to.len() as u64).map_err(fault)? {
            let reason =
                format!("{} bytes at {from:#x} are read back, but not all written", to.len());
            return Err(Error::Device { reason });
        }
        self.emulator().copy_to_host(from, to).map_err(fault)
    }
}

impl Driver for Emulated {
    fn name(&self) -> &'static str {
        "emulated"
    }

    fn card(&self) -> &Card {
        &self.card.card
    }

    /// None: the caller's raw addresses are those of a GPU.
    fn ordinal(&self) -> usize {
        usize::MAX
    }

    fn space(&self) -> u64 {
        Arc::as_ptr(&self.card) as u64
    }

    fn another_stream(&self) -> Result<Arc<dyn Driver>> {
        Ok(Arc::new(Emulated::on(self.card.clone(), self.draw(u64::MAX))))
    }

    fn capturing(&self) -> Result<bool> {
        Ok(lock(&self.captured).is_some())
    }

    fn after(&self, other: &dyn Driver) -> Result<()> {
        self.count(|calls| calls.orders += 1);
        self.refuse_captured("a wait for another stream")?;
        other.as_any().downcast_ref().map_or(Ok(()), Emulated::finish)
    }

    fn allocate(&self, argument: &'static str, bytes: usize) -> Result<u64> {
        self.count(|calls| calls.allocations += 1);
        self.refuse_captured("an allocation")?;
        self.emulator().alloc(bytes as u64).map_err(|why| Error::OutOfMemory {
            argument,
            bytes,
            free: Some(why.free as usize),
        })
    }

    unsafe fn free(&self, address: u64) {
        self.count(|calls| calls.frees += 1);
        // Only what was allocated comes here; and what broke the stream is told by others.
        let _ = self.finish();
        let _ = self.emulator().free(address);
    }

    unsafe fn reused(&self, address: u64, bytes: usize) -> Result<()> {
        match self.capturing()? {
            // A replay may find it as it is.
            true => {
                self.finish()?;
                self.emulator().forget(address, bytes as u64).map_err(fault)
            }
            false => self.put(Step::Forget { address, bytes }),
        }
    }

    unsafe fn copy_out(&self, to: &mut [u8], from: u64) -> Result<()> {
        self.count(|calls| {
            calls.copies += 1;
            calls.waits += 1;
            calls.bytes_to_host += to.len() as u64;
        });
        self.refuse_captured("a copy")?;
        self.asked(Asked::CopyOut);
        self.finish()?;
        self.copy_written(to, from)
    }

    unsafe fn copy_within(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.count(|calls| calls.copies += 1);
        self.refuse_captured("a copy")?;
        self.finish()?;
        self.emulator().copy_on_device(to, from, bytes as u64).map_err(fault)
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        self.count(|calls| calls.clears += 1);
        self.put(Step::Clear { address, bytes })
    }

    fn kernel(&self, variant: Variant) -> Result<Kernel> {
        // The table's position stands for a kernel.
        let at = self.card.variants.iter().position(|&v| v == variant);
        at.map(|at| Kernel(at as u64)).ok_or_else(|| Error::Device {
            reason: format!("kernel {} is not in the table", variant.symbol()),
        })
    }

    fn resources(&self, kernel: Kernel) -> Result<Resources> {
        // The host's code has no registers of a GPU, and shared memory that is not told apart.
        let threads = self.card.variants[kernel.0 as usize].bounds().0;
        Ok(Resources { registers: None, shared: None, local: None, threads })
    }

    fn places(&self, _: Kernel, block: Block) -> Result<u32> {
        Ok(self.card().places(block))
    }

    fn active_clusters(&self, _: Kernel, block: Block, cluster: u32) -> Result<Option<u32>> {
        let card = self.card();
        let fits = cluster <= self.emulator().description().cluster
            && block.shared as usize <= card.shared_per_block;
        Ok(if fits { None } else { Some(0) })
    }

    unsafe fn launch(&self, launch: Launch<'_>) -> Result<()> {
        self.count(|calls| calls.launches += 1);
        let kernel = self.card.kernels[launch.kernel.0 as usize].clone();
        let shape = [launch.blocks, launch.threads, launch.cluster, launch.shared];
        self.asked(Asked::Launch);
        let args = launch.args.to_vec();
        self.put(Step::Launch { kernel, shape, turn: launch.turn, args })
    }

    unsafe fn product(&self, product: &Product) -> Result<()> {
        let [m, n, k] = product.sizes.map(|size| size as u64);
        self.count(|calls| {
            calls.launches += 1;
            calls.terms += m * n * k;
        });
        self.asked(Asked::Launch);
        self.put(Step::Product(*product))
    }

    fn synchronize(&self) -> Result<()> {
        self.count(|calls| calls.waits += 1);
        self.refuse_captured("a wait")?;
        self.finish()
    }

    fn chunk(&self) -> usize {
        self.emulator().description().staging
    }

    fn pinned(&self, bytes: usize) -> Result<Pinned> {
        self.count(|calls| calls.allocations += 1);
        let memory = Box::into_raw(vec![0u8; bytes].into_boxed_slice());
        Ok(Pinned { address: memory.cast(), bytes, event: lock(&self.copies).event() })
    }

    unsafe fn free_pinned(&self, buffer: Pinned) {
        self.count(|calls| calls.frees += 1);
        lock(&self.copies).forget(&buffer);
        let memory = std::ptr::slice_from_raw_parts_mut(buffer.address, buffer.bytes);
        // SAFETY: `pinned` made it of a box of that length; the caller uses it no more.
        drop(unsafe { Box::from_raw(memory) });
    }

    unsafe fn upload(&self, from: &Pinned, to: u64, bytes: usize) -> Result<()> {
        self.asked(Asked::Upload);
        let host = from.address as usize;
        self.enqueue(from, Copy { host, device: to, bytes, way: Way::ToDevice })
    }

    unsafe fn download(&self, to: &Pinned, from: u64, bytes: usize) -> Result<()> {
        self.asked(Asked::Download);
        self.count(|calls| calls.bytes_to_host += bytes as u64);
        let host = to.address as usize;
        self.enqueue(to, Copy { host, device: from, bytes, way: Way::FromDevice })
    }

    fn await_copy(&self, buffer: &Pinned) -> Result<()> {
        let Some((way, number)) = lock(&self.copies).last(buffer) else { return Ok(()) };
        if way == Way::FromDevice {
            self.asked(Asked::AwaitDownload);
        }
        self.copy_up_to(way, number)
    }

    fn copied(&self, buffer: &Pinned) -> bool {
        lock(&self.copies).done(buffer)
    }

    fn meet(&self) -> Result<()> {
        self.count(|calls| calls.orders += 1);
        self.refuse_captured("a copy")?;
        self.asked(Asked::Meet);
        self.finish_all()
    }

    fn traffic(&self) -> Option<(u64, u64)> {
        // What broke the stream is told where results are asked for.
        let _ = self.finish();
        let traffic = lock(&self.traffic);
        Some((traffic.bytes_read, traffic.bytes_written))
    }

    fn calls(&self) -> Option<DriverCalls> {
        Some(*lock(&self.calls))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
