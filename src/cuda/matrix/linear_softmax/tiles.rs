//! Cross entropy over logits that are products of few features, of f32 hidden rows and 16-bit weights: logits
//! are made where they are needed and never reach memory, and only those of rows that there are:
//! `kernels/loss/linear_softmax.cu`.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args;
use crate::code::args::{CrossEntropyArgs, TileArgs};
use crate::code::variants::{Batch, Loss};
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::clusters::blocks;
use crate::cuda::matrix::products::Workspace;
use crate::cuda::stream::Cuda;

/// Features at most (`16 * WL_TILE_STEPS`).
const FEATURES: usize = 64;
/// Rows of a block, and of a tile (`WL_TILE_OWN`, `WL_TILE_OTHER`).
const OWN: usize = 128;
const TILE: usize = 64;
/// Tiles of a split at the least, and splits at most: enough blocks for a few rows to fill a GPU.
const TILES: usize = 8;
const SPLITS: usize = 64;
/// Words of what a row's gradient is made of (`CrossEntropy::Slopes`), and of its class.
const SLOPES: usize = 4 + 2;

/// The kernels of a type and of options.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernels {
    forward: Batch,
    finish: Batch,
    hidden: Batch,
    weight: Batch,
    /// Words that a split leaves of a row: a state, and the target's logit.
    partial: usize,
}

impl Kernels {
    /// Those for weights of a type and rows of so many features, if there are any. `full`: with soft-cap and
    /// label smoothing.
    pub(crate) fn of(dtype: DType, features: usize, full: bool) -> Option<Kernels> {
        if !(1..=FEATURES).contains(&features) {
            return None;
        }
        let [forward, hidden, weight] = match (dtype, full) {
            (DType::F16, false) => {
                [Batch::TileForwardF16, Batch::TileHiddenF16, Batch::TileWeightF16]
            }
            (DType::BF16, false) => {
                [Batch::TileForwardBf16, Batch::TileHiddenBf16, Batch::TileWeightBf16]
            }
            (DType::F16, true) => {
                [Batch::TileFullForwardF16, Batch::TileFullHiddenF16, Batch::TileFullWeightF16]
            }
            (DType::BF16, true) => {
                [Batch::TileFullForwardBf16, Batch::TileFullHiddenBf16, Batch::TileFullWeightBf16]
            }
            _ => return None,
        };
        let finish = if full { Batch::TileFullFinish } else { Batch::TileFinish };
        let loss = if full { Loss::CrossEntropyFull } else { Loss::CrossEntropy };
        Some(Kernels { forward, finish, hidden, weight, partial: loss.words() + 1 })
    }
}

/// Rows, and what their logits are products of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Products {
    /// Without logits.
    pub(crate) rows: CrossEntropyArgs,
    /// f32.
    pub(crate) hidden: Panel,
    pub(crate) weight: Panel,
    pub(crate) width: usize,
    /// Address of the number of rows that there are, of which these are those from `from` on; 0: all.
    pub(crate) count: u64,
    pub(crate) from: usize,
}

/// Kernels with memory for so many rows.
pub(crate) struct Tiles<'p> {
    cuda: &'p Cuda,
    kernels: Kernels,
    splits: usize,
    partials: u64,
    /// 0 without a backward pass.
    slopes: u64,
    _workspace: Workspace<'p>,
}

impl<'p> Tiles<'p> {
    /// Memory for `rows` rows of `width` features and `classes` classes, by a budget for what splits leave.
    pub(crate) fn new(
        cuda: &'p Cuda,
        kernels: Kernels,
        [rows, classes, width]: [usize; 3],
        budget: usize,
        back: bool,
    ) -> Result<Tiles<'p>> {
        let columns = if back { width.max(kernels.partial) } else { kernels.partial };
        let fit = budget / (4 * columns * rows).max(1);
        let tiles = classes.div_ceil(TILE);
        let splits = tiles.div_ceil(TILES).min(SPLITS).min(fit).max(1);
        let mut workspace = Workspace::new(cuda, rows);
        let partials = workspace.packed(splits * columns, DType::F32)?.address;
        let slopes = if back { workspace.packed(SLOPES, DType::F32)?.address } else { 0 };
        Ok(Tiles { cuda, kernels, splits, partials, slopes, _workspace: workspace })
    }

    fn args(&self, products: &Products) -> TileArgs {
        TileArgs {
            row: products.rows,
            hidden: products.hidden.address,
            weight: products.weight.address,
            count: products.count,
            partials: self.partials,
            slopes: self.slopes,
            width: products.width as i64,
            from: products.from as i64,
            hidden_stride: products.hidden.stride as i64,
            weight_stride: products.weight.stride as i64,
            splits: self.splits as i64,
            ..TileArgs::default()
        }
    }

    /// Blocks that each own some rows and a split of the classes.
    fn grid(&self, rows: i64) -> u32 {
        ((rows as usize).div_ceil(OWN) * self.splits) as u32
    }

    /// The rows' numbers.
    ///
    /// # Safety
    /// Addresses are as long as the sizes say, and rows no more than there is memory for; hidden rows are on
    /// the stream.
    pub(crate) unsafe fn forward(&self, products: &Products) -> Result<()> {
        let (args, rows) = (self.args(products), products.rows.rows.count);
        // SAFETY: addresses reach as far as the sizes say (the caller of this function promises it); the
        // workspace is as long as rows and splits need.
        unsafe {
            self.cuda.launch_batch(self.kernels.forward, self.grid(rows), args::bytes(&args))?;
            self.cuda.launch_batch(self.kernels.finish, blocks(rows as usize), args::bytes(&args))
        }
    }

    /// The gradients of the hidden rows and of the weights: where, and whether it is added to what is there.
    ///
    /// # Safety
    /// As for [`Tiles::forward`], which came before; `hidden` and `weight` have the sizes of what
    /// they are gradients of.
    pub(crate) unsafe fn back(
        &self,
        products: &Products,
        hidden: Panel,
        weight: Option<(Panel, bool)>,
    ) -> Result<()> {
        let to = |panel: Panel, add: bool| TileArgs {
            to: panel.address,
            to_stride: panel.stride as i64,
            to_kind: args::kind(panel.dtype),
            add: add.into(),
            ..self.args(products)
        };
        let (rows, classes) = (products.rows.rows.count, products.rows.rows.classes as usize);
        let hidden = to(hidden, false);
        // SAFETY: addresses reach as far as the sizes say (the caller of this function promises it); the
        // workspace is as long as rows and splits need, and `forward` has written what is read of it.
        unsafe {
            self.cuda.launch_batch(self.kernels.hidden, self.grid(rows), args::bytes(&hidden))?;
            let elements = blocks(rows as usize * products.width);
            self.cuda.launch_batch(Batch::TileHiddenSum, elements, args::bytes(&hidden))?;
            let Some((panel, add)) = weight else { return Ok(()) };
            let grid = classes.div_ceil(OWN) as u32;
            self.cuda.launch_batch(self.kernels.weight, grid, args::bytes(&to(panel, add)))
        }
    }
}
