//! Matrices of parameters, their products, and a softmax whose logits are products.

pub(crate) mod bf16;
pub(crate) mod convert;
pub(crate) mod linear_softmax;
pub(crate) mod product;
pub(crate) mod right;
pub(crate) mod scratch;
