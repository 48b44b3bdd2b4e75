//! CUDA devices: on a GPU, and imitated.

#[cfg(feature = "emulator")]
use crate::base::error::Error;
use crate::base::error::Result;
use crate::cuda::backend::CudaBackend;
#[cfg(feature = "emulator")]
use crate::cuda::emulated::driver::Emulated;
#[cfg(feature = "emulator")]
use crate::cuda::emulated::graph::Graph;
#[cfg(feature = "emulator")]
use crate::cuda::emulated::idle::Idle;
#[cfg(feature = "cuda")]
use crate::cuda::real::driver::Real;
use crate::device::Device;
#[cfg(feature = "emulator")]
use crate::emulator::{Asked, Description};
use std::sync::Arc;

impl Device {
    /// CUDA device `ordinal`, on a stream of its own. Host tensors are copied there and back.
    ///
    /// # Errors
    /// No driver or no such device, with the plain reason and what to install.
    #[cfg(feature = "cuda")]
    pub fn cuda(ordinal: usize) -> Result<Device> {
        Ok(Device::new(CudaBackend::new(Arc::new(Real::new(ordinal)?))?))
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
        Ok(Device::new(CudaBackend::new(Arc::new(Real::on_stream(stream)?))?))
    }

    /// The CUDA kernels on the host, every thread by itself and every access checked, for a card
    /// of this description; with a seed, threads take turns in an order drawn from it.
    ///
    /// # Errors
    /// Memory for the emulated card cannot be had.
    #[cfg(feature = "emulator")]
    pub fn emulated(description: Description, seed: Option<u64>) -> Result<Device> {
        Ok(Device::new(CudaBackend::new(Arc::new(Emulated::new(description, seed)?))?))
    }

    /// A device whose driver does nothing of what it is asked, with the plans of a card of this description:
    /// what the host's part of a call costs.
    ///
    /// # Errors
    /// None.
    #[cfg(feature = "emulator")]
    #[doc(hidden)]
    pub fn idle(description: &Description) -> Result<Device> {
        Ok(Device::new(CudaBackend::new(Arc::new(Idle::new(description)))?))
    }

    /// What comes on an emulated device's stream while `work` runs, kept instead of done.
    ///
    /// # Errors
    /// Those of `work`; a device that is not emulated.
    #[cfg(feature = "emulator")]
    #[doc(hidden)]
    pub fn capture(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        match self.cuda_backend() {
            Some(cuda) => Graph::of(&cuda.stream.driver, cuda.stream.clone(), work),
            None => Err(Error::Device { reason: "only an emulated device is captured so".into() }),
        }
    }

    /// What an emulated device's driver is asked while `work` runs, in order.
    ///
    /// # Errors
    /// Those of `work`; a device that is not emulated.
    #[cfg(feature = "emulator")]
    #[doc(hidden)]
    pub fn asked(&self, work: impl FnOnce() -> Result<()>) -> Result<Vec<Asked>> {
        if let Some(cuda) = self.cuda_backend()
            && let Some(driver) = cuda.stream.driver.as_any().downcast_ref::<Emulated>()
        {
            driver.begin_trace();
            let done = work();
            let asked = driver.end_trace();
            return done.map(|()| asked);
        }
        Err(Error::Device { reason: "only an emulated device tells".into() })
    }

    /// Every kernel that the device can run, loaded, and what it takes; none on the CPU.
    #[cfg(feature = "cli")]
    pub(crate) fn kernels(&self) -> Vec<crate::cuda::stream::resources::Listed> {
        self.cuda_backend().map_or_else(Vec::new, |cuda| cuda.stream.kernels())
    }

    /// Whether a launch may begin before the one before it is done.
    #[cfg(feature = "cli")]
    pub(crate) fn early_launches(&self) -> bool {
        let on = |cuda: &CudaBackend| crate::cuda::driver::Turn::on(cuda.stream.driver.card().arch);
        self.cuda_backend().is_some_and(on)
    }

    /// Has rows gone through by a schedule from now on, wherever it can be; whether the device has
    /// schedules, and none was asked for before.
    #[cfg(feature = "cli")]
    pub(crate) fn force(&self, schedule: crate::code::plan::Forced) -> bool {
        self.cuda_backend().is_some_and(|cuda| cuda.stream.forced.set(schedule).is_ok())
    }

    #[cfg(any(feature = "cli", feature = "emulator"))]
    fn cuda_backend(&self) -> Option<&CudaBackend> {
        self.any().as_any().downcast_ref()
    }
}
