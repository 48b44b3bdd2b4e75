//! `warploss eval logprob-entropy`.

use super::call::{Call, Common, Evaluate, Evaluation, bytes, zeros};
use super::columns::Columns;
use super::of_logits::OfTokens;
use super::ranks;
use crate::base::dtype::DType;
use crate::cli::failure::Failure;
use crate::cli::memory;
use clap::Args;
use std::time::Instant;

/// Options of the op.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads input (logits [C], [N, C] or [N, C, d1, ...]) and target (class indices). Writes logprob and
entropy (f32, one per row); with --grad also grad_input, from grad_logprob and grad_entropy (each
one per row or one number; where the file has none: 1 and 0).

Example:
  warploss eval logprob-entropy --input logits.safetensors --logit-scale 0.7 --output out.safetensors")]
pub(super) struct LogprobEntropyArgs {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    of_tokens: OfTokens,
}

const NAMES: &[(&str, &str)] = &[
    ("logits", "input"),
    ("softcap", "--softcap"),
    ("logit_scale", "--logit-scale"),
    ("grad_logprob", "grad_logprob"),
    ("grad_entropy", "grad_entropy"),
];

impl Evaluate for LogprobEntropyArgs {
    fn common(&self) -> &Common {
        &self.common
    }

    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure> {
        let reduction = self.common.unreduced("logprob-entropy")?;
        let input = call.inputs.floats("input")?;
        let target = call.inputs.indices("target")?;
        let columns = Columns::new(&input, self.common.classes)?;
        let (logits, target_view) = (columns.of(&input)?, target.view()?);
        let upstream = |name| match self.common.grad {
            true => call.inputs.find_floats(name),
            false => Ok(None),
        };
        let given = [upstream("grad_logprob")?, upstream("grad_entropy")?];
        let given = self.of_tokens.upstream(&given)?;

        let rows = target.elements();
        let per_row = 3 * bytes(DType::F32, &[rows]) + ranks::bytes(self.of_tokens.ranks, rows);
        let grad_bytes = if self.common.grad { bytes(input.dtype(), input.shape()) } else { 0 };
        memory::require(per_row + grad_bytes, "the results")?;

        let op = self.of_tokens.options();
        let renamed = |e| call.renamed(&e, NAMES);
        let device = call.device;
        let start = Instant::now();
        let (out, ranks) = match self.of_tokens.ranks {
            false => op.forward(device, logits, target_view).map(|out| (out, None)),
            true => op
                .forward_with_ranks(device, logits, target_view)
                .map(|(out, ranks)| (out, Some(ranks))),
        }
        .map_err(renamed)?;
        let mut tensors = Vec::new();
        if self.common.grad {
            let mut grad = zeros("grad_input", input.dtype(), input.shape())?;
            let saved = (target_view, out.lse.view());
            columns
                .of_mut(&mut grad)
                .and_then(|grad| op.backward_into(device, logits, saved, given, grad))
                .map_err(renamed)?;
            tensors.push(("grad_input".to_owned(), grad));
        }
        let seconds = start.elapsed().as_secs_f64();

        tensors.push(("logprob".to_owned(), out.logprob));
        tensors.push(("entropy".to_owned(), out.entropy));
        tensors.extend(ranks::named(ranks));
        Ok(Evaluation {
            dtype: input.dtype(),
            shape: columns.stored,
            reduction,
            loss: None,
            rows,
            ignored: target.count(self.of_tokens.ignore_index),
            seconds,
            tensors,
        })
    }
}
