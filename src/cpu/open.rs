//! The CPU as a device.

use crate::base::error::Result;
use crate::cpu::processor::Cpu;
use crate::device::Device;
use crate::device::facts::CpuInfo;

impl Device {
    /// The CPU, with the threads of rayon's global pool (or of the pool that the caller is in).
    #[must_use]
    pub fn cpu() -> Device {
        Device::new(Cpu::new())
    }

    /// The CPU, with a pool of `threads` threads of its own.
    ///
    /// # Errors
    /// `threads` is 0, or the threads cannot be had.
    pub fn cpu_with_threads(threads: usize) -> Result<Device> {
        Ok(Device::new(Cpu::with_threads(threads)?))
    }

    /// The CPU at each instruction set that this machine has, the plainest first.
    #[doc(hidden)]
    pub fn cpu_levels() -> Vec<Device> {
        Cpu::levels().into_iter().map(Device::new).collect()
    }

    /// What computations on the host run on.
    pub fn cpu_info(&self) -> CpuInfo {
        self.any().cpu_info().unwrap_or_else(|| {
            let cpu = Cpu::new();
            CpuInfo { threads: cpu.threads(), simd: cpu.simd() }
        })
    }
}
