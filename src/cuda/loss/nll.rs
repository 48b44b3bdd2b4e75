//! Negative log-likelihood on a CUDA device: `kernels/loss/nll.cu` after a census.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args;
use crate::code::args::NllArgs;
use crate::code::variants::{BATCH_THREADS, Batch, PACK_BYTES};
use crate::cuda::schedule::batch::Census;
use crate::cuda::schedule::lines::{MAX_BLOCKS, count};
use crate::cuda::schedule::operands::{Operands, Places, ReadRows, WriteRows};
use crate::cuda::schedule::upstream::Upstream;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::indices::Indices;
use crate::cuda::stream::memory::{Input, Output};
use crate::spec::grad_output::GradOutput;
use crate::spec::nll::{CheckedNll, Positions};
use std::ops::Range;

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
        let (shape, dtype) = (input.shape(), input.dtype());
        let x = self.read_rows("input", input, inside(&shape))?;
        let loss = self.output("loss", loss, false)?;
        let batch = Call::new(self, checked, &GradOutput::default())?;
        let likelihood = Likelihood { shape, dtype, picks: true, spreads: false };
        self.go_through_blocks(checked, &batch, likelihood, (Some(&x), None), Some(loss))
    }

    pub(crate) fn nll_backward(
        &self,
        checked: &CheckedNll<'_>,
        grad_output: GradOutput<'_>,
        grad_input: TensorMut<'_>,
    ) -> Result<()> {
        let (shape, dtype) = (grad_input.shape(), grad_input.dtype());
        let y = self.write_rows("grad_input", grad_input, false, inside(&shape))?;
        let batch = Call::new(self, checked, &grad_output)?;
        let likelihood = Likelihood { shape, dtype, picks: false, spreads: true };
        self.go_through_blocks(checked, &batch, likelihood, (None, Some(y)), None)
    }

    pub(crate) fn nll_forward_backward(
        &self,
        checked: &CheckedNll<'_>,
        input: TensorMut<'_>,
        grad_output: GradOutput<'_>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let (shape, dtype) = (input.shape(), input.dtype());
        let loss = self.output("loss", loss, false)?;
        let x = self.write_rows("input", input, true, inside(&shape))?;
        let batch = Call::new(self, checked, &grad_output)?;
        // Of any rows all is picked before anything is overwritten: launches are in order.
        let likelihood = Likelihood { shape, dtype, picks: true, spreads: true };
        self.go_through_blocks(checked, &batch, likelihood, (None, Some(x)), Some(loss))
    }

    /// Goes through the tensor by its first dimension: picks from `x`, or what becomes its gradient,
    /// and spreads over `y`; then what the losses of rows add up to.
    fn go_through_blocks<'a, 'p: 'a>(
        &'p self,
        checked: &CheckedNll<'_>,
        batch: &Call<'p>,
        likelihood: Likelihood,
        (x, y): (Option<&ReadRows<'p>>, Option<WriteRows<'a, 'p>>),
        loss: Option<Output<'a, 'p>>,
    ) -> Result<()> {
        let Likelihood { shape, dtype, picks, spreads } = likelihood;
        let packed = shape.iter().skip(1).product();
        let positions = Positions::new(&shape, if shape.len() == 1 { 1 } else { packed });
        let mut args = batch.args(checked, positions, args::kind(dtype))?;
        let losses = match (&loss, batch.reduction) {
            (Some(_), Reduction::Sum | Reduction::Mean | Reduction::BatchMean) => {
                Some(self.pool.take("workspace", args.rows as usize * size_of::<f64>())?)
            }
            _ => None,
        };
        args.wide = losses.is_some().into();
        let own = loss.as_ref().map_or(0, |loss| loss.address);
        args.loss = losses.as_ref().map_or(own, |block| block.address());
        let mut apart = None;
        let in_place = picks && spreads;
        let operands = Operands {
            rows: positions.blocks,
            grain: 1,
            read: [x, None, None, None, None],
            written: [y, None, None, None],
            in_place,
            as_they_lie: false,
        };
        if losses.is_some() {
            let sum = batch.census.sum(([args.loss, 0], true), [own, 0]);
            // What comes block by block is added up when all of it is there, and so is nothing.
            if operands.on_host() || args.rows == 0 || positions.blocks == 0 {
                apart = Some(sum);
            } else {
                args.sum = sum;
            }
        }
        let prepare = |_| {
            Ok(move |places: &Places, blocks: Range<usize>| {
                let (rows, n) = (blocks.start * positions.positions, blocks.len());
                let mut args = args.part(rows, n * positions.positions);
                let (read, written) = (places.read[0], places.written[0]);
                (args.x, args.y) = (read.address, written.address);
                args.stride = read.stride.max(written.stride);
                if in_place {
                    args.x = written.address;
                }
                if picks {
                    self.pick(args)?;
                }
                let positions = Positions { blocks: n, ..positions };
                if spreads { self.spread(args, positions, dtype.size()) } else { Ok(()) }
            })
        };
        // SAFETY: `part` names the rows that it is given alone; shapes were checked (`CheckedNll`).
        let [gradient, ..] = unsafe { self.by_blocks(operands, prepare)? };
        if let Some(sum) = apart {
            self.add_up(sum)?;
        }
        self.read_back([loss, gradient])
    }

    /// Losses of rows.
    fn pick(&self, args: NllArgs) -> Result<()> {
        // SAFETY: shapes and strides were checked, and rows have a loss each.
        unsafe { self.launch_over(Batch::NllPick, args.rows as usize, args::bytes(&args)) }
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

/// What is asked of a tensor of log-probabilities, or of its gradient.
#[derive(Clone, Copy)]
struct Likelihood {
    shape: Shape,
    dtype: DType,
    picks: bool,
    spreads: bool,
}

/// All dimensions but the first, which is gone through; of one dimension, that one.
fn inside(shape: &Shape) -> impl Fn(usize) -> bool + use<> {
    let rank = shape.len();
    move |d| d > 0 || rank == 1
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
            // There is one: `Nll` has no other way.
            ignore_index: checked.counting.ignore_index.unwrap_or(-1),
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
