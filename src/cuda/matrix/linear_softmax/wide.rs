//! Losses over logits that are products by weights of 16 bits, of any number of features, made tile by tile, so that no
//! logits reach memory: `kernels/loss/linear_cross_entropy.cu`. A head's rows are of the weights' type; a cluster's are
//! f32, and multiplied as parts of that type side by side.

use super::operands::Softmax;
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args::{CrossEntropyArgs, LinearTileArgs};
use crate::code::variants::Loss;
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::factors::{SUM, tile_terms, two_parts};
use crate::cuda::matrix::products::{Workspace, padded};
use crate::cuda::matrix::slab_products::{Extent, Slab, SlabProducts, To};
use crate::cuda::matrix::wide_tiles;
use crate::cuda::matrix::wide_tiles::{CLASSES, Kernels, Slots};
use crate::cuda::stream::Cuda;

/// Rows of a chunk, and classes of a slab (0 without a backward pass).
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub(super) rows: usize,
    slab: usize,
}

impl Softmax<'_> {
    /// What goes by tiles at once, where that is ahead.
    pub(super) fn wide(&self, back: bool) -> Option<Chunk> {
        let card = self.cuda.driver.card();
        if self.dtype() == DType::F32 || !wide_tiles::fit(card) {
            return None;
        }
        let sizes = [self.slots.len, self.chunk(self.classes)];
        if !back {
            let rows = self.chunk_of(self.budget, self.wide_columns());
            return wide_tiles::lead(card, sizes).then_some(Chunk { rows, slab: 0 });
        }
        let of_tile = |n: usize| self.extent(n).of_slab(CLASSES.min(self.classes));
        // Whatever the rows, a slab's weights may take parts.
        let room = self.budget.checked_sub(of_tile(0))?;
        let columns = ((of_tile(1) - of_tile(0)) / 4).max(self.wide_columns());
        let columns = columns.max(two_parts(self.width) / 2).max(self.width);
        let rows = self.chunk_of(room, columns);
        let slab = self.extent(rows).slab(self.budget);
        let fits = self.extent(rows).of_slab(slab) <= self.budget;
        (fits && wide_tiles::lead_back(card, sizes, [rows, slab])).then_some(Chunk { rows, slab })
    }

    /// Columns of f32 that the longest of a row's buffers takes, without those of a backward pass.
    fn wide_columns(&self) -> usize {
        let states = wide_tiles::splits(self.classes) * self.kernels().state;
        match self.projection {
            Some(_) => states.max(self.width).max(padded(self.terms()) / 2),
            None => states,
        }
    }

    fn kernels(&self) -> Kernels {
        Kernels::of(self.dtype(), Loss::CrossEntropy)
    }

    /// Features of a hidden row as tiles multiply it.
    fn terms(&self) -> usize {
        match self.projection {
            Some(_) => tile_terms(self.dtype(), self.width),
            None => self.width,
        }
    }

    fn extent(&self, n: usize) -> Extent {
        Extent { n, features: self.width, classes: self.classes, dtype: self.dtype() }
    }
}

/// Memory for what launches hand on, of a chunk's rows.
pub(super) struct Wide<'p> {
    cuda: &'p Cuda,
    weight: Panel,
    /// Features of the weights.
    width: usize,
    kernels: Kernels,
    splits: usize,
    /// Parts of the hidden rows, where these are not of the weights' type.
    parts: Option<Panel>,
    /// Addresses; 0 where there are none.
    scales: u64,
    partials: u64,
    targets: u64,
    slopes: u64,
    back: Option<SlabProducts<'p>>,
    _workspace: Workspace<'p>,
}

/// Rows whose losses are made, for products back.
pub(super) struct Pass<'p> {
    slots: Slots<'p>,
    tiles: LinearTileArgs,
}

impl<'p> Pass<'p> {
    pub(super) fn slots(&self) -> &Slots<'p> {
        &self.slots
    }
}

impl<'p> Wide<'p> {
    /// For chunks; `back`: gradients of hidden rows and of a bias, as they are wanted.
    pub(super) fn new(
        softmax: &Softmax<'p>,
        chunk: Chunk,
        back: Option<[bool; 2]>,
    ) -> Result<Wide<'p>> {
        let (cuda, dtype, rows) = (softmax.cuda, softmax.dtype(), chunk.rows);
        let kernels = softmax.kernels();
        let splits = wide_tiles::splits(softmax.classes);
        let mut workspace = Workspace::new(cuda, rows);
        let parts = match softmax.projection {
            Some(_) => Some(workspace.panel(softmax.terms(), dtype)?),
            None => None,
        };
        let mut address = |there: bool, words: usize| -> Result<u64> {
            Ok(if there { workspace.packed(words, DType::F32)?.address } else { 0 })
        };
        let half = dtype == DType::F16;
        let slab = Slab { classes: chunk.slab, round: false, filter: false, room: SUM };
        Ok(Wide {
            cuda,
            weight: softmax.linear.weight,
            width: softmax.width,
            kernels,
            splits,
            parts,
            scales: address(parts.is_some() && half, 1)?,
            partials: address(true, splits * kernels.state)?,
            targets: address(true, 1)?,
            slopes: address(back.is_some(), kernels.slopes)?,
            back: match back {
                Some(of) => Some(SlabProducts::new(cuda, softmax.extent(rows), slab, of)?),
                None => None,
            },
            _workspace: workspace,
        })
    }

    /// The losses of rows, whose logits are products of `hidden`.
    ///
    /// # Safety
    /// Addresses are as long as the sizes say, the rows' marks are i64, and rows are no more than there is memory
    /// for, and one at the least.
    pub(super) unsafe fn forward(&self, row: CrossEntropyArgs, hidden: Panel) -> Result<Pass<'p>> {
        let cuda = self.cuda;
        // SAFETY: rows, marks and products have the sizes, says the caller; the workspace is as long as rows and
        // splits need.
        unsafe {
            let slots = Slots::pack(cuda, row.target.values, row.rows.count)?;
            let (hidden, width) = match self.parts {
                Some(parts) => {
                    let sizes = [row.rows.count as usize, self.width];
                    cuda.tile_rows(hidden, (parts, self.scales), sizes)?;
                    (parts, tile_terms(parts.dtype, self.width))
                }
                None => (hidden, self.width),
            };
            let tiles = LinearTileArgs {
                row,
                hidden: hidden.address,
                weight: self.weight.address,
                temperature: self.scales,
                slot_rows: slots.rows,
                slot_marks: slots.marks,
                partials: self.partials,
                targets: self.targets,
                slopes: self.slopes,
                width: width as i64,
                weight_width: self.width as i64,
                hidden_stride: hidden.stride as i64,
                weight_stride: self.weight.stride as i64,
                end: row.rows.classes,
                splits: self.splits as i64,
                ..LinearTileArgs::default()
            };
            wide_tiles::launch(cuda, self.kernels.forward, &tiles)?;
            wide_tiles::finish(cuda, self.kernels.finish, &tiles)?;
            Ok(Pass { slots, tiles })
        }
    }

    /// Gradients of rows whose losses are on the stream.
    ///
    /// # Safety
    /// As for [`Wide::forward`]; what `to` names has the sizes of what it is the gradient of.
    pub(super) unsafe fn back(&self, pass: &Pass<'p>, to: &To) -> Result<()> {
        let Some(back) = &self.back else { return Ok(()) };
        let n = pass.tiles.row.rows.count as usize;
        // SAFETY: the weights have the softmax's sizes, and the rest is the caller's promise.
        unsafe { back.run((self.kernels.gradient, &pass.tiles), (n, self.weight), to) }
    }
}
