//! Sampled softmax on a CUDA device: the drawn classes' weights are gathered once; logits and their gradient
//! are f32, a chunk of rows at a time, with the target's behind those of the negatives
//! (`kernels/loss/sampled_softmax.cu`; products: `factors.rs`). Gradients of weights are added up class by class (`segments.rs`).
//! Over all classes it is the softmax over products that an adaptive softmax's head is.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args;
use crate::code::args::SampledArgs;
use crate::code::variants::Batch;
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::accumulator::{InputGradient, Sum};
use crate::cuda::matrix::clusters::{Bins, Grouping, blocks};
use crate::cuda::matrix::factors::SUM;
use crate::cuda::matrix::linear_softmax::operands::{Gradients, Softmax};
use crate::cuda::matrix::linear_softmax::rows::Rows;
use crate::cuda::matrix::products::{Linear, Places, Workspace, padded};
use crate::cuda::matrix::segment_sum::{Rest, Segments, Table};
use crate::cuda::schedule::lines::count;
use crate::cuda::schedule::rows::{Work, data};
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::{Input, Output};
use crate::spec::grad_output::GradOutput;
use crate::spec::output_layer::{LayerGradOut, LayerOut};
use crate::spec::sampled_softmax::{CheckedSampled, SampledParameters};

/// A call on the device.
struct Call<'c, 'p> {
    cuda: &'p Cuda,
    checked: &'c CheckedSampled<'c>,
    bins: Bins<'p>,
    input: Input<'p>,
    weight: Input<'p>,
    bias: Option<Input<'p>>,
}

/// Where the parameters' gradients go.
struct Grads<'o> {
    weight: &'o Output<'o, 'o>,
    bias: Option<&'o Output<'o, 'o>>,
    add: bool,
}

/// A vector as rows of one element.
fn column(address: u64, dtype: DType) -> Panel {
    Panel::packed(address, dtype, 1)
}

impl<'c: 'p, 'p> Call<'c, 'p> {
    fn new(
        cuda: &'p Cuda,
        checked: &'c CheckedSampled<'c>,
        grad_output: &GradOutput<'p>,
        outputs: [u64; 2],
    ) -> Result<Self> {
        let (options, parameters) = (checked.options, checked.parameters);
        let grouping = Grouping {
            target: checked.target,
            rows: checked.rows.len,
            classes: options.classes(),
            cutoffs: &[],
            capacities: Vec::new(),
            order: None,
            ignore_index: options.ignore_index,
            weight: None,
            reduction: options.reduction,
            cluster_columns: false,
        };
        Ok(Call {
            cuda,
            checked,
            bins: Bins::new(cuda, &grouping, grad_output, outputs)?,
            input: cuda.input("input", checked.input)?,
            weight: cuda.input("parameters", parameters.weight)?,
            bias: parameters.bias.map(|bias| cuda.input("parameters", bias)).transpose()?,
        })
    }

    /// All launches of a call; the gradients of those outputs that there are.
    ///
    /// # Safety
    /// Shapes, strides and lengths were checked; outputs are borrowed exclusively.
    unsafe fn run(&self, input: Option<&Output<'_, '_>>, grads: Option<&Grads<'_>>) -> Result<()> {
        // SAFETY: shapes, strides and lengths were checked and outputs are borrowed exclusively,
        // says the caller: all that each launch below asks.
        unsafe {
            self.bins.columns()?;
            match self.checked.options.sampler.is_all() {
                true => self.full(input, grads)?,
                false => Sampled::run(self, input, grads)?,
            }
            self.bins.finish()
        }
    }

    /// # Safety
    /// As for [`Call::run`].
    unsafe fn full(&self, input: Option<&Output<'_, '_>>, grads: Option<&Grads<'_>>) -> Result<()> {
        let (cuda, options, rows) = (self.cuda, self.checked.options, self.bins.rows());
        let sizes = [rows.len, options.in_features];
        let d_x = input.map(|out| InputGradient::new(cuda, out, sizes)).transpose()?;
        let softmax = Softmax {
            cuda,
            input: Panel::from(&self.input),
            budget: options.workspace,
            linear: Linear {
                weight: Panel::from(&self.weight),
                bias: self.bias.as_ref().map(Panel::from),
            },
            projection: None,
            slots: rows,
            features: options.in_features,
            width: options.in_features,
            classes: options.classes(),
        };
        let back = (d_x.is_some() || grads.is_some()).then(|| {
            let sum = |out: &Output<'_, '_>, add| Sum { to: Panel::from(out), add };
            Gradients {
                d_x: d_x.as_ref().map(|d_x| d_x.sum),
                weight: grads.map(|g| sum(g.weight, g.add)),
                bias: grads.and_then(|g| g.bias.map(|bias| sum(bias, g.add))),
                projection: None,
            }
        });
        // SAFETY: shapes were checked and outputs are borrowed exclusively, says `run`, which has
        // had the columns found.
        unsafe {
            self.bins.group(back.is_some())?;
            softmax.run(back)?;
            match (input, d_x) {
                (Some(out), Some(d_x)) => d_x.settle(cuda, out, sizes, rows),
                _ => Ok(()),
            }
        }
    }
}

/// A call with its negatives.
struct Sampled<'s, 'p> {
    call: &'s Call<'s, 'p>,
    args: SampledArgs,
    /// The negatives' weights.
    weights: Panel,
    /// Of the negatives' weights and offsets, and of the rows' targets; f32.
    d_weights: Panel,
    d_offsets: Panel,
    d_targets: Panel,
}

/// Memory of a chunk of rows.
#[derive(Clone, Copy)]
struct Buffers {
    x: Panel,
    /// As products take it.
    x_factor: Panel,
    /// Logits, then their gradient; f32.
    z: Panel,
    /// As products take the gradient of the negatives'.
    z_factor: Panel,
    /// f32.
    d_x: Panel,
}

impl Sampled<'_, '_> {
    /// # Safety
    /// As for [`Call::run`].
    unsafe fn run(
        call: &Call<'_, '_>,
        input: Option<&Output<'_, '_>>,
        grads: Option<&Grads<'_>>,
    ) -> Result<()> {
        let (cuda, options) = (call.cuda, call.checked.options);
        let negatives = options.draw()?;
        let classes: Vec<i64> = negatives.classes.iter().map(|&class| class as i64).collect();
        let (samples, rows) = (classes.len(), call.checked.rows.len);
        let drawn = cuda.input("negatives", TensorRef::new(&classes, &[samples])?)?;
        let probabilities = match options.sampler.table() {
            Some(table) => cuda.constant("probabilities", table, || {
                table.probabilities.iter().flat_map(|p| p.to_ne_bytes()).collect()
            })?,
            None => 0,
        };
        let (features, dtype) = (options.in_features, call.input.dtype);
        let mut of_rows = Workspace::new(cuda, rows);
        let mut of_samples = Workspace::new(cuda, samples);
        let mut of_columns = Workspace::new(cuda, samples + 1);
        let back = input.is_some() || grads.is_some();
        let sampled = Sampled {
            call,
            weights: of_samples.panel(features, dtype)?,
            d_weights: of_samples.panel(if back { features } else { 0 }, DType::F32)?,
            d_offsets: of_samples.panel(1, DType::F32)?,
            d_targets: of_rows.panel(1, DType::F32)?,
            args: SampledArgs {
                column: call.bins.args().column,
                cluster: call.bins.args().cluster,
                marks: of_rows.panel(1, DType::I64)?.address,
                target_offsets: of_rows.panel(1, DType::F32)?.address,
                offsets: of_columns.panel(1, DType::F32)?.address,
                drawn: drawn.address,
                probabilities,
                weight: call.weight.address,
                bias: call.bias.as_ref().map_or(0, |bias| bias.address),
                tries: negatives.distinct_tries(&options.sampler),
                n: count("input", rows)?,
                samples: samples as i64,
                classes: count("classes", options.classes())?,
                features: count("in_features", features)?,
                weight_stride: call.weight.row_stride as i64,
                kind: args::kind(dtype),
                keep_hits: (!options.remove_accidental_hits).into(),
                ..SampledArgs::default()
            },
        };
        let each = 8 * padded(samples + 1) + dtype.size() * features + 4 * features;
        let chunk = (options.workspace / each).clamp(1, rows.max(1));
        let mut workspace = Workspace::new(cuda, chunk.min(rows));
        let buffers = Buffers {
            x: workspace.panel(features, dtype)?,
            x_factor: workspace.factor(if back { features } else { 0 }, dtype, dtype)?,
            z: workspace.panel(samples + 1, DType::F32)?,
            z_factor: workspace.factor(if back { samples } else { 0 }, DType::F32, dtype)?,
            d_x: workspace.panel(if input.is_some() { features } else { 0 }, DType::F32)?,
        };
        // SAFETY: the caller's contract; buffers are as long as rows, negatives and chunks need.
        unsafe {
            let bytes = args::bytes(&sampled.args);
            cuda.launch_batch(Batch::SampledOffsets, blocks(rows + samples + 1), bytes)?;
            call.bins.group(back)?;
            let panels = [Panel::from(&call.weight), sampled.weights];
            let places = Places { rows: drawn.address, marks: 0 };
            cuda.panel(Batch::PanelGather, panels, [samples, features], places, false)?;
            for from in (0..rows).step_by(chunk) {
                let n = chunk.min(rows - from);
                let part = Part { sampled: &sampled, buffers: &buffers, from, n };
                part.logits(back)?;
                if back {
                    part.back(input, grads.is_some())?;
                }
            }
            match grads {
                Some(grads) => sampled.write(grads),
                None => Ok(()),
            }
        }
    }

    /// Adds up what each class has as a negative, once or more, and as a target.
    ///
    /// # Safety
    /// As for [`Call::run`], when all chunks are on the stream.
    unsafe fn write(&self, grads: &Grads<'_>) -> Result<()> {
        let (call, cuda, options) = (self.call, self.call.cuda, self.call.checked.options);
        let (rows, classes) = (call.checked.rows.len, options.classes());
        let features = options.in_features;
        let bias = grads.bias.map(|bias| column(bias.address, bias.dtype));
        let x = Panel::from(&call.input);
        // SAFETY: gradients were checked to have the parameters' shapes and are borrowed
        // exclusively; all chunks' parts are on the stream, says the caller.
        unsafe {
            if !grads.add {
                cuda.zeros(Panel::from(grads.weight), [classes, features])?;
                bias.map_or(Ok(()), |bias| cuda.zeros(bias, [classes, 1]))?;
            }
            // Without a row the negatives have no gradient either.
            if rows == 0 {
                return Ok(());
            }
            let keys = [(self.args.drawn, self.args.samples as usize), (self.args.column, rows)];
            let segments = Segments::sort(cuda, keys, classes)?;
            let factors = self.d_targets.address;
            let rest = Rest { rows: Some(x), slots: 0, of: [0, rows], factors };
            let rows = Panel::from(grads.weight);
            let table = Table { rows, columns: features, classes: 0..classes };
            segments.add(Some(self.d_weights), rest, &table)?;
            let Some(rows) = bias else { return Ok(()) };
            let table = Table { rows, columns: 1, classes: 0..classes };
            segments.add(Some(self.d_offsets), Rest { rows: None, ..rest }, &table)
        }
    }
}

/// Some rows, whose logits are there at once.
struct Part<'s> {
    sampled: &'s Sampled<'s, 's>,
    buffers: &'s Buffers,
    from: usize,
    n: usize,
}

impl Part<'_> {
    /// What the kernels are told of these rows.
    fn args(&self) -> SampledArgs {
        let (mut args, from) = (self.sampled.args, self.from as u64);
        for (address, size) in [
            (&mut args.column, 8),
            (&mut args.cluster, 8),
            (&mut args.marks, 8),
            (&mut args.target_offsets, 4),
        ] {
            *address += from * size;
        }
        args.n = self.n as i64;
        (args.x, args.x_stride) = (self.buffers.x.address, self.buffers.x.stride as i64);
        (args.z, args.z_stride) = (self.buffers.z.address, self.buffers.z.stride as i64);
        (args.products, args.products_stride) =
            (self.buffers.d_x.address, self.buffers.d_x.stride as i64);
        args
    }

    /// Logits, losses, and with a backward pass the logits' gradient in their place.
    ///
    /// # Safety
    /// As for [`Call::run`], here and below.
    unsafe fn logits(&self, back: bool) -> Result<()> {
        let (sampled, args, n) = (self.sampled, self.args(), self.n);
        let (call, cuda, Buffers { x, z, .. }) = (sampled.call, sampled.call.cuda, *self.buffers);
        let (samples, features) = (args.samples as usize, args.features as usize);
        let slots = call.bins.rows();
        let at = |address: u64| address + 4 * self.from as u64;
        // SAFETY: shapes were checked, says `run`; the buffers were taken for as many rows as the
        // longest chunk, of which this one has n.
        unsafe {
            let panels = [Panel::from(&call.input).starting_at(self.from), x];
            let places = Places { rows: 0, marks: args.column };
            cuda.panel(Batch::PanelGather, panels, [n, features], places, false)?;
            cuda.linear(x, sampled.weights, z, [n, samples, features])?;
            cuda.launch_batch(Batch::SampledLogits, n as u32, args::bytes(&args))?;
            let rows = Rows {
                z,
                n,
                classes: samples + 1,
                marks: args.marks,
                factors: if back { at(slots.factors) } else { 0 },
                nll: at(slots.nll),
                bias: args.offsets,
            };
            let work = if back { Work::Fused } else { Work::Forward };
            cuda.go(rows.loss(), data(DType::F32)?, work, rows.args())
        }
    }

    /// The gradients of the rows, and of negatives and targets if those are wanted.
    ///
    /// # Safety
    /// As above.
    unsafe fn back(&self, input: Option<&Output<'_, '_>>, parameters: bool) -> Result<()> {
        let (sampled, mut args, n, add) = (self.sampled, self.args(), self.n, self.from > 0);
        let (cuda, Buffers { x, x_factor, z, z_factor, d_x }) = (sampled.call.cuda, *self.buffers);
        let (samples, features) = (args.samples as usize, args.features as usize);
        let places = Places::default();
        // SAFETY: shapes were checked and outputs are borrowed exclusively, says `run`; the buffers
        // have the chunk's n rows, whose logits and input `logits` has put on the stream.
        unsafe {
            let slopes = cuda.factor(z, z_factor, [n, samples], x.dtype)?;
            if let Some(out) = input {
                let (sizes, budget) =
                    ([n, features, samples], sampled.call.checked.options.workspace);
                cuda.through(slopes, sampled.weights, d_x, sizes, budget)?;
                let out = Panel::from(out).starting_at(self.from);
                (args.grad, args.grad_stride) = (out.address, out.stride as i64);
                cuda.launch_batch(Batch::SampledInput, blocks(n * features), args::bytes(&args))?;
            }
            if !parameters {
                return Ok(());
            }
            let x = cuda.factor(x, x_factor, [n, features], x.dtype)?;
            let (slopes, sizes) = (slopes.transposed(), [samples, features, n]);
            cuda.multiply([slopes, x], sampled.d_weights, (sizes, add), SUM)?;
            let panels = [z, sampled.d_offsets];
            cuda.panel(Batch::PanelColumnSums, panels, [n, samples], places, add)?;
            let of_targets = Panel { address: z.address + 4 * samples as u64, ..z };
            let panels = [of_targets, sampled.d_targets.starting_at(self.from)];
            cuda.panel(Batch::PanelGather, panels, [n, 1], places, false)
        }
    }
}

impl Cuda {
    pub(crate) fn sampled_softmax_forward(
        &self,
        checked: &CheckedSampled<'_>,
        out: LayerOut<'_>,
    ) -> Result<()> {
        let output = self.output("output", out.output, false)?;
        let loss = self.output("loss", out.loss, false)?;
        let outputs = [output.address, loss.address];
        let call = Call::new(self, checked, &GradOutput::default(), outputs)?;
        // SAFETY: shapes, strides and lengths were checked; outputs are borrowed exclusively.
        unsafe { call.run(None, None)? };
        self.read_back([Some(output), Some(loss)])
    }

    pub(crate) fn sampled_softmax_forward_backward(
        &self,
        checked: &CheckedSampled<'_>,
        grad_output: GradOutput<'_>,
        out: LayerOut<'_>,
        gradients: LayerGradOut<'_, SampledParameters<TensorMut<'_>>>,
    ) -> Result<()> {
        let output = self.output("output", out.output, false)?;
        let loss = self.output("loss", out.loss, false)?;
        let input = gradients.input.map(|grad| self.output("grad_input", grad, false));
        let input = input.transpose()?;
        let add = gradients.accumulate;
        let new = |grad| self.output("grad_parameters", grad, add);
        let (weight, bias) = match gradients.parameters {
            Some(grads) => (Some(new(grads.weight)?), grads.bias.map(new).transpose()?),
            None => (None, None),
        };
        let call = Call::new(self, checked, &grad_output, [output.address, loss.address])?;
        let grads = weight.as_ref().map(|weight| Grads { weight, bias: bias.as_ref(), add });
        // SAFETY: shapes, strides and lengths were checked; outputs are borrowed exclusively.
        unsafe { call.run(input.as_ref(), grads.as_ref())? };
        self.read_back([Some(output), Some(loss), input, weight, bias])
    }
}
