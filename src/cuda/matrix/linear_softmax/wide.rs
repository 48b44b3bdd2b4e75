//! Losses over logits that are products of 16-bit rows of any number of features: for results alone, tile by tile, so
//! that no logits reach memory: `kernels/loss/linear_cross_entropy.cu`.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args;
use crate::code::args::{CrossEntropyArgs, LinearRowsArgs, LinearTileArgs};
use crate::code::variants::{Batch, Loss};
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::clusters::blocks;
use crate::cuda::matrix::products::Workspace;
use crate::cuda::matrix::wide_tiles;
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
    slot_rows: u64,
    slot_marks: u64,
    partials: u64,
    targets: u64,
    _workspace: Workspace<'p>,
}

impl<'p> Wide<'p> {
    pub(super) fn new(cuda: &'p Cuda, dtype: DType, [rows, classes]: [usize; 2]) -> Result<Self> {
        let mut workspace = Workspace::new(cuda, rows);
        let mut packed = |columns, dtype| Ok(workspace.packed(columns, dtype)?.address);
        Ok(Wide {
            cuda,
            forward: match dtype {
                DType::F16 => Batch::LinearForwardF16,
                _ => Batch::LinearForwardBf16,
            },
            splits: wide_tiles::splits(classes),
            slot_rows: packed(1, DType::I64)?,
            slot_marks: packed(1, DType::I64)?,
            partials: packed(columns(classes), DType::F32)?,
            targets: packed(1, DType::F32)?,
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
        let n = rows.rows.count;
        let packed = LinearRowsArgs {
            marks: rows.target.values,
            slot_rows: self.slot_rows,
            slot_marks: self.slot_marks,
            n,
            ..LinearRowsArgs::default()
        };
        let tiles = LinearTileArgs {
            row: *rows,
            hidden: hidden.address,
            weight: weight.address,
            slot_rows: self.slot_rows,
            slot_marks: self.slot_marks,
            partials: self.partials,
            targets: self.targets,
            width: *features as i64,
            hidden_stride: hidden.stride as i64,
            weight_stride: weight.stride as i64,
            end: rows.rows.classes,
            splits: self.splits as i64,
            ..LinearTileArgs::default()
        };
        let grid = ((n as usize).div_ceil(wide_tiles::ROWS) * self.splits) as u32;
        // SAFETY: the caller's promise; the workspace is as long as rows and splits need.
        unsafe {
            self.cuda.launch_batch(Batch::LinearPack, 1, args::bytes(&packed))?;
            self.cuda.launch_batch(self.forward, grid, args::bytes(&tiles))?;
            let threads = blocks(n as usize);
            self.cuda.launch_batch(Batch::LinearFinish, threads, args::bytes(&tiles))
        }
    }
}
