//! `warploss eval linear-logprob-entropy`.

use super::call::{Call, Common, Evaluate, Evaluation, bytes, zeros};
use super::linear::{self, OfProducts};
use super::of_logits::OfTokens;
use super::ranks;
use crate::base::dtype::DType;
use crate::base::tensor::Tensor;
use crate::cli::failure::Failure;
use crate::cli::file::Input;
use crate::cli::memory;
use crate::spec::linear_cross_entropy::{LinearGradOut, LinearInput};
use crate::spec::linear_logprob_entropy::LinearLogprobEntropy;
use crate::spec::logprob_entropy::LogprobEntropyOut;
use crate::spec::ranks::Ranks;
use clap::Args;
use std::time::Instant;

/// Options of the op.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads input (hidden states [D] or [N, D]), linear_weight (the classifier [V, D]), target (class
indices) and, where the file has them, linear_bias [V] and temperature [N]. Writes logprob and
entropy (f32, one per row); with --grad also grad_input, grad_linear_weight and grad_linear_bias,
from grad_logprob and grad_entropy (each one per row or one number; where the file has none: 1 and
0). No logits are in memory but those of a chunk of rows.

Example:
  warploss eval linear-logprob-entropy --input hidden.safetensors --grad --output out.safetensors")]
pub(super) struct LinearLogprobEntropyArgs {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    of_tokens: OfTokens,

    #[command(flatten)]
    of_products: OfProducts,
}

const NAMES: &[(&str, &str)] = &[
    ("linear_weight", "linear_weight"),
    ("linear_bias", "linear_bias"),
    ("temperature", "temperature"),
    ("softcap", "--softcap"),
    ("logit_scale", "--logit-scale"),
    linear::NAMES[0],
    linear::NAMES[1],
    ("grad_logprob", "grad_logprob"),
    ("grad_entropy", "grad_entropy"),
];

impl Evaluate for LinearLogprobEntropyArgs {
    fn common(&self) -> &Common {
        &self.common
    }

    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure> {
        let reduction = self.common.unreduced("linear-logprob-entropy")?;
        self.common.no_classes("the classes are linear_weight's rows")?;
        let [hidden, weight] = [call.inputs.floats("input")?, call.inputs.floats("linear_weight")?];
        let target = call.inputs.indices("target")?;
        let find = |name: &str| call.inputs.find_floats(name);
        let (bias, temperature) = (find("linear_bias")?, find("temperature")?);
        let mut input = LinearInput::new(hidden.view()?, weight.view()?, target.view()?);
        input.linear_bias = bias.as_ref().map(Input::view).transpose()?;
        input.temperature = temperature.as_ref().map(Input::view).transpose()?;
        let given = match self.common.grad {
            true => [find("grad_logprob")?, find("grad_entropy")?],
            false => [None, None],
        };
        let upstream = self.of_tokens.upstream(&given)?;

        let (rows, dtype) = (target.elements(), hidden.dtype());
        let of_rows = 3 * bytes(DType::F32, &[rows]) + ranks::bytes(self.of_tokens.ranks, rows);
        let gradients = match self.common.grad {
            true => bytes(dtype, hidden.shape()).saturating_add(bytes(dtype, weight.shape())),
            false => 0,
        };
        memory::require(of_rows.saturating_add(gradients), "the results")?;

        let op = LinearLogprobEntropy::from(self.of_tokens.options())
            .path(self.of_products.path())
            .max_workspace_bytes(self.of_products.workspace());
        let of_rows = |name, dtype| zeros(name, dtype, target.shape());
        let (mut logprob, mut entropy) =
            (of_rows("logprob", DType::F32)?, of_rows("entropy", DType::F32)?);
        let ranks = self.of_tokens.ranks.then(|| -> Result<_, Failure> {
            let (argmax, rank) = (of_rows("argmax", DType::I64)?, of_rows("rank", DType::I64)?);
            Ok(Ranks { argmax, rank })
        });
        let mut ranks = ranks.transpose()?;
        let mut out = LogprobEntropyOut::new(logprob.view_mut(), entropy.view_mut());
        if let Some(Ranks { argmax, rank }) = &mut ranks {
            (out.argmax, out.rank) = (Some(argmax.view_mut()), Some(rank.view_mut()));
        }
        let like = |name, of: &Input<'_>| zeros(name, of.dtype(), of.shape());
        let mut gradients = Vec::new();
        if self.common.grad {
            gradients.push(like("grad_input", &hidden)?);
            gradients.push(like("grad_linear_weight", &weight)?);
            gradients.extend(bias.as_ref().map(|b| like("grad_linear_bias", b)).transpose()?);
        }
        let mut views = gradients.iter_mut().map(Tensor::view_mut);
        let grad_out = LinearGradOut {
            input: views.next(),
            linear_weight: views.next(),
            linear_bias: views.next(),
            ..LinearGradOut::default()
        };
        let start = Instant::now();
        match self.common.grad {
            true => op.forward_backward_into(call.device, &input, upstream, grad_out, out),
            false => op.forward_into(call.device, &input, out),
        }
        .map_err(|e| call.renamed(&e, NAMES))?;
        let seconds = start.elapsed().as_secs_f64();

        let names = ["grad_input", "grad_linear_weight", "grad_linear_bias"];
        let named = names.into_iter().zip(gradients);
        let named = named.chain([("logprob", logprob), ("entropy", entropy)]);
        let mut tensors: Vec<(String, Tensor)> =
            named.map(|(name, tensor)| (name.to_owned(), tensor)).collect();
        tensors.extend(ranks::named(ranks));
        Ok(Evaluation {
            dtype,
            shape: hidden.shape().to_vec(),
            reduction,
            loss: None,
            rows,
            ignored: target.count(self.of_tokens.ignore_index),
            seconds,
            tensors,
        })
    }
}
