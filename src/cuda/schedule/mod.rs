//! From a plan to launches: rows, elements, blocks of them on the host, and the numbers that rows share.

pub(crate) mod batch;
pub(crate) mod blocks;
pub(crate) mod elements;
pub(crate) mod lines;
pub(crate) mod operands;
pub(crate) mod place;
pub(crate) mod rows;
mod top;
pub(crate) mod upstream;
