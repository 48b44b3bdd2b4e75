//! `warploss eval OP`: tensors from a file, a loss, one line of JSON, and tensors to a file.
//!
//! A loss is one file here: its options, which tensors it reads and writes, and the library call.
//! To add one: write `eval/<op>.rs` with a type that is `clap::Args` and [`Evaluate`], and give it
//! a variant and a line in [`Op`].

mod adaptive_log_softmax;
mod columns;
mod cross_entropy;
mod elementwise;
mod js_div;
mod log_softmax;
mod logprob_entropy;
mod logsumexp;
mod nll;
mod ranks;
mod upstream;

use super::device::DeviceChoice;
use super::failure::Failure;
use super::file::{Input, InputFile, Inputs};
use super::output::OutputFile;
use super::{memory, number, output};
use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::Tensor;
use crate::device::Device;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// The command.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = false,
    after_help = "\
Prints one JSON object on one line: op, device, dtype, shape, reduction, loss, rows, ignored,
seconds (of computing). loss is a number, \"nan\", \"inf\" or \"-inf\", or null where the result
is not one number.

Example:
  warploss eval cross-entropy --input logits.safetensors --grad --output grad.safetensors"
)]
pub(super) struct Eval {
    #[command(subcommand)]
    op: Op,
}

#[derive(Debug, Subcommand)]
enum Op {
    /// Squared error between input and target
    Mse(elementwise::MseArgs),
    /// Absolute error between input and target
    L1(elementwise::L1Args),
    /// Absolute error with a squared middle of slope 1 at its edge
    SmoothL1(elementwise::SmoothL1Args),
    /// Squared error with straight ends
    Huber(elementwise::HuberArgs),
    /// Binary cross entropy between logits and probabilities
    BceWithLogits(elementwise::BceWithLogitsArgs),
    /// Kullback-Leibler divergence of a target from log-probabilities
    KlDiv(elementwise::KlDivArgs),
    /// Jensen-Shannon divergence between a model's logits and a teacher's
    JsDiv(js_div::JsDivArgs),
    /// Negative log-likelihood of class indices
    Nll(nll::NllArgs),
    /// Cross entropy between logits and class indices or probabilities
    CrossEntropy(cross_entropy::CrossEntropyArgs),
    /// Log-probabilities along a dimension
    LogSoftmax(log_softmax::LogSoftmaxArgs),
    /// Logarithm of the sum of exponentials along dimensions
    Logsumexp(logsumexp::LogsumexpArgs),
    /// Log-probability of the target and entropy of each row of logits
    LogprobEntropy(logprob_entropy::LogprobEntropyArgs),
    /// Adaptive log-softmax over many classes: loss, log-probabilities or predictions
    AdaptiveLogSoftmax(adaptive_log_softmax::AdaptiveLogSoftmaxArgs),
}

impl Op {
    fn parts(&self) -> (&'static str, &dyn Evaluate) {
        match self {
            Op::Mse(op) => ("mse", op),
            Op::L1(op) => ("l1", op),
            Op::SmoothL1(op) => ("smooth-l1", op),
            Op::Huber(op) => ("huber", op),
            Op::BceWithLogits(op) => ("bce-with-logits", op),
            Op::KlDiv(op) => ("kl-div", op),
            Op::JsDiv(op) => ("js-div", op),
            Op::Nll(op) => ("nll", op),
            Op::CrossEntropy(op) => ("cross-entropy", op),
            Op::LogSoftmax(op) => ("log-softmax", op),
            Op::Logsumexp(op) => ("logsumexp", op),
            Op::LogprobEntropy(op) => ("logprob-entropy", op),
            Op::AdaptiveLogSoftmax(op) => ("adaptive-log-softmax", op),
        }
    }
}

/// What every op takes.
#[derive(Debug, Args)]
struct Common {
    /// Safetensors file with the input tensors; memory-mapped
    #[arg(long, value_name = "FILE")]
    input: PathBuf,

    /// Write the resulting tensors to this safetensors file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Read the tensors whose names are this prefix and the name
    #[arg(long, value_name = "P", default_value = "", hide_default_value = true)]
    prefix: String,

    /// Write gradients to --output too, from `grad_output` where the file has it, else from 1
    #[arg(long)]
    grad: bool,

    /// How the losses of the rows become the result; batchmean for the divergences alone
    #[arg(long, value_name = "none|sum|mean|batchmean", hide_possible_values = true)]
    reduction: Option<ReductionArg>,

    /// Only the first V of each row's columns are classes, the rest is padding
    #[arg(long, value_name = "V", allow_hyphen_values = true)]
    classes: Option<usize>,
}

/// `--reduction`, as far as any op knows one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReductionArg {
    None,
    Sum,
    Mean,
    #[value(name = "batchmean")]
    BatchMean,
}

impl Common {
    /// The reduction of a loss; the mean where nothing is said.
    fn reduction(&self) -> Reduction {
        self.reduction_or(Reduction::Mean)
    }

    /// The reduction of a loss that has a default of its own.
    fn reduction_or(&self, default: Reduction) -> Reduction {
        match self.reduction {
            Some(ReductionArg::None) => Reduction::None,
            Some(ReductionArg::Sum) => Reduction::Sum,
            Some(ReductionArg::Mean) => Reduction::Mean,
            Some(ReductionArg::BatchMean) => Reduction::BatchMean,
            None => default,
        }
    }

    /// For an op whose results are not losses: only `none` can be said of them.
    fn unreduced(&self, op: &str) -> Result<Reduction, Failure> {
        match self.reduction {
            Some(ReductionArg::None) | None => Ok(Reduction::None),
            Some(ReductionArg::Sum | ReductionArg::Mean | ReductionArg::BatchMean) => {
                Err(Failure::input(format!(
                    "--reduction: expected none ({op} does not reduce rows), got {}",
                    self.reduction()
                )))
            }
        }
    }
}

/// One op of `eval`.
trait Evaluate {
    /// The options that every op has.
    fn common(&self) -> &Common;
    /// Reads, checks, computes.
    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure>;
}

/// What an op is called with.
#[derive(Debug)]
struct Call<'a> {
    device: &'a Device,
    inputs: &'a Inputs<'a>,
    /// Whether the tensors will be written, so that those nobody asked for are not computed.
    output: bool,
}

/// What an op returns.
#[derive(Debug)]
struct Evaluation {
    dtype: DType,
    shape: Vec<usize>,
    reduction: Reduction,
    /// Where the result is one number.
    loss: Option<f32>,
    rows: usize,
    ignored: usize,
    seconds: f64,
    tensors: Vec<(String, Tensor)>,
}

impl Eval {
    pub(super) fn run(&self, device: DeviceChoice) -> Result<(), Failure> {
        let (name, op) = self.op.parts();
        let common = op.common();
        let output =
            common.output.as_deref().map(|path| OutputFile::new("--output", path)).transpose()?;
        if common.grad && output.is_none() {
            let expected = "expected --output as well (gradients are written there)";
            return Err(Failure::input(format!("--grad: {expected}, got none")));
        }
        let file = InputFile::open("--input", &common.input)?;
        output.as_ref().map_or(Ok(()), |output| output.is_not(&file))?;
        let inputs = file.inputs(&common.prefix)?;
        let device = device.open()?;
        let call = Call { device: &device, inputs: &inputs, output: output.is_some() };
        let evaluation = op.evaluate(&call)?;
        if let Some(output) = &output {
            output.write(&evaluation.tensors)?;
        }
        output::print(&evaluation.json(name, &device), output.as_ref())
    }
}

impl Evaluation {
    fn json(&self, op: &str, device: &Device) -> Value {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.into(), value);
        put("op", op.into());
        put("device", device.name().into());
        put("dtype", self.dtype.name().into());
        put("shape", self.shape.clone().into());
        put("reduction", self.reduction.name().into());
        put("loss", self.loss.map_or(Value::Null, number::f32));
        put("rows", self.rows.into());
        put("ignored", self.ignored.into());
        put("seconds", number::f64(self.seconds));
        Value::Object(object)
    }
}

impl<'a> Call<'a> {
    /// The upstream gradient where the file has one.
    fn grad_output(&self) -> Result<Option<Input<'a>>, Failure> {
        self.inputs.find_floats("grad_output")
    }

    /// The library's error in the file's names; `more` are the op's own pairs.
    fn renamed(&self, error: &Error, more: &[(&str, &str)]) -> Failure {
        let mut names: Vec<(&str, String)> = more
            .iter()
            .map(|&(library, here)| match here.starts_with("--") {
                true => (library, here.to_owned()),
                false => (library, self.inputs.full_name(here)),
            })
            .collect();
        names.push(("reduction", "--reduction".to_owned()));
        for same in ["input", "target", "weight", "grad_output"] {
            names.push((same, self.inputs.full_name(same)));
        }
        Failure::renamed(error, &names)
    }
}

/// Bytes of a tensor, for the question whether it fits.
fn bytes(dtype: DType, shape: &[usize]) -> u128 {
    let elements = shape.iter().fold(1u128, |n, &d| n.saturating_mul(d as u128));
    elements.saturating_mul(dtype.size() as u128)
}

/// A tensor of zeros whose shape came from a file.
fn zeros(name: &'static str, dtype: DType, shape: &[usize]) -> Result<Tensor, Failure> {
    let shape = Shape::new(shape).ok_or_else(|| {
        Failure::input(format!(
            "{name}: expected at most {} dimensions",
            crate::base::shape::MAX_RANK
        ))
    })?;
    Ok(Tensor::zeros(name, dtype, shape)?)
}

/// The number that a result of no dimensions is.
fn one_number(tensor: &Tensor) -> Option<f32> {
    if tensor.shape().is_empty() { tensor.item().ok() } else { None }
}
