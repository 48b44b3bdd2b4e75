//! Products of matrices and what goes between them, and rows by cluster or by class.

pub(crate) mod accumulator;
pub(crate) mod block_sparse;
pub(crate) mod clusters;
pub(crate) mod factors;
pub(crate) mod linear_softmax;
pub(crate) mod products;
pub(crate) mod segment_sum;
pub(crate) mod slab_products;
pub(crate) mod wide_tiles;
