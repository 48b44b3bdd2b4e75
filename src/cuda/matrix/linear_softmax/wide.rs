//! Losses over logits that are products of 16-bit rows of any number of features: for results alone, tile by tile, so
//! that no logits reach memory: `kernels/loss/linear_cross_entropy.cu`.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args::{CrossEntropyArgs, LinearTileArgs};
use crate::code::variants::{Batch, Loss};
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::products::Workspace;
use crate::cuda::matrix::wide_tiles;
use crate::cuda::matrix::wide_tiles::Slots;
use crate::cuda::stream::Cuda;

/// Columns of f32 that are kept of a row.
pub(super) fn columns(classes: usize) -> usize {
    wide_tiles::splits(classes) * Loss::CrossEntropy.words()
}

/// Rows, and what their logits are products of.
pub(super) struct Products {
    /// Without logits.
    pub(super) rows: CrossEntropyArgs,
    /// Of one type of 16 bits.
    pub(super) hidden: Panel,
    pub(super) weight: Panel,
    pub(super) features: usize,
}

/// Memory for what launches hand on, of so many rows.
pub(super) struct Wide<'p> {
    cuda: &'p Cuda,
    forward: Batch,
    splits: usize,
    /// Addresses.
    partials: u64,
    targets: u64,
    _workspace: Workspace<'p>,
}

impl<'p> Wide<'p> {
    pub(super) fn new(cuda: &'p Cuda, dtype: DType, [rows, classes]: [usize; 2]) -> Result<Self> {
        let mut workspace = Workspace::new(cuda, rows);
        Ok(Wide {
            cuda,
            forward: match dtype {
                DType::F16 => Batch::LinearForwardF16,
                _ => Batch::LinearForwardBf16,
            },
            splits: wide_tiles::splits(classes),
            partials: workspace.packed(columns(classes), DType::F32)?.address,
            targets: workspace.packed(1, DType::F32)?.address,
            _workspace: workspace,
        })
    }

    /// The rows' losses.
    ///
    /// # Safety
    /// Addresses are as long as the sizes say, the rows' marks are i64, and rows are no more than there is memory
    /// for, and one at the least.
    pub(super) unsafe fn forward(&self, products: &Products) -> Result<()> {
        let Products { rows, hidden, weight, features } = products;
        // SAFETY: rows, marks and products have the sizes, says the caller; the workspace is as long as rows and
        // splits need.
        unsafe {
            let slots = Slots::pack(self.cuda, rows.target.values, rows.rows.count)?;
            let tiles = LinearTileArgs {
                row: *rows,
                hidden: hidden.address,
                weight: weight.address,
                slot_rows: slots.rows,
                slot_marks: slots.marks,
                partials: self.partials,
                targets: self.targets,
                width: *features as i64,
                hidden_stride: hidden.stride as i64,
                weight_stride: weight.stride as i64,
                end: rows.rows.classes,
                splits: self.splits as i64,
                ..LinearTileArgs::default()
            };
            wide_tiles::launch(self.cuda, self.forward, &tiles)?;
            wide_tiles::finish(self.cuda, Batch::LinearFinish, &tiles)
        }
    }
}
