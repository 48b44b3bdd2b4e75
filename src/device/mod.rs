//! Where a loss is computed: a backend, behind one type.

pub(crate) mod backend;
pub(crate) mod facts;

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorRef};
use crate::device::backend::Backend;
use crate::device::facts::DriverCalls;
use std::sync::Arc;

/// A place that computes losses: cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub struct Device {
    backend: Arc<dyn Backend>,
}

impl Device {
    pub(crate) fn new(backend: impl Backend + 'static) -> Device {
        Device { backend: Arc::new(backend) }
    }

    /// The same device with a stream of its own, so that calls on the two need not wait for each
    /// other; tensors of one may be used on the other. On the CPU, the same device.
    ///
    /// # Errors
    /// What the driver reports.
    pub fn another_stream(&self) -> Result<Device> {
        let another = self.backend.another_stream()?;
        Ok(another.map_or_else(|| self.clone(), |backend| Device { backend }))
    }

    /// A copy of a host tensor on the device, without padding; on the CPU, on the host. Calls
    /// that are given it put their results beside it, and need not wait for them.
    ///
    /// # Errors
    /// [`Error::Place`] where `tensor` is not on the host; out of memory.
    pub fn upload(&self, tensor: TensorRef<'_>) -> Result<Tensor> {
        self.backend.upload(tensor)
    }

    /// On a device, memory for `len` elements that holds those of a host tensor again and again; on
    /// the CPU, the tensor itself.
    pub(crate) fn hold_repeated(&self, tensor: Tensor, len: usize) -> Result<Tensor> {
        self.backend.hold_repeated(tensor, len)
    }

    /// The tensor itself on the CPU, else a copy on the device.
    pub(crate) fn hold(&self, tensor: Tensor) -> Result<Tensor> {
        self.backend.hold(tensor)
    }

    /// Waits for the device, and gives the first error that one of its kernels found (a target
    /// out of range, a class weight that is not finite) since the last call, for results that
    /// stayed on the device. A call that returns a result to the host returns its own error.
    ///
    /// # Errors
    /// That error.
    pub fn check(&self) -> Result<()> {
        self.backend.check()
    }

    /// Waits until everything that was asked of the device is done.
    ///
    /// # Errors
    /// What the driver reports.
    pub fn synchronize(&self) -> Result<()> {
        self.backend.synchronize()
    }

    /// Gives unused workspace back, but for what a captured graph names; returns its bytes. The
    /// CPU keeps none.
    pub fn trim(&self) -> usize {
        self.backend.trim()
    }

    /// Bytes of global memory that kernels have read and written, where an emulator counts them.
    pub fn traffic(&self) -> Option<(u64, u64)> {
        self.backend.traffic()
    }

    /// What the device's driver was asked so far, where an emulator counts it.
    pub fn driver_calls(&self) -> Option<DriverCalls> {
        self.backend.driver_calls()
    }

    /// Which schedules a CUDA device has run so far, as `loss dtype work: schedule`.
    pub fn schedules(&self) -> Vec<String> {
        self.backend.schedules()
    }

    /// The name as the command line takes it: `cpu`, `cuda` or `emulated`.
    pub fn name(&self) -> &'static str {
        self.backend.name()
    }

    /// What it is, in words: a card's name, architecture and multiprocessors; a CPU's threads and
    /// instruction set.
    pub fn description(&self) -> String {
        self.backend.description()
    }

    /// Seconds that the device needs for `work`: on a GPU between two events of its stream.
    ///
    /// # Errors
    /// Those of `work`; what the driver reports.
    pub(crate) fn time(&self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        let mut work = Some(work);
        self.backend.time(&mut || work.take().map_or(Ok(()), |work| work()))
    }

    /// Seconds that the kernels which go through rows take of `work`, between events of the stream;
    /// `None` where `work` launches none.
    ///
    /// # Errors
    /// Those of `work`; what the driver reports.
    #[cfg(feature = "cli")]
    pub(crate) fn time_rows(&self, work: impl FnOnce() -> Result<()>) -> Result<Option<f64>> {
        let mut work = Some(work);
        self.backend.time_rows(&mut || work.take().map_or(Ok(()), |work| work()))
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
        self.backend.zeros(argument, dtype, shape, beside)
    }

    /// What computes, if it can reach all memory: the CPU reaches the host's alone.
    pub(crate) fn backend(
        &self,
        argument: &'static str,
        places: &[&'static str],
    ) -> Result<&dyn Backend> {
        let reaches = self.backend.reaches_devices();
        match places.iter().find(|&&place| place != "host" && !reaches) {
            None => Ok(&*self.backend),
            Some(got) => Err(Error::Place { argument, expected: "host", got }),
        }
    }

    /// What computes, for what its own kind of device alone gives.
    pub(crate) fn any(&self) -> &dyn Backend {
        &*self.backend
    }
}
