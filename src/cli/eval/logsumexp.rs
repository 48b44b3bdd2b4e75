//! `warploss eval logsumexp`.

use super::call::{Call, Common, Evaluate, Evaluation, bytes, one_number, zeros};
use super::columns::Columns;
use super::upstream::Like;
use crate::base::dtype::DType;
use crate::base::tensor::TensorRef;
use crate::cli::failure::Failure;
use crate::cli::memory;
use crate::spec::logsumexp::LogSumExp;
use clap::Args;
use std::time::Instant;

/// Options of the op.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads input and, with --grad, grad_output where the file has it. Writes output (f32); with --grad
also grad_input. The JSON line's loss is the output where that is one number of shape [].

Example:
  warploss eval logsumexp --input logits.safetensors --dim -1 --keepdim --output lse.safetensors")]
pub(super) struct LogsumexpArgs {
    #[command(flatten)]
    common: Common,

    /// The dimensions to go along (1 or 0,-1); negative counts from the end [default: the class
    /// dimension]
    #[arg(long, value_name = "DIM,...", allow_hyphen_values = true, value_delimiter = ',')]
    dim: Vec<isize>,

    /// Keep the dimensions gone along, with size 1
    #[arg(long)]
    keepdim: bool,
}

const NAMES: &[(&str, &str)] = &[("dim", "--dim")];

impl Evaluate for LogsumexpArgs {
    fn common(&self) -> &Common {
        &self.common
    }

    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure> {
        let reduction = self.common.unreduced("logsumexp")?;
        let input = call.inputs.floats("input")?;
        let columns = Columns::new(&input, self.common.classes)?;
        let view = columns.of(&input)?;
        let default = [isize::from(view.rank() > 1)];
        let dims = if self.dim.is_empty() { &default[..] } else { &self.dim };
        let renamed = |e| call.renamed(&e, NAMES);
        let op = LogSumExp::dims(dims).map_err(renamed)?.keepdim(self.keepdim);

        let grad_output = if self.common.grad { call.grad_output()? } else { None };
        let grad_bytes = if self.common.grad { bytes(input.dtype(), input.shape()) } else { 0 };
        let lines = lines(&view, dims);
        memory::require(2 * bytes(DType::F32, &lines) + grad_bytes, "the results")?;

        let start = Instant::now();
        let output = op.forward(call.device, view).map_err(renamed)?;
        let mut tensors = Vec::new();
        if self.common.grad {
            let mut filled = None;
            let shape = output.shape();
            let like = Like { stored: &shape, used: &shape, dtype: DType::F32 };
            let upstream = like.upstream(grad_output.as_ref(), &mut filled)?;
            let mut grad = zeros("grad_input", input.dtype(), input.shape())?;
            columns
                .of_mut(&mut grad)
                .and_then(|grad| op.backward_into(call.device, view, output.view(), upstream, grad))
                .map_err(renamed)?;
            tensors.push(("grad_input".to_owned(), grad));
        }
        let seconds = start.elapsed().as_secs_f64();

        let loss = one_number(&output);
        let rows = output.view().elements();
        tensors.push(("output".to_owned(), output));
        Ok(Evaluation {
            dtype: input.dtype(),
            shape: columns.stored,
            reduction,
            loss,
            rows,
            ignored: 0,
            seconds,
            tensors,
        })
    }
}

/// Sizes of the dimensions that stay; a dimension out of range is the library's to refuse.
fn lines(input: &TensorRef<'_>, dims: &[isize]) -> Vec<usize> {
    let rank = input.rank().max(1) as isize;
    let shape = input.shape();
    let along = |d: usize| dims.iter().any(|&dim| dim.rem_euclid(rank) == d as isize);
    shape.iter().enumerate().filter(|&(d, _)| !along(d)).map(|(_, &size)| size).collect()
}
