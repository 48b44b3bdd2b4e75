//! Cross entropy of logits that are products, on a CUDA device: a chunk of rows after another, products of the
//! driver's before and after the row kernels of the losses over logits, in place on f32 logits.
//!
//! Of several chunks of class indices the rows that count come first (`by_slot.rs`), and the others take no product:
//! the host asks the device how many are left. While the stream is captured it cannot, and those are gathered as zeros,
//! as they are where one chunk does, or the caller will not have the host wait.

pub(super) mod budget;
mod by_slot;
pub(super) mod chunks;
mod path;
pub(super) mod rows;
mod slabs;
mod tiled;
mod turn;

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::TensorMut;
use crate::code::args;
use crate::code::args::{
    CrossEntropyArgs, PartArgument, SumArgs, TokenArgs, UpstreamArgs, WeightArgs,
};
use crate::code::variants::{Batch as BatchKernel, Data, Loss};
use crate::cuda::driver::product::Panel;
use crate::cuda::loss::cross_entropy::{Batch, Pass, Results};
use crate::cuda::loss::soft_cross_entropy::SoftBatch;
use crate::cuda::matrix::accumulator::Sum;
use crate::cuda::matrix::products::{Places, Workspace};
use crate::cuda::schedule::rows::{Lie, Work};
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Output;
use crate::spec::cross_entropy::checked::Target;
use crate::spec::cross_entropy::{Checked, CrossEntropyOut, CrossEntropyUpstream, SoftTarget};
use crate::spec::linear_cross_entropy::{
    Call, CheckedLinear, LinearGradOut, LinearOutputs, LinearPlan, REST,
};
use budget::Budget;
use by_slot::BySlot;
use chunks::{Chunks, Gradients, Probabilities};
use path::Path;
use rows::RowNumbers;
use tiled::Tiled;

/// What gradients are to be made of, and where they go.
pub(in crate::cuda::loss) struct Backward<'a, 'p> {
    pub(in crate::cuda::loss) input: Option<Output<'a, 'p>>,
    pub(in crate::cuda::loss) weight: Option<Output<'a, 'p>>,
    /// What rounding leaves of it.
    pub(in crate::cuda::loss) rest: Option<Output<'a, 'p>>,
    pub(in crate::cuda::loss) bias: Option<Output<'a, 'p>>,
    pub(in crate::cuda::loss) target: Option<Output<'a, 'p>>,
    pub(in crate::cuda::loss) accumulate: bool,
    pub(in crate::cuda::loss) accumulate_input: bool,
}

impl<'a, 'p: 'a> Backward<'a, 'p> {
    pub(in crate::cuda::loss) fn new(cuda: &'p Cuda, gradients: LinearGradOut<'a>) -> Result<Self> {
        let LinearGradOut { accumulate, accumulate_input, .. } = gradients;
        let new = |name, to: Option<TensorMut<'a>>, add| {
            to.map(|to| cuda.output(name, to, add)).transpose()
        };
        Ok(Backward {
            input: new("grad_input", gradients.input, accumulate_input)?,
            weight: new("grad_linear_weight", gradients.linear_weight, accumulate)?,
            rest: new(REST, gradients.linear_weight_rest, accumulate)?,
            bias: new("grad_linear_bias", gradients.linear_bias, accumulate)?,
            target: new("grad_target", gradients.target, false)?,
            accumulate,
            accumulate_input,
        })
    }

    pub(in crate::cuda::loss) fn gradients(&self) -> Gradients {
        let to = |add| move |out: &Output<'_, '_>| Sum { to: Panel::from(out), add };
        Gradients {
            input: self.input.as_ref().map(to(self.accumulate_input)),
            weight: self.weight.as_ref().map(to(self.accumulate)),
            rest: self.rest.as_ref().map(Panel::from),
            bias: self.bias.as_ref().map(to(self.accumulate)),
        }
    }

    pub(in crate::cuda::loss) fn outputs(self) -> [Option<Output<'a, 'p>>; 5] {
        [self.input, self.weight, self.rest, self.bias, self.target]
    }
}

impl Cuda {
    pub(crate) fn linear_cross_entropy(
        &self,
        checked: &CheckedLinear<'_>,
        call: Call<'_>,
    ) -> Result<()> {
        let (upstream, gradients, out) = match call {
            Call::Forward { out } => (CrossEntropyUpstream::default(), None, Some(out)),
            Call::Backward { upstream, gradients, out } => (upstream, Some(gradients), out),
        };
        let outputs = LinearOutputs::of(gradients.as_ref(), out.as_ref());
        let path = Path::of(self.driver.card(), checked, outputs)?;
        let back = gradients.map(|gradients| Backward::new(self, gradients)).transpose()?;
        match checked.of_logits.target {
            Target::Classes(classes) => {
                let of_logits = checked.of_logits.with(classes);
                self.linear_classes(checked, (&of_logits, &path), &upstream, (back, out))
            }
            Target::Soft(soft) => {
                let of_logits = checked.of_logits.with(soft);
                let budget = Budget::new(checked, outputs)?;
                self.linear_soft(checked, (&of_logits, &budget), &upstream, (back, out))
            }
        }
    }

    pub(crate) fn linear_plan(
        &self,
        checked: &CheckedLinear<'_>,
        outputs: LinearOutputs,
    ) -> Result<LinearPlan> {
        Ok(Path::of(self.driver.card(), checked, outputs)?.plan())
    }

    fn linear_classes<'a, 'p: 'a>(
        &'p self,
        checked: &CheckedLinear<'p>,
        (of_logits, path): (&Checked<'p>, &Path),
        upstream: &CrossEntropyUpstream<'p>,
        (back, out): (Option<Backward<'a, 'p>>, Option<CrossEntropyOut<'a>>),
    ) -> Result<()> {
        let mut pass = Pass::new(self, of_logits, upstream, out)?;
        let mut numbers = RowNumbers::new(self, checked)?;
        let batch = Batch::of_rows(self, of_logits, &upstream.grad_output, numbers.factors())?;
        let mut args = batch.args(of_logits)?;
        let sum = pass.name(self, of_logits, &batch, &mut args)?;
        let (loss, work) = pass.kernel(&batch, work(back.is_some()));
        let _weights = self.weights_as_logits(&mut args.weight, of_logits)?;
        let (back_of, tokens) = (back.as_ref(), upstream.of_tokens());
        let (out, of) = (args.out, (args.target, args.rows.classes));
        // SAFETY: shapes were checked (`CheckedLinear`); outputs are borrowed exclusively.
        unsafe {
            match path {
                Path::Chunked(budget) if budget.packs => {
                    numbers.prepare(Some(of), &mut [], true)?;
                    let slots = numbers.pack()?;
                    let results = BySlot::new(self, (&slots, checked.rows), &mut args)?;
                    numbers.by(&slots);
                    numbers.prepare(None, &mut given(&mut args, back_of, tokens), true)?;
                    let chunks = Chunks::new(self, checked, budget, &numbers)?;
                    let kernels = (loss, work);
                    self.linear_rows(&chunks.packed(results.count), kernels, args, back_of)?;
                    results.put_back(&numbers)?;
                }
                _ => {
                    numbers.prepare(Some(of), &mut given(&mut args, back_of, tokens), true)?;
                    self.linear_whole(checked, (path, &numbers), (loss, work), args, back_of)?;
                }
            }
            numbers.weigh(&out)?;
        }
        self.add_up_rows(sum)?;
        let gradients = back.map(Backward::outputs).into_iter().flatten();
        self.read_back(pass.outputs().chain(gradients))
    }

    /// Rows that are marked, in their own order.
    ///
    /// # Safety
    /// The arguments are of the checked call, and outputs are borrowed exclusively.
    unsafe fn linear_whole(
        &self,
        checked: &CheckedLinear<'_>,
        (path, numbers): (&Path, &RowNumbers<'_>),
        (loss, work): (Loss, Work),
        args: CrossEntropyArgs,
        back: Option<&Backward<'_, '_>>,
    ) -> Result<()> {
        // SAFETY: the arguments are of the checked call, and outputs are borrowed exclusively: the caller's promise.
        unsafe {
            match path {
                _ if checked.rows == 0 => self.no_rows(checked, back),
                Path::Chunked(budget) => {
                    let chunks = Chunks::new(self, checked, budget, numbers)?;
                    self.linear_rows(&chunks, (loss, work), args, back)
                }
                Path::Tiled(slabs) => {
                    let tiled = Tiled::new(self, checked, (slabs, loss), numbers)?;
                    tiled.run(args, back.map(Backward::gradients))
                }
            }
        }
    }

    fn linear_soft<'a, 'p: 'a>(
        &'p self,
        checked: &CheckedLinear<'p>,
        (of_logits, budget): (&Checked<'p, SoftTarget<'p>>, &Budget),
        upstream: &CrossEntropyUpstream<'p>,
        (back, out): (Option<Backward<'a, 'p>>, Option<CrossEntropyOut<'a>>),
    ) -> Result<()> {
        let results = out.map(|out| Results::new(self, out.loss, out.z_loss, out.lse));
        let mut results = results.transpose()?;
        let mut numbers = RowNumbers::new(self, checked)?;
        let grad_target = back.as_ref().and_then(|back| back.target.as_ref());
        let (given, factors) = (&upstream.grad_output, numbers.factors());
        let batch = SoftBatch::new(self, of_logits, given, grad_target.is_some(), factors)?;
        let mut args = batch.args(of_logits)?;
        let mut sum = SumArgs::default();
        if let Some(results) = &mut results {
            let rows = (checked.losses(), of_logits.options.reduction);
            args.out = results.of_rows(self, rows, &args.options)?;
            sum = results.sum(&batch.census, &args.out);
        }
        let _weights = self.weights_as_logits(&mut args.weight, of_logits)?;
        let target = self.input("target", of_logits.target.tensor())?;
        let mut given = Vec::new();
        if back.is_some() {
            given.push(&mut args.upstream);
        }
        // SAFETY: shapes were checked (`CheckedLinear`); outputs are borrowed exclusively.
        unsafe {
            // The gradient of probabilities is not one over τ: that of logits is divided when it is there.
            numbers.prepare(None, &mut given, false)?;
            let mut chunks = Chunks::new(self, checked, budget, &numbers)?;
            chunks.probabilities(Probabilities {
                values: Panel::from(&target),
                gradient: grad_target.map(Panel::from),
            })?;
            let kernels = (batch.loss, work(back.is_some()));
            match checked.rows {
                0 => self.no_rows(checked, back.as_ref())?,
                _ => self.linear_rows(&chunks, kernels, args, back.as_ref())?,
            }
            numbers.weigh(&args.out)?;
        }
        self.add_up_rows(sum)?;
        let results = results.map(Results::outputs).into_iter().flatten();
        self.read_back(results.chain(back.map(Backward::outputs).into_iter().flatten()))
    }

    /// Gradients of no rows.
    ///
    /// # Safety
    /// Gradients were checked to have the shapes of what they belong to, and are borrowed exclusively.
    unsafe fn no_rows(
        &self,
        checked: &CheckedLinear<'_>,
        back: Option<&Backward<'_, '_>>,
    ) -> Result<()> {
        let Some(back) = back else { return Ok(()) };
        // SAFETY: gradients have the shapes of what they belong to: the caller's promise, by `CheckedLinear`.
        unsafe { back.gradients().clear(self, [checked.columns(), checked.features]) }
    }

    /// All chunks, by a plan of all rows: no row's numbers depend on its chunk.
    ///
    /// # Safety
    /// The arguments are of the checked call, and outputs are borrowed exclusively.
    unsafe fn linear_rows<A: PartArgument>(
        &self,
        chunks: &Chunks<'_, '_>,
        (loss, work): (Loss, Work),
        mut args: A,
        back: Option<&Backward<'_, '_>>,
    ) -> Result<()> {
        let gradients = back.map(Backward::gradients);
        let (kernels, at_once) = ((loss, Data::F32, work), chunks.longest());
        let lie = match chunks.side_by_side() && self.side_by_side(kernels, &mut args) {
            true => Lie::SideBySide,
            false => Lie::Whole { aligned: chunks.aligned() },
        };
        let planned = self.planned(kernels, args.rows(), lie, at_once)?;
        // SAFETY: the caller's contract; the plan is for as many rows as the longest chunk has.
        unsafe { chunks.run(&planned, args, gradients) }
    }

    /// Class weights of 16 bits in f32: kernels take them in the logits' type or in f32, and here that is one.
    fn weights_as_logits<'p, T>(
        &'p self,
        weight: &mut WeightArgs,
        of: &Checked<'_, T>,
    ) -> Result<Option<Workspace<'p>>> {
        let Some(given) = of.options.class_weight().filter(|w| w.dtype() != DType::F32) else {
            return Ok(None);
        };
        let mut memory = Workspace::new(self, 1);
        let wide = memory.panel(of.classes, DType::F32)?;
        let panels = [Panel::packed(weight.values, given.dtype(), of.classes), wide];
        let (sizes, places) = ([1, of.classes], Places::default());
        // SAFETY: the weights were checked to be one a class, and the memory has as many.
        unsafe { self.panel(BatchKernel::PanelRound, panels, sizes, places, false)? };
        *weight = WeightArgs { values: wide.address, kind: args::kind(DType::F32), pad: 0 };
        Ok(Some(memory))
    }

    /// Where the rows' losses are no results themselves.
    pub(in crate::cuda::loss) fn add_up_rows(&self, sum: SumArgs) -> Result<()> {
        if sum.tickets == 0 { Ok(()) } else { self.add_up(sum) }
    }
}

pub(in crate::cuda::loss) fn work(back: bool) -> Work {
    if back { Work::Fused } else { Work::Forward }
}

/// The upstream gradients that a backward pass reads.
fn given<'g>(
    args: &'g mut CrossEntropyArgs,
    back: Option<&Backward<'_, '_>>,
    tokens: bool,
) -> Vec<&'g mut UpstreamArgs> {
    match back {
        None => Vec::new(),
        Some(_) if !tokens => vec![&mut args.upstream],
        Some(_) => {
            let TokenArgs { of_logprob, of_entropy, .. } = &mut args.tokens;
            vec![&mut args.upstream, of_logprob, of_entropy]
        }
    }
}
