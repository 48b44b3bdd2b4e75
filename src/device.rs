//! Where a loss is computed.

use crate::cpu::Cpu;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use crate::cuda::Cuda;
#[cfg(feature = "emulator")]
use crate::emulator::Description;
use crate::{DType, Error, Result, Shape, Tensor, TensorRef};
use std::sync::Arc;

/// A place that computes losses: cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub struct Device {
    kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Cpu(Arc<Cpu>),
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    Cuda(Arc<Cuda>),
}

/// Calls a loss on whichever device it is: both have a method of the same name and arguments.
macro_rules! on_device {
    ($device:expr, $argument:literal, $places:expr, $on:ident => $call:expr) => {
        match $device.kind_for($argument, &$places)? {
            $crate::device::Kind::Cpu($on) => $call,
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            $crate::device::Kind::Cuda($on) => $call,
        }
    };
}
pub(crate) use on_device;

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

    /// CUDA device `ordinal`, on a stream of its own. Host tensors are copied there and back.
    ///
    /// # Errors
    /// No driver or no such device, with the plain reason and what to install.
    #[cfg(feature = "cuda")]
    pub fn cuda(ordinal: usize) -> Result<Device> {
        let driver = Arc::new(crate::cuda::real::Real::new(ordinal)?);
        Ok(Device { kind: Kind::Cuda(Arc::new(Cuda::new(driver)?)) })
    }

    /// The CUDA device of the caller's stream; calls are ordered with the caller's own work.
    ///
    /// # Errors
    /// As [`Device::cuda`].
    #[cfg(feature = "cuda")]
    pub fn on_stream(stream: Arc<cudarc::driver::CudaStream>) -> Result<Device> {
        let driver = Arc::new(crate::cuda::real::Real::on_stream(stream)?);
        Ok(Device { kind: Kind::Cuda(Arc::new(Cuda::new(driver)?)) })
    }

    /// The CUDA kernels on the host, every thread by itself and every access checked, for a card
    /// of this description; with a seed, threads take turns in an order drawn from it.
    ///
    /// # Errors
    /// Memory for the emulated card cannot be had.
    #[cfg(feature = "emulator")]
    pub fn emulated(description: Description, seed: Option<u64>) -> Result<Device> {
        let driver = Arc::new(crate::cuda::emulated::Emulated::new(description, seed));
        Ok(Device { kind: Kind::Cuda(Arc::new(Cuda::new(driver)?)) })
    }

    /// Waits for the device, and gives the first error that one of its kernels found (a target
    /// out of range, a class weight that is not finite) since the last call.
    ///
    /// # Errors
    /// That error.
    pub fn check(&self) -> Result<()> {
        match &self.kind {
            Kind::Cpu(_) => Ok(()),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
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
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Kind::Cuda(cuda) => cuda.synchronize(),
        }
    }

    /// Gives unused workspace back; returns its bytes. The CPU keeps none.
    pub fn trim(&self) -> usize {
        match &self.kind {
            Kind::Cpu(_) => 0,
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Kind::Cuda(cuda) => cuda.trim(),
        }
    }

    /// Bytes of global memory that kernels have read and written, where an emulator counts them.
    pub fn traffic(&self) -> Option<(u64, u64)> {
        match &self.kind {
            Kind::Cpu(_) => None,
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Kind::Cuda(cuda) => cuda.traffic(),
        }
    }

    /// Which schedules a CUDA device has run so far, as `loss dtype work: schedule`.
    pub fn schedules(&self) -> Vec<String> {
        match &self.kind {
            Kind::Cpu(_) => Vec::new(),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Kind::Cuda(cuda) => cuda.notes(),
        }
    }

    /// The name as the command line takes it: `cpu`, `cuda` or `emulated`.
    pub fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Cpu(_) => "cpu",
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Kind::Cuda(cuda) => cuda.name(),
        }
    }

    /// What it is, in words: a card's name, architecture and multiprocessors; a CPU's threads and
    /// instruction set.
    pub fn description(&self) -> String {
        match &self.kind {
            Kind::Cpu(cpu) => format!("{} threads, {}", cpu.threads(), cpu.simd()),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Kind::Cuda(cuda) => cuda.description(),
        }
    }

    /// What computations on the host run on.
    pub fn cpu_info(&self) -> CpuInfo {
        match &self.kind {
            Kind::Cpu(cpu) => CpuInfo { threads: cpu.threads(), simd: cpu.simd() },
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Kind::Cuda(_) => Device::cpu().cpu_info(),
        }
    }

    /// A result of zeros, in the kind of memory that `_beside` lies in; memory that cannot be had is
    /// an error.
    pub(crate) fn zeros(
        &self,
        argument: &'static str,
        dtype: DType,
        shape: Shape,
        _beside: &TensorRef<'_>,
    ) -> Result<Tensor> {
        Tensor::zeros(argument, dtype, shape)
    }

    /// What computes, if it can reach all memory: the CPU reaches the host's alone.
    pub(crate) fn kind_for(
        &self,
        argument: &'static str,
        places: &[&'static str],
    ) -> Result<&Kind> {
        let out_of_reach = match &self.kind {
            Kind::Cpu(_) => places.iter().find(|&&place| place != "host"),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Kind::Cuda(_) => None,
        };
        match out_of_reach {
            None => Ok(&self.kind),
            Some(got) => Err(Error::Place { argument, expected: "host", got }),
        }
    }
}
