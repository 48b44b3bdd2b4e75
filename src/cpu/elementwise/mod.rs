//! Elementwise losses: tiles of the broadcast shape, spread over threads.
//!
//! `spec/elementwise/space.rs` knows where elements lie, `tiles.rs` brings a tile's together,
//! `pass.rs` is the loop over a tile, `sum_back.rs` sums the gradient of a tensor that was
//! broadcast, `call.rs` puts them together. None of them knows which losses there are: a loss is an
//! `ElementLoss` in its own file, and `loss/elementwise.rs` hands the loop of the right one in.

pub(crate) mod call;
pub(crate) mod pass;
mod sum_back;
mod tiles;
