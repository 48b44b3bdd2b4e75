//! `warploss eval log-softmax`.

use super::call::{Call, Common, Evaluate, Evaluation, bytes, zeros};
use super::columns::Columns;
use super::upstream::{Like, fill};
use crate::cli::failure::Failure;
use crate::cli::memory;
use crate::spec::log_softmax::LogSoftmax;
use clap::Args;
use std::time::Instant;

/// Options of the op.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads input and, with --grad, grad_output where the file has it. Writes output, in the input's
dtype (padding columns are -inf); with --grad also grad_input.

Example:
  warploss eval log-softmax --input logits.safetensors --dim -1 --output logp.safetensors")]
pub(super) struct LogSoftmaxArgs {
    #[command(flatten)]
    common: Common,

    /// The dimension to go along; negative counts from the end [default: the class dimension]
    #[arg(long, value_name = "DIM", allow_hyphen_values = true)]
    dim: Option<isize>,
}

const NAMES: &[(&str, &str)] = &[("dim", "--dim")];

impl Evaluate for LogSoftmaxArgs {
    fn common(&self) -> &Common {
        &self.common
    }

    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure> {
        let reduction = self.common.unreduced("log-softmax")?;
        let input = call.inputs.floats("input")?;
        let columns = Columns::new(&input, self.common.classes)?;
        let view = columns.of(&input)?;
        let dim = self.dim.unwrap_or(isize::from(view.rank() > 1));
        let op = LogSoftmax::dim(dim);
        let renamed = |e| call.renamed(&e, NAMES);

        let tensor_bytes = bytes(input.dtype(), input.shape());
        let grad_output = if self.common.grad { call.grad_output()? } else { None };
        let grad_bytes = if self.common.grad { 3 * tensor_bytes } else { 0 };
        memory::require(tensor_bytes + grad_bytes, "the results")?;

        let mut output = zeros("output", input.dtype(), input.shape())?;
        if columns.padded() {
            fill(&mut output, f32::NEG_INFINITY);
        }
        let start = Instant::now();
        columns
            .of_mut(&mut output)
            .and_then(|out| op.forward_into(call.device, view, out))
            .map_err(renamed)?;
        let mut tensors = Vec::new();
        if self.common.grad {
            let mut filled = None;
            let (stored, used) = (&columns.stored, &columns.used);
            let like = Like { stored, used, dtype: input.dtype() };
            let upstream = like.upstream(grad_output.as_ref(), &mut filled)?;
            let mut grad = zeros("grad_input", input.dtype(), input.shape())?;
            columns
                .of_mut(&mut grad)
                .and_then(|grad| op.backward_into(call.device, view, upstream, grad))
                .map_err(renamed)?;
            tensors.push(("grad_input".to_owned(), grad));
        }
        let seconds = start.elapsed().as_secs_f64();

        tensors.push(("output".to_owned(), output));
        let along = dim.rem_euclid(view.rank().max(1) as isize) as usize;
        let shape = view.shape();
        let lines = shape.iter().enumerate().filter(|&(d, _)| d != along);
        Ok(Evaluation {
            dtype: input.dtype(),
            rows: lines.map(|(_, &size)| size).product(),
            shape: columns.stored,
            reduction,
            loss: None,
            ignored: 0,
            seconds,
            tensors,
        })
    }
}
