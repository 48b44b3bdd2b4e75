//! `warploss eval nll`.

use super::call::{Call, Common, Evaluate, Evaluation, bytes, one_number, zeros};
use super::columns::Columns;
use crate::base::dtype::DType;
use crate::cli::failure::Failure;
use crate::cli::memory;
use crate::spec::grad_output::GradOutput;
use crate::spec::nll::Nll;
use clap::Args;
use std::time::Instant;

/// Options of the op.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads input (log-probabilities [C], [N, C] or [N, C, d1, ...]), target (class indices) and, where
the file has them, weight [C] and, with --grad, grad_output. Writes loss (f32); with --grad also
grad_input.

Example:
  warploss eval nll --input log_probabilities.safetensors --reduction sum")]
pub(super) struct NllArgs {
    #[command(flatten)]
    common: Common,

    /// The label of rows that do not count
    #[arg(long, value_name = "LABEL", default_value_t = -100, allow_hyphen_values = true)]
    ignore_index: i64,
}

impl Evaluate for NllArgs {
    fn common(&self) -> &Common {
        &self.common
    }

    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure> {
        let input = call.inputs.floats("input")?;
        let target = call.inputs.indices("target")?;
        let weight = call.inputs.find_floats("weight")?;
        let columns = Columns::new(&input, self.common.classes)?;
        let view = columns.of(&input)?;
        let mut nll =
            Nll::default().reduction(self.common.reduction()).ignore_index(self.ignore_index);
        let weight = weight.as_ref().map(|w| w.view()).transpose()?;
        if let Some(weight) = weight {
            nll = nll.weight(weight);
        }
        let grad_output = if self.common.grad { call.grad_output()? } else { None };
        let upstream = match &grad_output {
            Some(tensor) => GradOutput::Tensor(tensor.view()?),
            None => GradOutput::default(),
        };

        let rows = target.elements();
        let grad_bytes = if self.common.grad { bytes(input.dtype(), input.shape()) } else { 0 };
        memory::require(bytes(DType::F32, &[rows]) + grad_bytes, "the results")?;

        let start = Instant::now();
        let loss =
            nll.forward(call.device, view, target.view()?).map_err(|e| call.renamed(&e, &[]))?;
        let mut tensors = Vec::new();
        if self.common.grad {
            let mut grad = zeros("grad_input", input.dtype(), input.shape())?;
            let target = target.view()?;
            columns
                .of_mut(&mut grad)
                .and_then(|view| nll.backward_into(call.device, target, upstream, view))
                .map_err(|e| call.renamed(&e, &[]))?;
            tensors.push(("grad_input".to_owned(), grad));
        }
        let seconds = start.elapsed().as_secs_f64();

        let value = one_number(&loss);
        if call.output {
            tensors.push(("loss".to_owned(), loss));
        }
        Ok(Evaluation {
            dtype: input.dtype(),
            shape: columns.stored,
            reduction: self.common.reduction(),
            loss: value,
            rows,
            ignored: target.count(self.ignore_index),
            seconds,
            tensors,
        })
    }
}
