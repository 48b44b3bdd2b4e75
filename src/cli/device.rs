//! `--device`: which one is asked for, and the plain reason where it cannot be had.

use super::failure::Failure;
use crate::Device;
use std::str::FromStr;

/// What `--device` and `WARPLOSS_DEVICE` take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeviceChoice {
    /// The first CUDA device that works, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by number.
    Cuda(usize),
    /// The kernels on the host, in builds with that feature.
    Emulated,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = match text {
            "auto" => Some(DeviceChoice::Auto),
            "cpu" => Some(DeviceChoice::Cpu),
            "cuda" => Some(DeviceChoice::Cuda(0)),
            "emulated" => Some(DeviceChoice::Emulated),
            _ => text
                .strip_prefix("cuda:")
                .filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|n| n.parse().ok())
                .map(DeviceChoice::Cuda),
        };
        known.ok_or_else(|| "expected auto, cpu, cuda, cuda:N or emulated".into())
    }
}

#[cfg(feature = "cuda")]
fn cuda(ordinal: usize) -> Result<Device, Failure> {
    Ok(Device::cuda(ordinal)?)
}

#[cfg(not(feature = "cuda"))]
fn cuda(ordinal: usize) -> Result<Device, Failure> {
    Err(Failure::failed(format!(
        "--device cuda:{ordinal}: this build computes on the CPU only; it needs the feature `cuda`"
    )))
}

#[cfg(feature = "emulator")]
fn emulated() -> Result<Device, Failure> {
    Ok(Device::emulated(crate::emulator::Description::h100(), None)?)
}

#[cfg(not(feature = "emulator"))]
fn emulated() -> Result<Device, Failure> {
    Err(Failure::failed(
        "--device emulated: this build has no emulator; it needs the feature `emulator`",
    ))
}

impl DeviceChoice {
    /// The device, or why there is none.
    pub(super) fn open(self) -> Result<Device, Failure> {
        match self {
            DeviceChoice::Auto => Ok(Device::best()),
            DeviceChoice::Cpu => Ok(Device::cpu()),
            DeviceChoice::Cuda(ordinal) => cuda(ordinal),
            DeviceChoice::Emulated => emulated(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_documented() {
        assert_eq!("cuda:11".parse(), Ok(DeviceChoice::Cuda(11)));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda:+1", "CPU", "cuda:99999999999999999999"]
        {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }
}
