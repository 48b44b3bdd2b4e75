//! Cross entropy on a CUDA device: `kernels/loss/cross_entropy.cu` between a census and a sum.

#[cfg(all(test, feature = "emulator"))]
mod over_products;
mod results;
mod shards;
mod tokens;

pub(crate) use results::Results;

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args;
use crate::code::args::{
    CrossEntropyArgs, LabelArgs, LogitArgs, SmoothingArgs, SumArgs, WeightArgs,
};
use crate::code::variants::Loss;
use crate::cuda::loss::cross_entropy::tokens::Tokens;
use crate::cuda::loss::ranks::Ranks;
use crate::cuda::schedule::batch::{Census, RowFactors};
use crate::cuda::schedule::blocks::RowTensors;
use crate::cuda::schedule::lines::count;
use crate::cuda::schedule::operands::{ReadRows, WriteRows, along};
use crate::cuda::schedule::rows::{Work, data};
use crate::cuda::schedule::upstream::Upstream;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::indices::Indices;
use crate::cuda::stream::memory::{Input, Output};
use crate::spec::cross_entropy::{Checked, CrossEntropy, CrossEntropyOut, CrossEntropyUpstream};
use crate::spec::grad_output::GradOutput;

impl Cuda {
    pub(crate) fn cross_entropy_forward(
        &self,
        checked: &Checked<'_>,
        logits: TensorRef<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        // Nobody reads the upstream gradients.
        let upstream = CrossEntropyUpstream::default();
        self.with_losses(checked, Logits::Read(logits), &upstream, out)
    }

    pub(crate) fn cross_entropy_forward_backward(
        &self,
        checked: &Checked<'_>,
        (from, grad_logits): (Option<TensorRef<'_>>, TensorMut<'_>),
        upstream: CrossEntropyUpstream<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let logits = match from {
            Some(from) => Logits::Keep(from, grad_logits),
            None => Logits::Overwrite(grad_logits),
        };
        self.with_losses(checked, logits, &upstream, out)
    }

    /// Loss and what else `out` asks for; with the logits' gradient where that is asked for.
    fn with_losses(
        &self,
        checked: &Checked<'_>,
        logits: Logits<'_>,
        upstream: &CrossEntropyUpstream<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let mut pass = Pass::new(self, checked, upstream, Some(out))?;
        let (work, x, y) = logits.named(self, checked)?;
        let batch = Batch::new(self, checked, &upstream.grad_output)?;
        let mut args = batch.args(checked)?;
        args.schedule.sum = pass.name(self, checked, &batch, &mut args)?;
        let (kernel, work) = pass.kernel(&batch, work);
        let kernels = (kernel, data(checked.dtype)?, work);
        let operands = RowTensors { x: x.as_ref(), y, ..RowTensors::default() };
        // SAFETY: shapes, strides and lengths were checked; outputs are borrowed exclusively.
        let [logits, ..] = unsafe { self.go_through(kernels, args, operands)? };
        self.read_back(pass.outputs().chain([logits]))
    }

    pub(crate) fn cross_entropy_backward(
        &self,
        checked: &Checked<'_>,
        logits: TensorRef<'_>,
        lse: TensorRef<'_>,
        grad_output: GradOutput<'_>,
        grad_logits: TensorMut<'_>,
    ) -> Result<()> {
        let x = self.read_rows("logits", logits, along(checked.class_dim))?;
        self.gradient(checked, Some(x), lse, &grad_output, grad_logits)
    }

    pub(crate) fn cross_entropy_backward_in_place(
        &self,
        checked: &Checked<'_>,
        logits: TensorMut<'_>,
        lse: TensorRef<'_>,
        grad_output: GradOutput<'_>,
    ) -> Result<()> {
        self.gradient(checked, None, lse, &grad_output, logits)
    }

    /// Gradient from a saved lse, of rows elsewhere or of those that it overwrites.
    fn gradient(
        &self,
        checked: &Checked<'_>,
        from: Option<ReadRows<'_>>,
        lse: TensorRef<'_>,
        grad_output: &GradOutput<'_>,
        grad_logits: TensorMut<'_>,
    ) -> Result<()> {
        let lse = self.input("lse", lse)?;
        let y =
            self.write_rows("grad_logits", grad_logits, from.is_none(), along(checked.class_dim))?;
        let batch = Batch::new(self, checked, grad_output)?;
        let mut args = batch.args(checked)?;
        args.out.lse = lse.address;
        let kernels = (batch.loss, data(checked.dtype)?, Work::FromLse);
        let operands = RowTensors { x: from.as_ref(), y: Some(y), ..RowTensors::default() };
        // SAFETY: shapes, strides and lengths were checked; the output is borrowed exclusively.
        let [grad, ..] = unsafe { self.go_through(kernels, args, operands)? };
        self.read_back([grad])
    }
}

/// What a pass gives of rows, and what upstream gradients that has.
pub(crate) struct Pass<'a, 'p> {
    results: Option<Results<'a, 'p>>,
    ranks: Ranks<'a, 'p>,
    tokens: Tokens<'a, 'p>,
}

impl<'a, 'p: 'a> Pass<'a, 'p> {
    /// Names the outputs, if there are any, to the call.
    pub(crate) fn new(
        cuda: &'p Cuda,
        checked: &Checked<'_>,
        upstream: &CrossEntropyUpstream<'p>,
        out: Option<CrossEntropyOut<'a>>,
    ) -> Result<Self> {
        let (mut results, mut of_ranks, mut of_tokens) = (None, (None, None), (None, None, None));
        if let Some(out) = out {
            results = Some(Results::new(cuda, out.loss, out.z_loss, out.lse)?);
            of_ranks = (out.argmax, out.rank);
            of_tokens = (out.logprob, out.entropy, out.top_k);
        }
        let ranks = Ranks::new(cuda, checked.classes, of_ranks.0, of_ranks.1)?;
        let tokens = Tokens::new(cuda, checked.classes, upstream, of_tokens)?;
        Ok(Pass { results, ranks, tokens })
    }

    /// Has the arguments name the outputs; what the rows' losses are then to add up to.
    pub(crate) fn name(
        &mut self,
        cuda: &'p Cuda,
        checked: &Checked<'_>,
        batch: &Batch<'p>,
        args: &mut CrossEntropyArgs,
    ) -> Result<SumArgs> {
        (args.ranks, args.tokens) = (self.ranks.args(), self.tokens.args());
        let Some(results) = &mut self.results else { return Ok(SumArgs::default()) };
        let rows = (checked.target.len(), checked.options.reduction);
        args.out = results.of_rows(cuda, rows, &args.options)?;
        Ok(results.sum(&batch.census, &args.out))
    }

    /// The kernels that give all of it, and how they are to work.
    pub(crate) fn kernel(&self, batch: &Batch<'p>, work: Work) -> (Loss, Work) {
        let ranked = self.ranks.wanted();
        let kernel = match self.tokens.loss(ranked) {
            Some(loss) => loss,
            None if ranked => Loss::CrossEntropyRanked,
            None => batch.loss,
        };
        // Where a second visit needs the row where it was, there are no kernels that only stream.
        let work = if kernel.second_words() > 0 { Work::Fused } else { work };
        (kernel, work)
    }

    /// The outputs to be read back.
    pub(crate) fn outputs(self) -> impl Iterator<Item = Option<Output<'a, 'p>>> {
        let results = self.results.map(Results::outputs);
        let ranks = [self.ranks.argmax, self.ranks.rank];
        results.into_iter().flatten().chain(ranks).chain(self.tokens.outputs())
    }
}

/// What a pass with losses does with the logits.
pub(crate) enum Logits<'a> {
    Read(TensorRef<'a>),
    Overwrite(TensorMut<'a>),
    /// The gradient goes elsewhere.
    Keep(TensorRef<'a>, TensorMut<'a>),
}

impl<'a> Logits<'a> {
    /// The work, and the rows that it reads or overwrites.
    pub(crate) fn named<'p: 'a>(
        self,
        cuda: &'p Cuda,
        checked: &Checked<'_>,
    ) -> Result<(Work, Option<ReadRows<'a>>, Option<WriteRows<'a, 'p>>)> {
        let along = || along(checked.class_dim);
        Ok(match self {
            Logits::Read(t) => (Work::Forward, Some(cuda.read_rows("logits", t, along())?), None),
            Logits::Overwrite(t) => {
                (Work::Fused, None, Some(cuda.write_rows("logits", t, true, along())?))
            }
            Logits::Keep(x, y) => {
                let x = cuda.read_rows("logits", x, along())?;
                let y = cuda.write_rows("grad_logits", y, false, along())?;
                (Work::Fused, Some(x), Some(y))
            }
        })
    }
}

/// A call's inputs besides the logits.
pub(crate) struct Batch<'p> {
    loss: Loss,
    target: Indices<'p>,
    weight: Option<Input<'p>>,
    upstream: Upstream<'p>,
    census: Census<'p>,
}

impl<'p> Batch<'p> {
    pub(crate) fn new(
        cuda: &'p Cuda,
        checked: &Checked<'p>,
        grad_output: &GradOutput<'p>,
    ) -> Result<Self> {
        Batch::of_rows(cuda, checked, grad_output, RowFactors::default())
    }

    /// The same of rows with factors.
    pub(crate) fn of_rows(
        cuda: &'p Cuda,
        checked: &Checked<'p>,
        grad_output: &GradOutput<'p>,
        factors: RowFactors,
    ) -> Result<Self> {
        let options = checked.options;
        let target = cuda.indices(checked.target)?;
        let weight = options.class_weight().map(|w| cuda.input("weight", w)).transpose()?;
        let upstream = Upstream::new(cuda, "grad_output", grad_output)?;
        let of = (Some(&target), weight.as_ref());
        let census = cuda.census_of_rows(&checked.counting(), of, factors)?;
        Ok(Batch { loss: kernel(options), target, weight, upstream, census })
    }

    /// The same of places in lists of classes, that somebody else has counted and weighed.
    pub(crate) fn of_places(
        cuda: &'p Cuda,
        (checked, target): (&Checked<'_>, Indices<'p>),
        grad_output: &GradOutput<'p>,
        census: Census<'p>,
    ) -> Result<Self> {
        let upstream = Upstream::new(cuda, "grad_output", grad_output)?;
        let loss = kernel(checked.options);
        Ok(Batch { loss, target, weight: None, upstream, census })
    }

    /// The arguments but for the operands and what is written.
    pub(crate) fn args(&self, checked: &Checked<'_>) -> Result<CrossEntropyArgs> {
        let options = checked.options;
        let mut args = CrossEntropyArgs {
            upstream: self.upstream.args(),
            logits: logits(options),
            target: labels(&self.target, options.ignore_index),
            weight: class_weights(self.weight.as_ref()),
            options: smoothing(options, checked.classes, &self.census),
            ..CrossEntropyArgs::default()
        };
        args.rows.count = count("target", checked.target.len())?;
        args.rows.classes = count("logits", checked.classes)?;
        Ok(args)
    }
}

/// The kernels of a loss alone.
fn kernel(options: &CrossEntropy<'_>) -> Loss {
    let full = options.softcap.is_some() || options.label_smoothing > 0.0;
    if full { Loss::CrossEntropyFull } else { Loss::CrossEntropy }
}

/// Logit scale and soft-cap as kernels have them.
pub(crate) fn logits(options: &CrossEntropy<'_>) -> LogitArgs {
    LogitArgs::new(options.logit_scale, options.softcap, options.softcap_approximate)
}

/// Class indices as kernels have them.
pub(crate) fn labels(indices: &Indices<'_>, ignore_index: i64) -> LabelArgs {
    let (values, kind) = (indices.address(), indices.kind());
    LabelArgs { values, ignore_index, kind, pad: 0 }
}

/// Class weights as kernels have them.
pub(crate) fn class_weights(weight: Option<&Input<'_>>) -> WeightArgs {
    let of = |w: &Input<'_>| WeightArgs { values: w.address, kind: args::kind(w.dtype), pad: 0 };
    weight.map_or(WeightArgs::default(), of)
}

/// Label smoothing, z-loss and reduction as kernels have them.
pub(crate) fn smoothing(
    options: &CrossEntropy<'_>,
    classes: usize,
    census: &Census<'_>,
) -> SmoothingArgs {
    let epsilon = options.label_smoothing;
    SmoothingArgs {
        totals: census.totals(),
        lambda: options.lse_square_scale,
        hard: (1.0 - epsilon) as f32,
        soft: if epsilon > 0.0 { (epsilon / classes as f64) as f32 } else { 0.0 },
        mean: (options.reduction == Reduction::Mean).into(),
        pad: 0,
    }
}
