//! Rows of 16 bits and a classifier whose products are made tile by tile, of any number of features
//! (`kernels/tile/linear.cuh`): sizes of tiles, and where results alone are better made so.

use crate::code::card::Card;
use crate::code::variants::Batch;

/// Rows and classes of a tile (`WL_PIPE_OWN`, `WL_PIPE_OTHER`).
pub(crate) const ROWS: usize = 128;
pub(crate) const CLASSES: usize = 256;
/// Parts of the classes at most, and tiles of a part at the least: the classes alone say how many there are, as a
/// row's numbers depend on it. So few rows have blocks enough for a GPU, and many are not held up by what a block
/// begins with.
const SPLITS: usize = 64;
const TILES: usize = 2;
/// Bytes of shared memory that a block of tiles takes: stages of products, and states of its rows.
const SHARED: usize = Batch::LinearFullForwardF16.dynamic_shared() as usize + (13 << 10);
/// Rows of a chunk of which products read the classifier as fast as they multiply: of fewer, a forward pass that
/// reads it once for all rows is ahead. Not measured on a card.
const FEW: usize = 256;

/// Parts that so many classes are gone through in.
pub(crate) fn splits(classes: usize) -> usize {
    classes.div_ceil(TILES * CLASSES).clamp(1, SPLITS)
}

/// Whether a card has room for a block's stages.
pub(crate) fn fit(card: &Card) -> bool {
    card.shared_per_block >= SHARED
}

/// Whether a forward pass is ahead by tiles, of so many rows that go through a library's products a chunk at a time.
/// On sm_90 and sm_100 those are of instructions that tiles here do not use, and stay ahead.
pub(crate) fn lead(card: &Card, [rows, chunk]: [usize; 2]) -> bool {
    let behind = matches!(card.arch, 90..=119);
    !behind && chunk < FEW.min(rows)
}
