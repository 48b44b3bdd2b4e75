//! Matrices of parameters, their products, and a softmax whose logits are products.

pub(crate) mod bf16;
pub(crate) mod by_rows;
pub(crate) mod chunks;
pub(crate) mod convert;
pub(crate) mod gradient;
pub(crate) mod linear_softmax;
pub(crate) mod listed;
pub(crate) mod product;
pub(crate) mod scratch;
