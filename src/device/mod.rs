//! Where a loss is computed.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorRef};
#[cfg(all(feature = "cli", gpu))]
use crate::code::plan::Forced;
use crate::cpu::processor::Cpu;
#[cfg(gpu)]
use crate::cuda::stream::Stream;
#[cfg(gpu)]
use crate::cuda::stream::resident::Resident;
#[cfg(feature = "emulator")]
use crate::emulator::{Asked, Description, Graph};
use std::sync::Arc;

/// A place that computes losses: cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub struct Device {
    kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Cpu(Arc<Cpu>),
    #[cfg(gpu)]
    Cuda(Arc<Stream>),
}

/// Calls a loss on whichever device it is: both have a method of the same name and arguments.
macro_rules! on_device {
    ($device:expr, $argument:literal, $places:expr, $on:ident => $call:expr) => {
        match $device.kind_for($argument, &$places)? {
            $crate::device::Kind::Cpu($on) => $call,
            #[cfg(gpu)]
            $crate::device::Kind::Cuda(stream) => {
                let $on = &$crate::cuda::stream::Cuda::new(stream);
                $call
            }
        }
    };
}
pub(crate) use on_device;

/// What a device's driver was asked, where an emulator counts it: what tells whether a call
/// allocates or waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DriverCalls {
    /// Memory taken, on the device or pinned.
    pub allocations: u64,
    /// Memory given back.
    pub frees: u64,
    /// Copies to, from and on the device.
    pub copies: u64,
    /// Bytes that were copied from the device to the host.
    pub bytes_to_host: u64,
    /// Times that the host waited for the device.
    pub waits: u64,
    /// Times that a stream was made to wait for another.
    pub orders: u64,
    /// Kernels launched.
    pub launches: u64,
    /// Memory set to zero.
    pub clears: u64,
}

/// What the CPU device runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuInfo {
    /// Threads that a call may use.
    pub threads: usize,
    /// The vector instruction set in use.
    pub simd: &'static str,
}

impl Device {
    /// The best device present: the first CUDA device that works (feature `cuda`), else the CPU.
    pub fn best() -> Device {
        #[cfg(feature = "cuda")]
        if let Ok(device) = Device::cuda(0) {
            return device;
        }
        Device::cpu()
    }

    /// The CPU, with the threads of rayon's global pool (or of the pool that the caller is in).
    pub fn cpu() -> Device {
        Device { kind: Kind::Cpu(Arc::new(Cpu::new())) }
    }

    /// The CPU, with a pool of `threads` threads of its own.
    ///
    /// # Errors
    /// `threads` is 0, or the threads cannot be had.
    pub fn cpu_with_threads(threads: usize) -> Result<Device> {
        Ok(Device { kind: Kind::Cpu(Arc::new(Cpu::with_threads(threads)?)) })
    }

    /// The CPU at each instruction set that this machine has, the plainest first.
    #[doc(hidden)]
    pub fn cpu_levels() -> Vec<Device> {
        let levels = Cpu::levels().into_iter();
        levels.map(|cpu| Device { kind: Kind::Cpu(Arc::new(cpu)) }).collect()
    }

    #[cfg(gpu)]
    fn on_driver(driver: Arc<dyn crate::cuda::driver::Driver>) -> Result<Device> {
        Ok(Device { kind: Kind::Cuda(Arc::new(Stream::new(driver)?)) })
    }

    /// CUDA device `ordinal`, on a stream of its own. Host tensors are copied there and back.
    ///
    /// # Errors
    /// No driver or no such device, with the plain reason and what to install.
    #[cfg(feature = "cuda")]
    pub fn cuda(ordinal: usize) -> Result<Device> {
        Device::on_driver(Arc::new(crate::cuda::real::driver::Real::new(ordinal)?))
    }

    /// The CUDA device of the caller's stream; calls are ordered with the caller's own work.
    ///
    /// Devices on streams of one context share what they have compiled and loaded.
    ///
    /// A call whose tensors all lie on the device only launches kernels and sets memory, once the
    /// same call was made before: so it can be captured into a CUDA graph, between cudarc's
    /// `begin_capture` and `end_capture` (with event tracking off). Workspace that a captured call
    /// used stays where it is as long as the device lives, whatever [`Device::trim`] gives back.
    /// Keep the device, and the tensors, as long as the graph, and launch the graph on the
    /// device's own stream: its workspace serves later calls there too.
    ///
    /// # Errors
    /// As [`Device::cuda`].
    #[cfg(feature = "cuda")]
    pub fn on_stream(stream: Arc<cudarc::driver::CudaStream>) -> Result<Device> {
        Device::on_driver(Arc::new(crate::cuda::real::driver::Real::on_stream(stream)?))
    }

    /// The CUDA kernels on the host, every thread by itself and every access checked, for a card
    /// of this description; with a seed, threads take turns in an order drawn from it.
    ///
    /// # Errors
    /// Memory for the emulated card cannot be had.
    #[cfg(feature = "emulator")]
    pub fn emulated(description: Description, seed: Option<u64>) -> Result<Device> {
        Device::on_driver(Arc::new(crate::cuda::emulated::driver::Emulated::new(
            description,
            seed,
        )?))
    }

    /// The same device with a stream of its own, so that calls on the two need not wait for each
    /// other; tensors of one may be used on the other. On the CPU, the same device.
    ///
    /// # Errors
    /// What the driver reports.
    pub fn another_stream(&self) -> Result<Device> {
        match &self.kind {
            Kind::Cpu(_) => Ok(self.clone()),
            #[cfg(gpu)]
            Kind::Cuda(stream) => Device::on_driver(stream.driver.another_stream()?),
        }
    }

    /// A copy of a host tensor on the device, without padding; on the CPU, on the host. Calls
    /// that are given it put their results beside it, and need not wait for them.
    ///
    /// # Errors
    /// [`Error::Place`] where `tensor` is not on the host; out of memory.
    pub fn upload(&self, tensor: TensorRef<'_>) -> Result<Tensor> {
        match &self.kind {
            Kind::Cpu(_) => tensor.to_owned_host(),
            #[cfg(gpu)]
            Kind::Cuda(stream) => {
                Ok(Tensor::on_device(Resident::upload(stream, tensor)?, tensor.shape()))
            }
        }
    }

    /// On a device, memory for `len` elements that holds those of a host tensor again and again; on
    /// the CPU, the tensor itself.
    #[cfg(feature = "cli")]
    pub(crate) fn hold_repeated(&self, tensor: Tensor, len: usize) -> Result<Tensor> {
        match &self.kind {
            Kind::Cpu(_) => {
                let _ = len;
                Ok(tensor)
            }
            #[cfg(gpu)]
            Kind::Cuda(stream) => {
                let shape = Shape::new(&[len.max(tensor.view().elements())]);
                let memory = Resident::repeated(stream, tensor.view(), len)?;
                Ok(Tensor::on_device(memory, shape.unwrap_or(Shape::SCALAR)))
            }
        }
    }

    /// The tensor itself on the CPU, else a copy on the device.
    pub(crate) fn hold(&self, tensor: Tensor) -> Result<Tensor> {
        match &self.kind {
            Kind::Cpu(_) => Ok(tensor),
            #[cfg(gpu)]
            Kind::Cuda(_) => self.upload(tensor.view()),
        }
    }

    /// What comes on an emulated device's stream while `work` runs, kept instead of done.
    ///
    /// # Errors
    /// Those of `work`; a device that is not emulated.
    #[cfg(feature = "emulator")]
    #[doc(hidden)]
    pub fn capture(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        match &self.kind {
            Kind::Cuda(stream)
                if stream.driver.as_any().is::<crate::cuda::emulated::driver::Emulated>() =>
            {
                Graph::of(stream, work)
            }
            _ => Err(Error::Device { reason: "only an emulated device is captured so".into() }),
        }
    }

    /// What an emulated device's driver is asked while `work` runs, in order.
    ///
    /// # Errors
    /// Those of `work`; a device that is not emulated.
    #[cfg(feature = "emulator")]
    #[doc(hidden)]
    pub fn asked(&self, work: impl FnOnce() -> Result<()>) -> Result<Vec<Asked>> {
        if let Kind::Cuda(stream) = &self.kind
            && let Some(driver) =
                stream.driver.as_any().downcast_ref::<crate::cuda::emulated::driver::Emulated>()
        {
            driver.begin_trace();
            let done = work();
            let asked = driver.end_trace();
            return done.map(|()| asked);
        }
        Err(Error::Device { reason: "only an emulated device tells".into() })
    }

    /// Waits for the device, and gives the first error that one of its kernels found (a target
    /// out of range, a class weight that is not finite) since the last call, for results that
    /// stayed on the device. A call that returns a result to the host returns its own error.
    ///
    /// # Errors
    /// That error.
    pub fn check(&self) -> Result<()> {
        match &self.kind {
            Kind::Cpu(_) => Ok(()),
            #[cfg(gpu)]
            Kind::Cuda(cuda) => cuda.check(),
        }
    }

    /// Waits until everything that was asked of the device is done.
    ///
    /// # Errors
    /// What the driver reports.
    pub fn synchronize(&self) -> Result<()> {
        match &self.kind {
            Kind::Cpu(_) => Ok(()),
            #[cfg(gpu)]
            Kind::Cuda(cuda) => cuda.driver.synchronize(),
        }
    }

    /// Gives unused workspace back, but for what a captured graph names; returns its bytes. The
    /// CPU keeps none.
    pub fn trim(&self) -> usize {
        match &self.kind {
            Kind::Cpu(_) => 0,
            #[cfg(gpu)]
            Kind::Cuda(cuda) => cuda.pool.trim(),
        }
    }

    /// Bytes of global memory that kernels have read and written, where an emulator counts them.
    pub fn traffic(&self) -> Option<(u64, u64)> {
        match &self.kind {
            Kind::Cpu(_) => None,
            #[cfg(gpu)]
            Kind::Cuda(cuda) => cuda.driver.traffic(),
        }
    }

    /// What the device's driver was asked so far, where an emulator counts it.
    pub fn driver_calls(&self) -> Option<DriverCalls> {
        match &self.kind {
            Kind::Cpu(_) => None,
            #[cfg(gpu)]
            Kind::Cuda(cuda) => cuda.driver.calls(),
        }
    }

    /// Which schedules a CUDA device has run so far, as `loss dtype work: schedule`.
    pub fn schedules(&self) -> Vec<String> {
        match &self.kind {
            Kind::Cpu(_) => Vec::new(),
            #[cfg(gpu)]
            Kind::Cuda(cuda) => cuda.notes(),
        }
    }

    /// The name as the command line takes it: `cpu`, `cuda` or `emulated`.
    pub fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Cpu(_) => "cpu",
            #[cfg(gpu)]
            Kind::Cuda(cuda) => cuda.driver.name(),
        }
    }

    /// What it is, in words: a card's name, architecture and multiprocessors; a CPU's threads and
    /// instruction set.
    pub fn description(&self) -> String {
        match &self.kind {
            Kind::Cpu(cpu) => format!("{} threads, {}", cpu.threads(), cpu.simd()),
            #[cfg(gpu)]
            Kind::Cuda(cuda) => cuda.description(),
        }
    }

    /// What computations on the host run on.
    pub fn cpu_info(&self) -> CpuInfo {
        match &self.kind {
            Kind::Cpu(cpu) => CpuInfo { threads: cpu.threads(), simd: cpu.simd() },
            #[cfg(gpu)]
            Kind::Cuda(_) => Device::cpu().cpu_info(),
        }
    }

    /// Seconds that the device needs for `work`: on a GPU between two events of its stream.
    ///
    /// # Errors
    /// Those of `work`; what the driver reports.
    pub(crate) fn time(&self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        match &self.kind {
            Kind::Cpu(_) => {
                let begin = std::time::Instant::now();
                work()?;
                Ok(begin.elapsed().as_secs_f64())
            }
            #[cfg(gpu)]
            Kind::Cuda(cuda) => {
                let from = cuda.driver.moment()?;
                let done = work();
                let seconds = cuda.driver.seconds([from, cuda.driver.moment()?]);
                done.and(seconds)
            }
        }
    }

    /// Every kernel that the device can run, loaded, and what it takes; none on the CPU.
    #[cfg(all(feature = "cli", gpu))]
    pub(crate) fn kernels(&self) -> Vec<crate::cuda::stream::resources::Listed> {
        match &self.kind {
            Kind::Cpu(_) => Vec::new(),
            Kind::Cuda(stream) => stream.kernels(),
        }
    }

    /// Has rows gone through by a schedule from now on, wherever it can be; whether the device has
    /// schedules, and none was asked for before.
    #[cfg(all(feature = "cli", gpu))]
    pub(crate) fn force(&self, schedule: Forced) -> bool {
        match &self.kind {
            Kind::Cpu(_) => false,
            Kind::Cuda(stream) => stream.forced.set(schedule).is_ok(),
        }
    }

    /// Seconds that the kernels which go through rows take of `work`, between events of the stream;
    /// `None` where `work` launches none.
    ///
    /// # Errors
    /// Those of `work`; what the driver reports.
    #[cfg(feature = "cli")]
    pub(crate) fn time_rows(&self, work: impl FnOnce() -> Result<()>) -> Result<Option<f64>> {
        match &self.kind {
            Kind::Cpu(_) => work().map(|()| None),
            #[cfg(gpu)]
            Kind::Cuda(stream) => stream.laps.of(&*stream.driver, work),
        }
    }

    /// Memory for a result that a call is about to write, of the kind that `beside` lies in; on
    /// the host it is zeros. Memory that cannot be had is an error.
    pub(crate) fn zeros(
        &self,
        argument: &'static str,
        dtype: DType,
        shape: Shape,
        beside: &TensorRef<'_>,
    ) -> Result<Tensor> {
        match &self.kind {
            #[cfg(gpu)]
            Kind::Cuda(stream) if beside.place() == "device" => {
                let elements = shape.elements().unwrap_or(usize::MAX);
                let memory = Resident::new(argument, stream, dtype, elements)?;
                Ok(Tensor::on_device(memory, shape))
            }
            _ => {
                let _ = beside;
                Tensor::zeros(argument, dtype, shape)
            }
        }
    }

    /// What computes, if it can reach all memory: the CPU reaches the host's alone.
    pub(crate) fn kind_for(
        &self,
        argument: &'static str,
        places: &[&'static str],
    ) -> Result<&Kind> {
        let out_of_reach = match &self.kind {
            Kind::Cpu(_) => places.iter().find(|&&place| place != "host"),
            #[cfg(gpu)]
            Kind::Cuda(_) => None,
        };
        match out_of_reach {
            None => Ok(&self.kind),
            Some(got) => Err(Error::Place { argument, expected: "host", got }),
        }
    }
}
