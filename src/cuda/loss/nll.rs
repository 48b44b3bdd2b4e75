//! Negative log-likelihood on a CUDA device: `kernels/loss/nll.cu` after a census.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args;
use crate::code::args::NllArgs;
use crate::code::variants::{BATCH_THREADS, Batch, PACK_BYTES};
use crate::cuda::schedule::batch::Census;
use crate::cuda::schedule::lines::count;
use crate::cuda::schedule::upstream::Upstream;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::indices::Indices;
use crate::cuda::stream::memory::Input;
use crate::spec::grad_output::GradOutput;
use crate::spec::nll::{CheckedNll, Positions};

/// Most blocks of a launch; a thread goes on to what is left.
const MAX_BLOCKS: usize = 1 << 16;
/// Packs of a stretch of a row: 4 KiB, eight stores a lane.
const SLICE: usize = 256;
/// Classes that a thread writes for a pack of positions (`WL_NLL_CLASSES`).
const CLASSES: usize = 32;

impl Cuda {
    pub(crate) fn nll_forward(
        &self,
        checked: &CheckedNll<'_>,
        input: TensorRef<'_>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let x = self.input("input", input)?;
        let positions = Positions::new(&x.shape, x.row_stride);
        let loss = self.output("loss", loss, false)?;
        let batch = Call::new(self, checked, &GradOutput::default())?;
        let mut args = batch.args(checked, positions, args::kind(x.dtype))?;
        args.x = x.address;
        self.pick(&batch, args, loss.address)?;
        self.read_back([Some(loss)])
    }

    pub(crate) fn nll_backward(
        &self,
        checked: &CheckedNll<'_>,
        grad_output: GradOutput<'_>,
        grad_input: TensorMut<'_>,
    ) -> Result<()> {
        let y = self.output("grad_input", grad_input, false)?;
        let positions = Positions::new(&y.shape, y.row_stride);
        let batch = Call::new(self, checked, &grad_output)?;
        let mut args = batch.args(checked, positions, args::kind(y.dtype))?;
        args.y = y.address;
        self.spread(args, positions, y.dtype.size())?;
        self.read_back([Some(y)])
    }

    pub(crate) fn nll_forward_backward(
        &self,
        checked: &CheckedNll<'_>,
        input: TensorMut<'_>,
        grad_output: GradOutput<'_>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let x = self.output("input", input, true)?;
        let positions = Positions::new(&x.shape, x.row_stride);
        let loss = self.output("loss", loss, false)?;
        let batch = Call::new(self, checked, &grad_output)?;
        let mut args = batch.args(checked, positions, args::kind(x.dtype))?;
        (args.x, args.y) = (x.address, x.address);
        // All is picked before anything is overwritten: launches are in order.
        self.pick(&batch, args, loss.address)?;
        self.spread(args, positions, x.dtype.size())?;
        self.read_back([Some(loss), Some(x)])
    }

    /// Losses of rows, and what they add up to.
    fn pick(&self, batch: &Call<'_>, mut args: NllArgs, loss: u64) -> Result<()> {
        let rows = args.rows as usize;
        let workspace;
        args.loss = match batch.reduction {
            Reduction::None => loss,
            Reduction::Sum | Reduction::Mean | Reduction::BatchMean => {
                workspace = self.pool.take("workspace", rows * 8)?;
                args.wide = 1;
                workspace.address()
            }
        };
        let blocks = rows.div_ceil(BATCH_THREADS as usize).min(MAX_BLOCKS) as u32;
        if blocks > 0 {
            // SAFETY: shapes and strides were checked, and rows have a loss each.
            unsafe { self.launch_batch(Batch::NllPick, blocks, args::bytes(&args))? };
        }
        match batch.reduction {
            Reduction::None => Ok(()),
            Reduction::Sum | Reduction::Mean | Reduction::BatchMean => {
                self.sum(&batch.census, ([args.loss, 0], true), [loss, 0])
            }
        }
    }

    /// The gradient.
    fn spread(&self, mut args: NllArgs, positions: Positions, size: usize) -> Result<()> {
        let lanes = PACK_BYTES / size;
        let threads = BATCH_THREADS as usize;
        let blocks = if positions.class_stride == 1 {
            // A row that begins in the middle of a pack touches one more.
            let packs = positions.classes.div_ceil(lanes) + 1;
            (args.slice, args.parts) = (SLICE as i64, count("input", packs.div_ceil(SLICE))?);
            (args.rows as usize).saturating_mul(args.parts as usize).div_ceil(threads / 32)
        } else {
            let packs = positions.positions.div_ceil(lanes);
            let parts = positions.classes.div_ceil(CLASSES);
            positions.blocks.saturating_mul(parts).saturating_mul(packs).div_ceil(threads)
        };
        let blocks = blocks.min(MAX_BLOCKS) as u32;
        if blocks == 0 || positions.classes == 0 {
            return Ok(());
        }
        // SAFETY: shapes and strides were checked; the output is borrowed exclusively.
        unsafe { self.launch_batch(Batch::NllSpread, blocks, args::bytes(&args)) }
    }
}

/// A call's inputs besides the first.
struct Call<'p> {
    target: Indices<'p>,
    weight: Option<Input<'p>>,
    upstream: Upstream<'p>,
    census: Census<'p>,
    reduction: Reduction,
}

impl<'p> Call<'p> {
    fn new(cuda: &'p Cuda, checked: &CheckedNll<'p>, grad_output: &GradOutput<'p>) -> Result<Self> {
        let counting = &checked.counting;
        let target = cuda.indices(checked.target)?;
        let weight = counting.weight.map(|w| cuda.input("weight", w)).transpose()?;
        let upstream = Upstream::new(cuda, "grad_output", grad_output)?;
        let census = cuda.census(counting, Some(&target), weight.as_ref())?;
        Ok(Call { target, weight, upstream, census, reduction: counting.reduction })
    }

    fn args(&self, checked: &CheckedNll<'_>, at: Positions, kind: u32) -> Result<NllArgs> {
        let upstream = self.upstream.args();
        let mut args = NllArgs {
            upstream: upstream.values,
            upstream_kind: upstream.kind,
            upstream_rows: u32::from(upstream.stride != 0),
            number: upstream.number,
            target: self.target.address(),
            totals: self.census.totals(),
            rows: count("target", checked.counting.rows)?,
            classes: count("input", at.classes)?,
            stride: count("input", at.stride)?,
            class_stride: count("input", at.class_stride)?,
            positions: count("input", at.positions)?,
            ignore_index: checked.counting.ignore_index,
            kind,
            target_kind: self.target.kind(),
            mean: (self.reduction == Reduction::Mean).into(),
            ..NllArgs::default()
        };
        if let Some(weight) = &self.weight {
            (args.weight, args.weight_kind) = (weight.address, args::kind(weight.dtype));
        }
        Ok(args)
    }
}
