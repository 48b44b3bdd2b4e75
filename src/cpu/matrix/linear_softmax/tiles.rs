//! How products are cut into tasks, and logits made so.

use crate::cpu::matrix::product::{Panel, product};
use crate::cpu::processor::Cpu;
use std::ops::Range;

/// Tasks that a step is cut into at least, where it is large enough.
pub(super) const TASKS: usize = 16;
/// Rows of a tile at most: for as many the weights' order is changed once.
const ROWS: usize = 512;
/// Logits of a tile at most: half of a second-level cache.
const LOGITS: usize = 128 * 1024;

/// Lengths of pieces that make [`TASKS`] of `len`: few in number, a multiple of some vectors, `most` at most.
pub(super) fn piece(len: usize, most: usize) -> usize {
    len.div_ceil(TASKS).next_multiple_of(64).min(most.max(64))
}

/// A matrix cut into tiles.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    sizes: [usize; 2],
    tile: [usize; 2],
}

impl Tiles {
    pub(super) fn new(sizes: [usize; 2], tile: [usize; 2]) -> Tiles {
        Tiles { sizes, tile }
    }

    pub(super) fn count(self) -> usize {
        self.along(0) * self.along(1)
    }

    fn along(self, dimension: usize) -> usize {
        self.sizes[dimension].div_ceil(self.tile[dimension])
    }

    /// The rows and columns of a task.
    pub(super) fn of(self, task: usize) -> [Range<usize>; 2] {
        let places = [task / self.along(1), task % self.along(1)];
        [0, 1].map(|d| {
            let from = places[d] * self.tile[d];
            from..(from + self.tile[d]).min(self.sizes[d])
        })
    }
}

/// `hidden · weightᵀ + bias`, a tile of rows and classes a task; sizes are rows, classes and width.
///
/// # Safety
/// The panels have those elements; those of `out` are written by nobody else.
pub(crate) unsafe fn logits(
    cpu: &Cpu,
    [hidden, weight]: [Panel; 2],
    bias: Option<&[f32]>,
    out: Panel,
    [rows, classes, width]: [usize; 3],
) {
    let of_tile = rows.clamp(1, ROWS);
    let tiles = Tiles::new([rows, classes], [of_tile, piece(classes, LOGITS / of_tile)]);
    cpu.share(tiles.count(), 1, &|task| {
        let [rows, classes] = tiles.of(task);
        // SAFETY: rows and classes of this task alone, which the panels have: the caller's promise.
        unsafe {
            let weight = weight.at(classes.start, 0).transposed();
            let out = out.at(rows.start, classes.start);
            let sizes = [rows.len(), classes.len(), width];
            product(false, out, [hidden.at(rows.start, 0), weight], sizes);
            if let Some(bias) = bias {
                for row in 0..rows.len() {
                    let z = out.row(row, classes.len());
                    z.iter_mut().zip(&bias[classes.clone()]).for_each(|(z, bias)| *z += bias);
                }
            }
        }
    });
}
