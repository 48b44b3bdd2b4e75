//! `--device`: which one is asked for, and the plain reason where it cannot be had.

use super::failure::Failure;
use super::typed;
use crate::device::Device;
use std::fmt;
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

/// What `--device` takes: a device, or for `check --differential` two, `A,B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Devices {
    first: DeviceChoice,
    second: Option<DeviceChoice>,
}

impl FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, second) = match text.split_once(',') {
            Some((first, second)) => (first, Some(second)),
            None => (text, None),
        };
        Ok(Devices { first: first.parse()?, second: second.map(str::parse).transpose()? })
    }
}

impl Devices {
    /// The one device of a command that computes on one.
    pub(super) fn one(self) -> Result<DeviceChoice, Failure> {
        match self.second {
            None => Ok(self.first),
            Some(_) => Err(Failure::input(
                "--device: expected one device, got two; two are for `check --differential`",
            )),
        }
    }

    /// The two of a command that compares them.
    pub(super) fn two(self) -> Result<[DeviceChoice; 2], Failure> {
        let missing = || Failure::input("--device: expected two devices, `A,B`, got one");
        Ok([self.first, self.second.ok_or_else(missing)?])
    }
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
    let asked = format!("{} cuda:{ordinal}", typed::device());
    Device::cuda(ordinal).map_err(|e| Failure::renamed(&e, &[("device", asked)]))
}

#[cfg(not(feature = "cuda"))]
fn cuda(ordinal: usize) -> Result<Device, Failure> {
    let asked = typed::device();
    Err(Failure::failed(format!(
        "{asked} cuda:{ordinal}: this build computes on the CPU only; it needs the feature `cuda`"
    )))
}

#[cfg(feature = "emulator")]
fn emulated() -> Result<Device, Failure> {
    Ok(Device::emulated(crate::emulator::Description::h100(), None)?)
}

#[cfg(not(feature = "emulator"))]
fn emulated() -> Result<Device, Failure> {
    let asked = typed::device();
    Err(Failure::failed(format!(
        "{asked} emulated: this build has no emulator; it needs the feature `emulator`"
    )))
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => write!(f, "auto"),
            DeviceChoice::Cpu => write!(f, "cpu"),
            DeviceChoice::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            DeviceChoice::Emulated => write!(f, "emulated"),
        }
    }
}

impl DeviceChoice {
    /// The device, or why there is none.
    pub(super) fn open(self) -> Result<Device, Failure> {
        match self {
            DeviceChoice::Auto => Ok(Device::default()),
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
    fn two_devices_are_for_commands_that_compare_them() {
        let devices: Devices = "cpu,cuda:1".parse().unwrap();
        assert_eq!(devices.two(), Ok([DeviceChoice::Cpu, DeviceChoice::Cuda(1)]));
        assert!(devices.one().unwrap_err().message.contains("got two"));
        let device: Devices = "cpu".parse().unwrap();
        assert_eq!(device.one(), Ok(DeviceChoice::Cpu));
        assert!(device.two().unwrap_err().message.contains("got one"));
        for wrong in ["cpu,", ",cpu", "cpu,gpu", "cpu,cpu,cpu", "cpu, cpu"] {
            assert!(wrong.parse::<Devices>().is_err(), "{wrong}");
        }
    }

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
