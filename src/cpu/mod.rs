//! The CPU device: rayon over lines, vectors along them. `simd/`: the instruction sets; `row/`: one row
//! worked on; `batch/`: the rows of a batch, their targets and results; `elementwise/`: losses of one
//! element; `matrix/`: products, and a softmax over them; `loss/`: one file a loss.

mod backend;
mod batch;
mod elementwise;
mod loss;
mod matrix;
mod open;
pub(crate) mod processor;
mod row;
pub(crate) mod simd;
mod threads;
