//! A GPU, by cudarc.

mod blas;
pub(crate) mod driver;
#[cfg(feature = "cli")]
pub(crate) mod found;
mod gpu;
mod occupancy;
mod probe;
mod queues;
pub(crate) mod slices;
