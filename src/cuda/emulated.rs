//! The driver of an imitated card.
//!
//! Kernels run when they are launched. Copies do not: they wait in their queue until something
//! asks for them, so that whoever uses memory too early, on either side, finds it as it was.

use super::driver::{Driver, Kernel, Launch, Pinned};
use super::plan::Card;
use super::variants::Variant;
use crate::emulator::{self, Description, Emulator, Fault, LaunchStats};
use crate::{DriverCalls, Error, Result};
use std::collections::{HashMap, VecDeque};
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
    traffic: Mutex<LaunchStats>,
    calls: Mutex<DriverCalls>,
    copies: Mutex<Copies>,
    /// What was put on the stream since a capture began.
    captured: Mutex<Option<Vec<Captured>>>,
}

/// Copies that nothing has waited for yet.
#[derive(Debug, Default)]
struct Copies {
    queue: VecDeque<(u64, Copy)>,
    /// Number of the copy put in last, and of the last one that each event stands for.
    last: u64,
    events: HashMap<u64, u64>,
    next_event: u64,
}

#[derive(Debug, Clone, Copy)]
struct Copy {
    host: usize,
    device: u64,
    bytes: usize,
    to_device: bool,
}

/// A launch or a memset, to be done again.
#[derive(Debug, Clone)]
pub(crate) enum Captured {
    Launch { kernel: String, shape: [u32; 4], args: Vec<u8> },
    Clear { address: u64, bytes: usize },
}

fn fault(fault: Fault) -> Error {
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Emulated {
    /// A card of this description; with a seed, threads take turns in an order drawn from it.
    pub(crate) fn new(description: Description, seed: Option<u64>) -> Result<Emulated> {
        let card = Card {
            name: description.name.clone(),
            arch: description.arch,
            multiprocessors: description.multiprocessors,
            shared_per_block: description.shared_per_block as usize,
            shared_per_multiprocessor: description.shared_per_multiprocessor as usize,
            cluster: description.cluster,
        };
        let emulator =
            Emulator::new(description).map_err(|why| Error::Device { reason: why.to_string() })?;
        let emulator = match seed {
            Some(seed) => emulator.with_seed(seed),
            None => emulator,
        };
        let variants = Variant::all();
        let kernels = kernels(&variants);
        let card = Arc::new(Imitation { emulator, card, variants, kernels });
        Ok(Emulated::on(card))
    }

    fn on(card: Arc<Imitation>) -> Emulated {
        Emulated {
            card,
            traffic: Mutex::default(),
            calls: Mutex::default(),
            copies: Mutex::default(),
            captured: Mutex::default(),
        }
    }

    fn emulator(&self) -> &Emulator {
        &self.card.emulator
    }

    fn count(&self, count: impl FnOnce(&mut DriverCalls)) {
        count(&mut lock(&self.calls));
    }

    /// As a GPU's driver says it of a stream that is being captured.
    fn refuse_captured(&self, what: &str) -> Result<()> {
        super::driver::not_captured(self, what)
    }

    /// What comes on the stream is kept instead of done, until [`Emulated::end_capture`].
    pub(crate) fn begin_capture(&self) {
        *lock(&self.captured) = Some(Vec::new());
    }

    /// What came on the stream meanwhile.
    pub(crate) fn end_capture(&self) -> Vec<Captured> {
        lock(&self.captured).take().unwrap_or_default()
    }

    /// Does again what was captured.
    pub(crate) fn replay(&self, graph: &[Captured]) -> Result<()> {
        graph.iter().try_for_each(|step| match step {
            Captured::Launch { kernel, shape, args } => self.run(kernel, *shape, args),
            Captured::Clear { address, bytes } => {
                self.emulator().set(*address, 0, *bytes as u64).map_err(fault)
            }
        })
    }

    fn run(&self, kernel: &str, shape: [u32; 4], args: &[u8]) -> Result<()> {
        let [blocks, threads, cluster, shared] = shape;
        let grid = [blocks, 1];
        let launch = emulator::Launch { kernel, grid, threads, cluster, shared, args };
        let stats = self.emulator().launch(&launch).map_err(fault)?;
        let mut traffic = lock(&self.traffic);
        traffic.bytes_read += stats.bytes_read;
        traffic.bytes_written += stats.bytes_written;
        Ok(())
    }

    fn enqueue(&self, buffer: &Pinned, copy: Copy) -> Result<()> {
        self.count(|calls| calls.copies += 1);
        if copy.bytes > buffer.bytes {
            let reason = format!("a copy of {} bytes by a buffer of {}", copy.bytes, buffer.bytes);
            return Err(Error::Device { reason });
        }
        let mut copies = lock(&self.copies);
        copies.last += 1;
        let number = copies.last;
        copies.queue.push_back((number, copy));
        copies.events.insert(buffer.event, number);
        Ok(())
    }

    /// Does the copies up to number `last`.
    fn copy_up_to(&self, last: u64) -> Result<()> {
        let mut copies = lock(&self.copies);
        while copies.queue.front().is_some_and(|(number, _)| *number <= last) {
            let Some((_, Copy { host, device, bytes, to_device })) = copies.queue.pop_front()
            else {
                break;
            };
            // SAFETY: the buffer has that many bytes (`enqueue`), is freed after its last copy
            // (`free_pinned`), and is not used by the host meanwhile (`upload`, `download`).
            unsafe {
                if to_device {
                    let from = std::slice::from_raw_parts(host as *const u8, bytes);
                    self.emulator().copy_to_device(device, from).map_err(fault)?;
                } else {
                    let to = std::slice::from_raw_parts_mut(host as *mut u8, bytes);
                    self.copy_written(to, device)?;
                }
            }
        }
        Ok(())
    }

    fn copy_written(&self, to: &mut [u8], from: u64) -> Result<()> {
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
        Ok(Arc::new(Emulated::on(self.card.clone())))
    }

    fn capturing(&self) -> Result<bool> {
        Ok(lock(&self.captured).is_some())
    }

    fn after(&self, _other: &dyn Driver) -> Result<()> {
        self.count(|calls| calls.orders += 1);
        self.refuse_captured("a wait for another stream")
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
        // Only what was allocated comes here.
        let _ = self.emulator().free(address);
    }

    unsafe fn reused(&self, address: u64, bytes: usize) -> Result<()> {
        self.emulator().forget(address, bytes as u64).map_err(fault)
    }

    unsafe fn copy_out(&self, to: &mut [u8], from: u64) -> Result<()> {
        self.count(|calls| (calls.copies, calls.waits) = (calls.copies + 1, calls.waits + 1));
        self.refuse_captured("a copy")?;
        self.copy_written(to, from)
    }

    unsafe fn copy_within(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.count(|calls| calls.copies += 1);
        self.refuse_captured("a copy")?;
        self.emulator().copy_on_device(to, from, bytes as u64).map_err(fault)
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        self.count(|calls| calls.clears += 1);
        if let Some(graph) = &mut *lock(&self.captured) {
            graph.push(Captured::Clear { address, bytes });
            return Ok(());
        }
        self.emulator().set(address, 0, bytes as u64).map_err(fault)
    }

    fn kernel(&self, variant: Variant) -> Result<Kernel> {
        // The table's position stands for a kernel.
        let at = self.card.variants.iter().position(|&v| v == variant);
        at.map(|at| Kernel(at as u64)).ok_or_else(|| Error::Device {
            reason: format!("kernel {} is not in the table", variant.symbol()),
        })
    }

    unsafe fn launch(&self, launch: Launch<'_>) -> Result<()> {
        self.count(|calls| calls.launches += 1);
        let kernel = self.card.kernels[launch.kernel.0 as usize].clone();
        let shape = [launch.blocks, launch.threads, launch.cluster, launch.shared];
        if let Some(graph) = &mut *lock(&self.captured) {
            graph.push(Captured::Launch { kernel, shape, args: launch.args.to_vec() });
            return Ok(());
        }
        self.run(&kernel, shape, launch.args)
    }

    fn synchronize(&self) -> Result<()> {
        self.count(|calls| calls.waits += 1);
        self.refuse_captured("a wait")
    }

    /// Small, so that a small tensor has many chunks.
    fn chunk(&self) -> usize {
        5000
    }

    fn pinned(&self, bytes: usize) -> Result<Pinned> {
        self.count(|calls| calls.allocations += 1);
        let memory = Box::into_raw(vec![0u8; bytes].into_boxed_slice());
        let mut copies = lock(&self.copies);
        copies.next_event += 1;
        Ok(Pinned { address: memory.cast(), bytes, event: copies.next_event })
    }

    unsafe fn free_pinned(&self, buffer: Pinned) {
        self.count(|calls| calls.frees += 1);
        lock(&self.copies).events.remove(&buffer.event);
        let memory = std::ptr::slice_from_raw_parts_mut(buffer.address, buffer.bytes);
        // SAFETY: `pinned` made it of a box of that length; the caller uses it no more.
        drop(unsafe { Box::from_raw(memory) });
    }

    unsafe fn upload(&self, from: &Pinned, to: u64, bytes: usize) -> Result<()> {
        let host = from.address as usize;
        self.enqueue(from, Copy { host, device: to, bytes, to_device: true })
    }

    unsafe fn download(&self, to: &Pinned, from: u64, bytes: usize) -> Result<()> {
        let host = to.address as usize;
        self.enqueue(to, Copy { host, device: from, bytes, to_device: false })
    }

    fn await_copy(&self, buffer: &Pinned) -> Result<()> {
        let last = {
            let copies = lock(&self.copies);
            copies.events.get(&buffer.event).copied().unwrap_or(0)
        };
        self.copy_up_to(last)
    }

    fn copied(&self, buffer: &Pinned) -> bool {
        let copies = lock(&self.copies);
        let last = copies.events.get(&buffer.event).copied().unwrap_or(0);
        copies.queue.front().is_none_or(|(number, _)| *number > last)
    }

    fn copies_after_kernels(&self) -> Result<()> {
        self.refuse_captured("a copy")
    }

    fn kernels_after_copies(&self) -> Result<()> {
        let last = lock(&self.copies).last;
        self.copy_up_to(last)
    }

    fn traffic(&self) -> Option<(u64, u64)> {
        let traffic = lock(&self.traffic);
        Some((traffic.bytes_read, traffic.bytes_written))
    }

    fn calls(&self) -> Option<DriverCalls> {
        Some(*lock(&self.calls))
    }

    fn emulated(&self) -> Option<&Emulated> {
        Some(self)
    }
}
