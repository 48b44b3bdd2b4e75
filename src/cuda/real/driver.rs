//! The driver of a GPU, by cudarc. Nothing here panics without one: the library, and every
//! function of it that is used, is looked for (`probe.rs`) before cudarc is asked anything.

use crate::base::error::{Error, Result};
use crate::code::card::{Block, Card};
use crate::code::variants::Variant;
use crate::cuda::driver::product::Product;
use crate::cuda::driver::{Driver, Kernel, Launch, Pinned, Resources, Turn, not_captured};
use crate::cuda::real::blas;
use crate::cuda::real::blas::Blas;
use crate::cuda::real::gpu::{Gpu, cluster_of, device, early_start};
use crate::cuda::real::probe::probe;
use crate::cuda::real::queues::{Copies, event, wait};
use cudarc::driver::sys;
use cudarc::driver::{CudaContext, CudaStream, DriverError, result};
use std::any::Any;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What stands for the per-thread default stream (`CU_STREAM_PER_THREAD`).
const PER_THREAD: usize = 2;

/// A GPU and a stream of it.
pub(crate) struct Real {
    /// cuBLAS, once a product is asked for, and its workspace. Locked while it is used.
    blas: Mutex<Option<(Blas, u64)>>,
    copies: Copies,
    /// Whether a launch that leads came last on the stream, of what this object has put there.
    led: AtomicBool,
    stream: Arc<CudaStream>,
    gpu: Arc<Gpu>,
}

impl std::fmt::Debug for Real {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Real").field("card", &self.gpu.card).finish_non_exhaustive()
    }
}

impl Real {
    /// Device `ordinal`, with a stream of its own.
    pub(crate) fn new(ordinal: usize) -> Result<Real> {
        probe()?;
        let context =
            CudaContext::new(ordinal).map_err(|e| device(&format!("CUDA device {ordinal}"), e))?;
        let stream = context.new_stream().map_err(|e| device("a stream", e))?;
        Real::on_stream(stream)
    }

    /// The caller's stream.
    pub(crate) fn on_stream(stream: Arc<CudaStream>) -> Result<Real> {
        probe()?;
        if stream.cu_stream() as usize == PER_THREAD {
            return Err(Error::Device {
                reason: "the per-thread default stream is another one on every thread; give a \
                         stream of its own (CudaContext::new_stream)"
                    .into(),
            });
        }
        let gpu = Gpu::of(stream.context())?;
        gpu.bind()?;
        Ok(Real {
            blas: Mutex::default(),
            copies: Copies::new()?,
            led: AtomicBool::default(),
            stream,
            gpu,
        })
    }

    /// cudarc's stream.
    pub(crate) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Whether the stream is being captured.
    pub(crate) fn captured(&self) -> Result<bool> {
        let status = self.stream.capture_status().map_err(|e| device("the stream", e))?;
        Ok(status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }

    /// For something else on the stream than a launch that follows another.
    fn bind(&self) -> Result<sys::CUstream> {
        self.led.store(false, Ordering::Relaxed);
        self.gpu.bind()?;
        Ok(self.stream.cu_stream())
    }

    fn out_of_memory(&self, argument: &'static str, bytes: usize, error: DriverError) -> Error {
        match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let free = self.gpu.context.mem_get_info().ok().map(|(free, _)| free);
                Error::OutOfMemory { argument, bytes, free }
            }
            _ => device("an allocation", error),
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        if self.bind().is_err() {
            return;
        }
        if let Some((blas, workspace)) =
            self.blas.get_mut().unwrap_or_else(PoisonError::into_inner).take()
        {
            drop(blas);
            // SAFETY: its only user is gone; what is on the stream comes before.
            unsafe { self.free(workspace) };
        }
        // SAFETY: all of them are this object's, and used by nobody else.
        unsafe {
            self.copies.uploads.destroy();
            self.copies.downloads.destroy();
            let _ = result::event::destroy(self.copies.kernels as sys::CUevent);
        }
    }
}

impl Driver for Real {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn card(&self) -> &Card {
        &self.gpu.card
    }

    fn ordinal(&self) -> usize {
        self.gpu.context.ordinal()
    }

    fn space(&self) -> u64 {
        self.gpu.context.cu_ctx() as u64
    }

    fn another_stream(&self) -> Result<Arc<dyn Driver>> {
        let stream = self.gpu.context.new_stream().map_err(|e| device("a stream", e))?;
        Ok(Arc::new(Real::on_stream(stream)?))
    }

    fn capturing(&self) -> Result<bool> {
        self.captured()
    }

    fn after(&self, other: &dyn Driver) -> Result<()> {
        let Some(other) = other.as_any().downcast_ref::<Real>() else {
            return Err(Error::Device { reason: "streams of different devices".into() });
        };
        self.led.store(false, Ordering::Relaxed);
        self.stream.join(&other.stream).map_err(|e| device("waiting for a stream", e))
    }

    fn allocate(&self, argument: &'static str, bytes: usize) -> Result<u64> {
        let stream = self.bind()?;
        // SAFETY: the context is bound, the stream is its own.
        let address = unsafe {
            match self.gpu.context.has_async_alloc() {
                true => result::malloc_async(stream, bytes),
                false => result::malloc_sync(bytes),
            }
        };
        address.map_err(|error| self.out_of_memory(argument, bytes, error))
    }

    unsafe fn free(&self, address: u64) {
        let Ok(stream) = self.bind() else { return };
        // SAFETY: the caller's contract. A failure here leaves the memory with the device.
        let _ = unsafe {
            match self.gpu.context.has_async_alloc() {
                true => result::free_async(address, stream),
                false => {
                    result::stream::synchronize(stream).and_then(|()| result::free_sync(address))
                }
            }
        };
    }

    unsafe fn copy_out(&self, to: &mut [u8], from: u64) -> Result<()> {
        let stream = self.bind()?;
        // SAFETY: the caller's contract; `to` is pageable and waited for.
        unsafe {
            result::memcpy_dtoh_async(to, from, stream)
                .and_then(|()| result::stream::synchronize(stream))
                .map_err(|e| device("a copy from the device", e))
        }
    }

    unsafe fn copy_within(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        let stream = self.bind()?;
        // SAFETY: both ranges are allocated and do not overlap, says the caller; the context is
        // bound.
        unsafe { result::memcpy_dtod_async(to, from, bytes, stream) }
            .map_err(|e| device("a copy on the device", e))
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        let stream = self.bind()?;
        // SAFETY: the bytes are allocated, says the caller; the context is bound.
        unsafe { result::memset_d8_async(address, 0, bytes, stream) }
            .map_err(|e| device("a memset", e))
    }

    fn kernel(&self, variant: Variant) -> Result<Kernel> {
        Ok(Kernel(self.gpu.function(variant)? as u64))
    }

    fn resources(&self, kernel: Kernel) -> Result<Resources> {
        self.gpu.resources(kernel)
    }

    fn places(&self, kernel: Kernel, block: Block) -> Result<u32> {
        self.gpu.places(kernel, block)
    }

    fn active_clusters(&self, kernel: Kernel, block: Block, cluster: u32) -> Result<Option<u32>> {
        self.gpu.active_clusters(kernel, block, cluster)
    }

    unsafe fn launch(&self, launch: Launch<'_>) -> Result<()> {
        let led = self.led.load(Ordering::Relaxed);
        let stream = self.bind()?;
        // Graphs keep the order as it was captured, which older drivers cannot say of a launch that begins early.
        let early = launch.turn == Turn::Follows
            && led
            && Turn::on(self.gpu.card.arch)
            && !self.captured()?;
        let mut attributes = [early_start(), cluster_of(launch.cluster)];
        let attributes = match (early, launch.cluster > 1) {
            (true, true) => &mut attributes[..],
            (true, false) => &mut attributes[..1],
            (false, true) => &mut attributes[1..],
            (false, false) => &mut [],
        };
        let config = sys::CUlaunchConfig {
            gridDimX: launch.blocks,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: launch.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared,
            hStream: stream,
            attrs: attributes.as_mut_ptr(),
            numAttrs: attributes.len() as u32,
        };
        let mut parameters = [launch.args.as_ptr().cast_mut().cast::<c_void>()];
        // SAFETY: the caller's contract; the driver copies the argument before it returns.
        unsafe {
            let function = launch.kernel.0 as sys::CUfunction;
            sys::cuLaunchKernelEx(&config, function, parameters.as_mut_ptr(), std::ptr::null_mut())
                .result()
                .map_err(|e| device("a launch", e))?;
        }
        self.led.store(launch.turn == Turn::Leads, Ordering::Relaxed);
        Ok(())
    }

    unsafe fn product(&self, product: &Product) -> Result<()> {
        let stream = self.bind()?;
        let mut blas = self.blas.lock().unwrap_or_else(PoisonError::into_inner);
        let blas = match &mut *blas {
            Some((blas, _)) => blas,
            none => {
                not_captured(self, "cuBLAS is set up")?;
                let workspace = self.allocate("cuBLAS's workspace", blas::WORKSPACE)?;
                // SAFETY: the context is bound, the workspace made for this.
                let new = unsafe { Blas::new(stream, workspace) };
                // SAFETY: nothing has used it.
                let new = new.inspect_err(|_| unsafe { self.free(workspace) })?;
                &mut none.insert((new, workspace)).0
            }
        };
        // SAFETY: the caller's contract; the lock is held.
        unsafe { blas.product(product) }
    }

    fn synchronize(&self) -> Result<()> {
        let stream = self.bind()?;
        // SAFETY: the stream is this object's.
        unsafe { result::stream::synchronize(stream) }.map_err(|e| device("the stream", e))
    }

    fn moment(&self) -> Result<u64> {
        let stream = self.bind()?;
        // SAFETY: the stream is this object's, the event its context's.
        unsafe {
            let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)
                .map_err(|e| device("an event", e))?;
            match result::event::record(event, stream) {
                Ok(()) => Ok(event as u64),
                Err(error) => {
                    let _ = result::event::destroy(event);
                    Err(device("an event", error))
                }
            }
        }
    }

    fn seconds(&self, moments: [u64; 2]) -> Result<f64> {
        self.bind()?;
        let [from, to] = moments.map(|event| event as sys::CUevent);
        // SAFETY: events of `moment`, which are used no more after this.
        unsafe {
            // By a pointer of our own: cudarc's name for it is unknown to drivers before CUDA 12.8.
            let mut milliseconds = 0.0;
            let elapsed = result::event::synchronize(to)
                .and_then(|()| (self.gpu.driver.elapsed)(&mut milliseconds, from, to).result())
                .map_err(|e| device("an event", e));
            let _ = (result::event::destroy(from), result::event::destroy(to));
            elapsed.map(|()| f64::from(milliseconds) * 1e-3)
        }
    }

    fn pinned(&self, bytes: usize) -> Result<Pinned> {
        self.bind()?;
        let event = event()?;
        // SAFETY: the context is bound. Not write-combined: results are read from it too.
        let memory = unsafe { result::malloc_host(bytes, 0) };
        let address = memory.map_err(|error| {
            // SAFETY: the event was made in this function and is used by nothing.
            let _ = unsafe { result::event::destroy(event as sys::CUevent) };
            match error.0 {
                sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                    Error::OutOfMemory { argument: "pinned memory", bytes, free: None }
                }
                _ => device("pinned memory", error),
            }
        })?;
        // SAFETY: as many bytes were allocated.
        unsafe { std::ptr::write_bytes(address.cast::<u8>(), 0, bytes) };
        Ok(Pinned { address: address.cast(), bytes, event })
    }

    unsafe fn free_pinned(&self, buffer: Pinned) {
        if self.bind().is_err() {
            return;
        }
        // SAFETY: the caller's contract; a failure leaves the memory where it is.
        unsafe {
            let _ = result::free_host(buffer.address.cast());
            let _ = result::event::destroy(buffer.event as sys::CUevent);
        }
    }

    unsafe fn upload(&self, from: &Pinned, to: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        let queue = self.copies.uploads.stream();
        // SAFETY: the caller's contract; the buffer is initialised, and not written meanwhile.
        unsafe {
            let from_bytes = std::slice::from_raw_parts(from.address, bytes.min(from.bytes));
            result::memcpy_htod_async(to, from_bytes, queue)
                .and_then(|()| result::event::record(from.event as sys::CUevent, queue))
                .map_err(|e| device("a copy to the device", e))
        }
    }

    unsafe fn download(&self, to: &Pinned, from: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        let queue = self.copies.downloads.stream();
        // SAFETY: the caller's contract; the buffer is not touched meanwhile.
        unsafe {
            let to_bytes = std::slice::from_raw_parts_mut(to.address, bytes.min(to.bytes));
            result::memcpy_dtoh_async(to_bytes, from, queue)
                .and_then(|()| result::event::record(to.event as sys::CUevent, queue))
                .map_err(|e| device("a copy from the device", e))
        }
    }

    fn await_copy(&self, buffer: &Pinned) -> Result<()> {
        self.bind()?;
        // SAFETY: the event is the buffer's.
        unsafe { result::event::synchronize(buffer.event as sys::CUevent) }
            .map_err(|e| device("a copy", e))
    }

    fn copied(&self, buffer: &Pinned) -> bool {
        // SAFETY: the event is the buffer's.
        self.bind().is_ok() && unsafe { result::event::query(buffer.event as sys::CUevent) }.is_ok()
    }

    /// By way of the kernels' stream, which waits for both queues, and they for it. Where several
    /// threads do so at once, an event may be recorded once more before it is waited for, which
    /// then is for more than it has to.
    fn meet(&self) -> Result<()> {
        let stream = self.bind()?;
        let Copies { uploads, downloads, kernels } = &self.copies;
        let queues = [uploads, downloads];
        let record = |event: u64, stream| {
            // SAFETY: streams and events are of this object's context, which is bound.
            unsafe { result::event::record(event as sys::CUevent, stream) }
        };
        // SAFETY: streams and events are of this object's context, which is bound.
        let waits = |stream, event| unsafe { wait(stream, event) };
        queues
            .iter()
            .try_for_each(|queue| {
                record(queue.event, queue.stream())?;
                waits(stream, queue.event)
            })
            .and_then(|()| record(*kernels, stream))
            .and_then(|()| queues.iter().try_for_each(|queue| waits(queue.stream(), *kernels)))
            .map_err(|e| device("ordering copies and kernels", e))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
