//! Matrices of parameters, their products, and a softmax whose logits are products.

pub(crate) mod linear_softmax;
pub(crate) mod product;
pub(crate) mod scratch;
