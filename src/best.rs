//! The best device that is present.

use crate::device::Device;

impl Device {
    /// The best device present: the first CUDA device that works (feature `cuda`), else the CPU.
    #[must_use]
    pub fn best() -> Device {
        #[cfg(feature = "cuda")]
        if let Ok(device) = Device::cuda(0) {
            return device;
        }
        Device::cpu()
    }
}

/// [`Device::best`], which the command line calls `auto`.
///
/// ```
/// use warploss::Device;
///
/// assert_eq!(Device::default().name(), Device::best().name());
/// ```
impl Default for Device {
    fn default() -> Device {
        Device::best()
    }
}
