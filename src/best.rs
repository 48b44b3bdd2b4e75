//! The best device that is present.

use crate::device::Device;

impl Device {
    /// The best device present: the first CUDA device that works (feature `cuda`), else the CPU.
    pub fn best() -> Device {
        #[cfg(feature = "cuda")]
        if let Ok(device) = Device::cuda(0) {
            return device;
        }
        Device::cpu()
    }
}
