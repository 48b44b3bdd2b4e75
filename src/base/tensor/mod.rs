//! Views of the caller's memory, and the owned results of allocating calls.
//!
//! A view is a shape, a row stride and memory that is checked to hold them, in `layout.rs` and
//! nowhere else: once a [`TensorRef`] or [`TensorMut`] exists, every element it names lies inside
//! its buffer. "Row" means an index of dimension 0: all other dimensions are contiguous, and rows
//! begin `row_stride` elements apart, so that a padded vocabulary needs no copy.

pub(crate) mod buffer;
mod copied;
mod into_vec;
mod layout;
mod memory;
#[cfg(feature = "ndarray")]
mod ndarray;
mod owned;
mod raw;
#[cfg(feature = "safetensors")]
pub(crate) mod safetensors;
mod shown;
mod strides;
mod view;

#[cfg(gpu)]
pub(crate) use memory::{Exclusive, Shared};
pub use owned::Tensor;
#[cfg(gpu)]
pub(crate) use view::on_host;
pub use view::{TensorMut, TensorRef};
