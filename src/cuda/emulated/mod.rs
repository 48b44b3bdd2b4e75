//! The kernels on the host, as a driver.

pub(crate) mod driver;
pub(crate) mod graph;
pub(crate) mod idle;
mod product;
mod queues;
mod steps;
