//! Several short rows at once: what `softmax.rs` and `gradient.rs` do with one. A row by itself costs some
//! hundreds of nanoseconds before its first element; here it shares them with fifteen others, and
//! logarithm and division as well.
//!
//! Sums are f32, over no more elements than [`SHORT`], and relative to the row's largest; the target's
//! exponential is kept apart from the others'.

mod entropy;
mod gradients;
mod lane;
mod plain;
mod ranks;
mod rows;
mod soft;
mod straight;
mod sums;
mod walk;

pub(crate) use entropy::{MomentSums, MomentTerms};
pub(crate) use lane::{Ahead, Lane, Lie, ROWS, SHORT, pitch};
pub(crate) use plain::Factors;
pub(crate) use rows::{NO_CLASS, Tile, TileSums, TileTerms};
pub(crate) use soft::{SoftTile, SoftTileSums, SoftTileTerms};
pub(crate) use straight::{Straight, Strip};
