//! What everything stands on: element types, shapes, tensors, errors. No loss, no device.

pub(crate) mod dtype;
pub(crate) mod error;
pub(crate) mod host;
pub(crate) mod lines;
mod names;
pub(crate) mod random;
pub(crate) mod reduction;
pub(crate) mod shape;
pub(crate) mod tensor;
pub(crate) mod validate;
