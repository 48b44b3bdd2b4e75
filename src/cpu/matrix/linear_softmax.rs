//! One softmax over classes whose logits are products: a head, or a cluster.
//!
//! Two ways. Where all logits fit into a modest buffer they are *stored*: made once, turned into
//! their gradient in place, and multiplied out (`stored.rs`). Where they do not they are *tiled*:
//! a tile of some rows and some hundred classes is made in cache, twice, once for the sums and once
//! for the gradient (`tiled.rs`); a wide cluster has narrow rows, which makes the second product
//! cheaper than the memory would be. Which way and in what pieces depends on sizes alone, so the
//! bits do not depend on the number of threads.

pub(crate) mod operands;
pub(crate) mod stored;
mod tiled;
pub(crate) mod tiles;

use crate::base::error::Result;
use crate::cpu::matrix::linear_softmax::operands::{Backward, STORED, Softmax};
use crate::cpu::matrix::linear_softmax::stored::block;

impl Softmax<'_> {
    /// Log-probability of each row's class, and the gradient if asked for.
    pub(crate) fn run(&self, output: &mut [f64], backward: Option<Backward<'_>>) -> Result<()> {
        let of = |rows: usize| rows.saturating_mul(self.weight.rows);
        let rows = self.targets.len();
        // Of wide rows the second product costs more than memory does, as long as a block's logits
        // can be had.
        let wide = self.weight.columns >= 256 && of(block(rows)) <= 4 * STORED;
        if of(rows) <= STORED || wide {
            self.stored(output, backward)
        } else {
            self.tiled(output, backward)
        }
    }
}
