//! `warploss eval cross-entropy`.

use super::call::{Call, Common, Evaluate, Evaluation, bytes, one_number, zeros};
use super::columns::Columns;
use super::of_logits::OfLogits;
use super::ranks;
use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::base::tensor::{Tensor, TensorRef};
use crate::cli::failure::Failure;
use crate::cli::memory;
use crate::device::Device;
use crate::spec::cross_entropy::{CrossEntropy, CrossEntropyGradients};
use crate::spec::grad_output::GradOutput;
use crate::spec::ranks::Ranks;
use clap::Args;
use std::time::Instant;

/// Options of the op.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads input (logits [C], [N, C] or [N, C, d1, ...]), target (class indices, or probabilities shaped
as the input) and, where the file has them, weight [C] and, with --grad, grad_output. Writes loss
and lse (f32, one per row); with --grad also grad_input, and grad_target for probabilities; with
--ranks argmax and rank.

Example:
  warploss eval cross-entropy --input logits.safetensors --label-smoothing 0.1")]
pub(super) struct CrossEntropyArgs {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    of_logits: OfLogits,

    /// Write argmax (the best class) and rank (classes that beat the target) too, i64, one per row
    #[arg(long)]
    ranks: bool,
}

const NAMES: &[(&str, &str)] = &[
    ("logits", "input"),
    ("label_smoothing", "--label-smoothing"),
    ("lse_square_scale", "--z-loss"),
    ("softcap", "--softcap"),
    ("ignore_index", "--ignore-index"),
    ("logit_scale", "--logit-scale"),
    ("rank", "--ranks"),
];

impl Evaluate for CrossEntropyArgs {
    fn common(&self) -> &Common {
        &self.common
    }

    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure> {
        let input = call.inputs.floats("input")?;
        let target = call.inputs.either("target")?;
        let weight = call.inputs.find_floats("weight")?;
        let columns = Columns::new(&input, self.common.classes)?;
        let logits = columns.of(&input)?;
        let mut loss = self.of_logits.options(self.common.reduction());
        let weight = weight.as_ref().map(|w| w.view()).transpose()?;
        if let Some(weight) = weight {
            loss = loss.weight(weight);
        }
        let grad_output = if self.common.grad { call.grad_output()? } else { None };
        let upstream = match &grad_output {
            Some(tensor) => GradOutput::Tensor(tensor.view()?),
            None => GradOutput::default(),
        };

        // A target of the input's shape is one number an element, padding included.
        let soft = target.dtype().is_float() && target.shape() == input.shape();
        let target_view = if soft { columns.of(&target)? } else { target.view()? };
        let rows = match soft {
            true => target.elements() / columns.classes_stored().max(1),
            false => target.elements(),
        };
        // Loss, log-sum-exp and z-loss of each row, and the gradient.
        let gradients = u128::from(self.common.grad) * if soft { 2 } else { 1 };
        let grad_bytes = gradients * bytes(input.dtype(), input.shape());
        let per_row = 3 * bytes(DType::F32, &[rows]) + ranks::bytes(self.ranks, rows);
        memory::require(per_row + grad_bytes, "the results")?;

        let work = Work { loss: &loss, device: call.device, logits, target: target_view };
        let start = Instant::now();
        let (value, lse, ranks) = work.forward(self.ranks).map_err(|e| call.renamed(&e, NAMES))?;
        let mut tensors = Vec::new();
        if self.common.grad {
            let mut grad = zeros("grad_input", input.dtype(), input.shape())?;
            let mut grad_target = match soft {
                true => Some(zeros("grad_target", target.dtype(), target.shape())?),
                false => None,
            };
            let views = columns.of_mut(&mut grad).and_then(|logits| {
                let target = grad_target.as_mut().map(|t| columns.of_mut(t)).transpose()?;
                Ok(CrossEntropyGradients { logits, target })
            });
            views
                .and_then(|views| work.backward(&lse, upstream, views))
                .map_err(|e| call.renamed(&e, NAMES))?;
            tensors.push(("grad_input".to_owned(), grad));
            tensors.extend(grad_target.map(|grad| ("grad_target".to_owned(), grad)));
        }
        let seconds = start.elapsed().as_secs_f64();

        let result = Evaluation {
            dtype: input.dtype(),
            shape: columns.stored,
            reduction: self.common.reduction(),
            loss: one_number(&value),
            rows,
            ignored: target.count(self.of_logits.ignore_index),
            seconds,
            tensors: Vec::new(),
        };
        if call.output {
            tensors.push(("loss".to_owned(), value));
            tensors.push(("lse".to_owned(), lse));
            tensors.extend(ranks::named(ranks));
        }
        Ok(Evaluation { tensors, ..result })
    }
}

/// The inputs of both passes.
struct Work<'a> {
    loss: &'a CrossEntropy<'a>,
    device: &'a Device,
    logits: TensorRef<'a>,
    target: TensorRef<'a>,
}

impl Work<'_> {
    /// Loss, log-sum-exp and, where asked for, ranks; what is wrong with the inputs comes out here.
    fn forward(&self, ranks: bool) -> Result<(Tensor, Tensor, Option<Ranks>), Error> {
        let (device, logits, target) = (self.device, self.logits, self.target);
        let (out, ranks) = match ranks {
            false => (self.loss.forward(device, logits, target)?, None),
            true => {
                let (out, ranks) = self.loss.forward_with_ranks(device, logits, target)?;
                (out, Some(ranks))
            }
        };
        Ok((out.loss, out.lse, ranks))
    }

    /// The gradient, from the log-sum-exp rather than from a copy of the logits: the mapping is
    /// read twice, but only gradients are written.
    fn backward(
        &self,
        lse: &Tensor,
        upstream: GradOutput<'_>,
        gradients: CrossEntropyGradients<'_>,
    ) -> Result<(), Error> {
        let saved = (self.target, lse.view());
        self.loss.backward_into(self.device, self.logits, saved, upstream, gradients)
    }
}
