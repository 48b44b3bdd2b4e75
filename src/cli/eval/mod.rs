//! `warploss eval OP`: tensors from a file, a loss, one line of JSON, and tensors to a file.
//!
//! A loss whose entry in the catalogue says what it reads is evaluated by that (`described.rs`): to add
//! one, nothing is written here. One that has more to say is a file of its own: a type that is
//! `clap::Args` and [`Evaluate`], with a variant and a line in [`ByHand`].

mod adaptive_log_softmax;
mod columns;
mod cross_entropy;
mod described;
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
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand, ValueEnum};
use described::Described;
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

/// One of the losses: those that the catalogue describes, then those that have more to say.
struct Op {
    name: &'static str,
    op: Box<dyn Evaluate>,
}

/// Losses with columns that are no classes, targets of two kinds, or results that are no losses.
#[derive(Debug, Subcommand)]
enum ByHand {
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

impl From<ByHand> for Op {
    fn from(by_hand: ByHand) -> Op {
        let (name, op): (_, Box<dyn Evaluate>) = match by_hand {
            ByHand::JsDiv(op) => ("js-div", Box::new(op)),
            ByHand::Nll(op) => ("nll", Box::new(op)),
            ByHand::CrossEntropy(op) => ("cross-entropy", Box::new(op)),
            ByHand::LogSoftmax(op) => ("log-softmax", Box::new(op)),
            ByHand::Logsumexp(op) => ("logsumexp", Box::new(op)),
            ByHand::LogprobEntropy(op) => ("logprob-entropy", Box::new(op)),
            ByHand::AdaptiveLogSoftmax(op) => ("adaptive-log-softmax", Box::new(op)),
        };
        Op { name, op }
    }
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl FromArgMatches for Op {
    fn from_arg_matches(said: &ArgMatches) -> Result<Op, clap::Error> {
        let described = said.subcommand().and_then(|(name, said)| {
            Some((Described::all().find(|(op, _)| op.name() == name)?, said))
        });
        match described {
            Some((of, said)) => {
                Ok(Op { name: of.0.name(), op: Box::new(Described::new(of, said)?) })
            }
            None => ByHand::from_arg_matches(said).map(Op::from),
        }
    }

    fn update_from_arg_matches(&mut self, said: &ArgMatches) -> Result<(), clap::Error> {
        *self = Op::from_arg_matches(said)?;
        Ok(())
    }
}

impl Subcommand for Op {
    fn augment_subcommands(command: Command) -> Command {
        let described = Described::all().map(|(op, loss)| Described::command(op, loss));
        ByHand::augment_subcommands(command.subcommands(described))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Op::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        ByHand::has_subcommand(name) || Described::all().any(|(op, _)| op.name() == name)
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
        let (name, op) = (self.op.name, &self.op.op);
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
