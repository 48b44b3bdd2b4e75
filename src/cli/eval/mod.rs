//! `warploss eval OP`: tensors from a file, a loss, one line of JSON, and tensors to a file.
//!
//! A loss whose entry in the catalogue says what it reads is evaluated by that (`described.rs`): to add
//! one, nothing is written here. One that has more to say is a file of its own: a type that is
//! `clap::Args` and [`Evaluate`], with a variant and a line in [`ByHand`].

mod adaptive_log_softmax;
mod call;
mod columns;
mod cross_entropy;
mod described;
mod distill;
mod js_div;
mod linear;
mod linear_cross_entropy;
mod linear_logprob_entropy;
mod log_softmax;
mod logprob_entropy;
mod logsumexp;
mod nll;
mod of_logits;
mod ranks;
mod upstream;

use super::device::DeviceChoice;
use super::failure::Failure;
use super::file::InputFile;
use super::output;
use super::output::OutputFile;
use call::{Call, Evaluate};
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};
use described::Described;

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
    /// Cross entropy between hidden states times a classifier, and class indices or probabilities
    LinearCrossEntropy(linear_cross_entropy::LinearCrossEntropyArgs),
    /// Log-probabilities along a dimension
    LogSoftmax(log_softmax::LogSoftmaxArgs),
    /// Logarithm of the sum of exponentials along dimensions
    Logsumexp(logsumexp::LogsumexpArgs),
    /// Log-probability of the target and entropy of each row of logits
    LogprobEntropy(logprob_entropy::LogprobEntropyArgs),
    /// Log-probability of the target and entropy of each row of hidden states times a classifier
    LinearLogprobEntropy(linear_logprob_entropy::LinearLogprobEntropyArgs),
    /// Adaptive log-softmax over many classes: loss, log-probabilities or predictions
    AdaptiveLogSoftmax(adaptive_log_softmax::AdaptiveLogSoftmaxArgs),
}

impl From<ByHand> for Op {
    fn from(by_hand: ByHand) -> Op {
        let (name, op): (_, Box<dyn Evaluate>) = match by_hand {
            ByHand::JsDiv(op) => ("js-div", Box::new(op)),
            ByHand::Nll(op) => ("nll", Box::new(op)),
            ByHand::CrossEntropy(op) => ("cross-entropy", Box::new(op)),
            ByHand::LinearCrossEntropy(op) => ("linear-cross-entropy", Box::new(op)),
            ByHand::LogSoftmax(op) => ("log-softmax", Box::new(op)),
            ByHand::Logsumexp(op) => ("logsumexp", Box::new(op)),
            ByHand::LogprobEntropy(op) => ("logprob-entropy", Box::new(op)),
            ByHand::LinearLogprobEntropy(op) => ("linear-logprob-entropy", Box::new(op)),
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
