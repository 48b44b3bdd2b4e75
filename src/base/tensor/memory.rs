//! What views look at: memory of the host, or of a device.

use crate::base::dtype::DType;
use crate::base::host::{HostMut, HostRef};
use crate::base::tensor::buffer::{DeviceMut, DeviceRef};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Shared<'a> {
    Host(HostRef<'a>),
    Device(DeviceRef<'a>),
}

#[derive(Debug)]
pub(crate) enum Exclusive<'a> {
    Host(HostMut<'a>),
    Device(DeviceMut<'a>),
}

impl Shared<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Shared::Host(host) => host.len(),
            Shared::Device(device) => device.len(),
        }
    }
    pub(crate) fn dtype(&self) -> DType {
        match self {
            Shared::Host(host) => host.dtype(),
            Shared::Device(device) => device.dtype(),
        }
    }
}
