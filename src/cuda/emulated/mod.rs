//! The kernels on the host, as a driver.

pub(crate) mod driver;
mod product;
pub(crate) mod queues;
