//! Views of the caller's memory, and the owned results of allocating calls.
//!
//! A view is a shape, a row stride and memory that is checked to hold them, in `layout.rs` and
//! nowhere else: once a [`TensorRef`] or [`TensorMut`] exists, every element it names lies inside
//! its buffer. "Row" means an index of dimension 0: all other dimensions are contiguous, and rows
//! begin `row_stride` elements apart, so that a padded vocabulary needs no copy.

pub(crate) mod buffer;
mod layout;
mod owned;
mod view;

pub use owned::Tensor;
#[cfg(gpu)]
pub(crate) use view::on_host;
pub use view::{TensorMut, TensorRef};

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
    fn len(&self) -> usize {
        match self {
            Shared::Host(host) => host.len(),
            Shared::Device(device) => device.len(),
        }
    }
    fn dtype(&self) -> DType {
        match self {
            Shared::Host(host) => host.dtype(),
            Shared::Device(device) => device.dtype(),
        }
    }
}
