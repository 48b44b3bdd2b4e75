//! The softmax of a cluster with few features, of f32 hidden rows and 16-bit weights: logits are made where they
//! are needed and never reach memory, and only those of rows that the cluster has:
//! `kernels/loss/linear_softmax.cu`.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args;
use crate::code::args::NarrowArgs;
use crate::code::variants::Batch;
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::clusters::blocks;
use crate::cuda::matrix::linear_softmax::{Growing, Part, Softmax};
use crate::cuda::matrix::products::Workspace;
use crate::cuda::stream::Cuda;

/// Features at most (`16 * WL_NARROW_STEPS`).
const FEATURES: usize = 64;
/// Rows of a block, and of a tile (`WL_NARROW_OWN`, `WL_NARROW_OTHER`).
const OWN: usize = 128;
const TILE: usize = 64;
/// Tiles of a split at the least, and splits at most: enough blocks for a few rows to fill a GPU.
const TILES: usize = 8;
const SPLITS: usize = 64;

/// The kernels of a type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernels {
    forward: Batch,
    hidden: Batch,
    weight: Batch,
}

impl Kernels {
    /// Those for a layer, if there are any: of a cluster, whose number of rows is on the device.
    pub(crate) fn of(softmax: &Softmax<'_>) -> Option<Kernels> {
        let fits = softmax.projection.is_some() && (1..=FEATURES).contains(&softmax.width);
        match softmax.input.dtype {
            DType::F16 if fits => Some(Kernels {
                forward: Batch::NarrowForwardF16,
                hidden: Batch::NarrowHiddenF16,
                weight: Batch::NarrowWeightF16,
            }),
            DType::BF16 if fits => Some(Kernels {
                forward: Batch::NarrowForwardBf16,
                hidden: Batch::NarrowHiddenBf16,
                weight: Batch::NarrowWeightBf16,
            }),
            _ => None,
        }
    }
}

/// Kernels with memory for a chunk of slots.
pub(crate) struct Narrow<'p> {
    cuda: &'p Cuda,
    kernels: Kernels,
    splits: usize,
    partials: u64,
    scale: u64,
    miss: u64,
    _workspace: Workspace<'p>,
}

impl<'p> Narrow<'p> {
    pub(crate) fn new(
        softmax: &Softmax<'p>,
        kernels: Kernels,
        rows: usize,
        back: bool,
    ) -> Result<Narrow<'p>> {
        let columns = if back { softmax.width.max(3) } else { 3 };
        let fit = softmax.budget / (4 * columns * rows).max(1);
        let tiles = softmax.classes.div_ceil(TILE);
        let splits = tiles.div_ceil(TILES).min(SPLITS).min(fit).max(1);
        let mut workspace = Workspace::new(softmax.cuda, rows);
        let mut of_rows = |columns: usize| workspace.panel(columns, DType::F32);
        let [partials, scale, miss] = [of_rows(splits * columns)?, of_rows(2)?, of_rows(1)?];
        Ok(Narrow {
            cuda: softmax.cuda,
            kernels,
            splits,
            partials: partials.address,
            scale: scale.address,
            miss: miss.address,
            _workspace: workspace,
        })
    }

    fn args(&self, part: &Part<'_, '_>) -> NarrowArgs {
        let (softmax, buffers, from) = (part.softmax, part.buffers, part.from as u64);
        NarrowArgs {
            hidden: buffers.hidden.address,
            weight: softmax.linear.weight.address,
            targets: part.places().marks,
            factors: softmax.slots.factors + 4 * from,
            count: softmax.slots.count,
            partials: self.partials,
            scale: self.scale,
            miss: self.miss,
            nll: buffers.nll,
            n: part.n as i64,
            classes: softmax.classes as i64,
            width: softmax.width as i64,
            from: part.from as i64,
            hidden_stride: buffers.hidden.stride as i64,
            weight_stride: softmax.linear.weight.stride as i64,
            splits: self.splits as i64,
            ..NarrowArgs::default()
        }
    }

    /// Blocks that each own some slots and a split of the classes.
    fn grid(&self, n: usize) -> u32 {
        (n.div_ceil(OWN) * self.splits) as u32
    }

    /// The losses of a part's slots.
    ///
    /// # Safety
    /// The part's hidden rows are on the stream.
    pub(crate) unsafe fn forward(&self, part: &Part<'_, '_>) -> Result<()> {
        let args = self.args(part);
        // SAFETY: the caller's contract; the workspace is as long as slots and splits need.
        unsafe {
            self.cuda.launch_batch(self.kernels.forward, self.grid(part.n), args::bytes(&args))?;
            self.cuda.launch_batch(Batch::NarrowLoss, blocks(part.n), args::bytes(&args))
        }
    }

    /// The gradients of the part's hidden rows and, added up, of the weights.
    ///
    /// # Safety
    /// As for [`Narrow::forward`], which came before.
    pub(crate) unsafe fn back(
        &self,
        part: &Part<'_, '_>,
        weight: Option<&Growing<'_>>,
    ) -> Result<()> {
        let to = |panel: Panel, add: bool| NarrowArgs {
            to: panel.address,
            to_stride: panel.stride as i64,
            to_kind: args::kind(panel.dtype),
            add: add.into(),
            ..self.args(part)
        };
        let (hidden, classes) = (to(part.buffers.d_hidden, false), part.softmax.classes);
        let grid = self.grid(part.n);
        // SAFETY: the caller's contract; the workspace is as long as slots and splits need.
        unsafe {
            self.cuda.launch_batch(self.kernels.hidden, grid, args::bytes(&hidden))?;
            let elements = blocks(part.n * part.softmax.width);
            self.cuda.launch_batch(Batch::NarrowHiddenSum, elements, args::bytes(&hidden))?;
            let Some(weight) = weight else { return Ok(()) };
            let (panel, add) = weight.target(part.first);
            let grid = classes.div_ceil(OWN) as u32;
            self.cuda.launch_batch(self.kernels.weight, grid, args::bytes(&to(panel, add)))
        }
    }
}
