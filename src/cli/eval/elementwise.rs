//! `warploss eval` of the elementwise losses: `mse`, `l1`, `smooth-l1`, `huber`,
//! `bce-with-logits`, `kl-div`.

use super::{Call, Common, Evaluate, Evaluation, Failure, bytes, memory, one_number};
use crate::base::dtype::DType;
use crate::base::shape::Shape;
use crate::base::tensor::TensorRef;
use crate::cli::file::Input;
use crate::spec::bce_with_logits::BceWithLogits;
use crate::spec::broadcast::broadcast;
use crate::spec::elementwise::sealed::{Loss, Weighted};
use crate::spec::elementwise::{Elementwise, Wrt};
use crate::spec::grad_output::GradOutput;
use crate::spec::huber::Huber;
use crate::spec::kl_div::KlDiv;
use crate::spec::l1::L1;
use crate::spec::mse::Mse;
use crate::spec::smooth_l1::SmoothL1;
use clap::Args;
use std::time::Instant;

/// Options of the op.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads input, target (shapes broadcast as in PyTorch) and, where the file has them, weight (then all
three have one shape) and, with --grad, grad_output. Writes loss (f32); with --grad also grad_input
and grad_target.

Example:
  warploss eval mse --input pairs.safetensors --grad --output gradients.safetensors")]
pub(super) struct MseArgs {
    #[command(flatten)]
    common: Common,
}

/// Options of the op.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads and writes what mse does.

Example:
  warploss eval l1 --input pairs.safetensors --reduction none")]
pub(super) struct L1Args {
    #[command(flatten)]
    common: Common,
}

/// Options of the op.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads and writes what mse does.

Example:
  warploss eval smooth-l1 --input pairs.safetensors --beta 0.5")]
pub(super) struct SmoothL1Args {
    #[command(flatten)]
    common: Common,

    /// Where the square ends and the line begins; 0 is l1
    #[arg(long, value_name = "B", default_value_t = 1.0, allow_hyphen_values = true)]
    beta: f32,
}

/// Options of the op.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads and writes what mse does.

Example:
  warploss eval huber --input pairs.safetensors --delta 2")]
pub(super) struct HuberArgs {
    #[command(flatten)]
    common: Common,

    /// Where the square ends and the line begins
    #[arg(long, value_name = "D", default_value_t = 1.0, allow_hyphen_values = true)]
    delta: f32,
}

/// Options of the op.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads input (logits), target (of its shape) and, where the file has them, weight and pos_weight
(which broadcast to the input) and, with --grad, grad_output. Writes loss (f32); with --grad also
grad_input and grad_target.

Example:
  warploss eval bce-with-logits --input labels.safetensors --reduction sum")]
pub(super) struct BceWithLogitsArgs {
    #[command(flatten)]
    common: Common,
}

/// Options of the op.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads input (log-probabilities), target (probabilities, or with --log-target their logarithms;
shapes broadcast as in PyTorch) and, with --grad, where the file has it, grad_output. Writes loss
(f32); with --grad also grad_input and grad_target. --reduction batchmean divides by the input's
first dimension.

Example:
  warploss eval kl-div --input distributions.safetensors --reduction batchmean")]
pub(super) struct KlDivArgs {
    #[command(flatten)]
    common: Common,

    /// The target holds logarithms of probabilities
    #[arg(long)]
    log_target: bool,
}

/// A tensor that the file may have, as a view.
fn view<'a>(tensor: &'a Option<Input<'_>>) -> Result<Option<TensorRef<'a>>, Failure> {
    tensor.as_ref().map(Input::view).transpose()
}

/// With the file's `weight`, where it has one.
fn weighted<L: Weighted>(
    op: Elementwise<'_, L>,
    common: &Common,
    call: &Call<'_>,
) -> Result<Evaluation, Failure> {
    let weight = call.inputs.find_floats("weight")?;
    match view(&weight)? {
        Some(weight) => evaluate(op.weight(weight), common, call),
        None => evaluate(op, common, call),
    }
}

/// Every one of them: `op` has its own options.
fn evaluate<L: Loss>(
    op: Elementwise<'_, L>,
    common: &Common,
    call: &Call<'_>,
) -> Result<Evaluation, Failure> {
    if let Some(classes) = common.classes {
        let expected = "expected none (the rows of this op have no classes)";
        return Err(Failure::input(format!("--classes: {expected}, got {classes}")));
    }
    let input = call.inputs.floats("input")?;
    let target = call.inputs.floats("target")?;
    let (x, y) = (input.view()?, target.view()?);
    let grad_output = if common.grad { call.grad_output()? } else { None };
    let upstream = view(&grad_output)?.map_or(GradOutput::default(), GradOutput::Tensor);
    let op = op.reduction(common.reduction());

    // Shapes that do not broadcast are the library's to report.
    let result = broadcast(x.shape(), y.shape()).unwrap_or(Shape::SCALAR);
    let gradients = bytes(x.dtype(), &x.shape()) + bytes(y.dtype(), &y.shape());
    let needed = bytes(DType::F32, &result) + if common.grad { gradients } else { 0 };
    memory::require(needed, "the results")?;

    let renamed = |e: &crate::base::error::Error| {
        call.renamed(e, &[("beta", "--beta"), ("delta", "--delta"), ("pos_weight", "pos_weight")])
    };
    let start = Instant::now();
    let mut tensors = Vec::new();
    let loss = match common.grad {
        false => op.forward(call.device, x, y).map_err(|e| renamed(&e))?,
        true => {
            let (loss, grads) = op
                .forward_backward(call.device, x, y, upstream, Wrt::Both)
                .map_err(|e| renamed(&e))?;
            let named = [("grad_input", grads.grad_input), ("grad_target", grads.grad_target)];
            for (name, grad) in named {
                tensors.extend(grad.map(|grad| (name.to_owned(), grad)));
            }
            loss
        }
    };
    let seconds = start.elapsed().as_secs_f64();

    let value = one_number(&loss);
    tensors.push(("loss".to_owned(), loss));
    Ok(Evaluation {
        dtype: input.dtype(),
        shape: input.shape().to_vec(),
        reduction: common.reduction(),
        loss: value,
        rows: result.iter().product(),
        ignored: 0,
        seconds,
        tensors,
    })
}

impl Evaluate for MseArgs {
    fn common(&self) -> &Common {
        &self.common
    }
    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure> {
        weighted(Mse::default(), self.common(), call)
    }
}

impl Evaluate for L1Args {
    fn common(&self) -> &Common {
        &self.common
    }
    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure> {
        weighted(L1::default(), self.common(), call)
    }
}

impl Evaluate for SmoothL1Args {
    fn common(&self) -> &Common {
        &self.common
    }
    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure> {
        weighted(SmoothL1::default().beta(self.beta), self.common(), call)
    }
}

impl Evaluate for HuberArgs {
    fn common(&self) -> &Common {
        &self.common
    }
    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure> {
        weighted(Huber::default().delta(self.delta), self.common(), call)
    }
}

impl Evaluate for BceWithLogitsArgs {
    fn common(&self) -> &Common {
        &self.common
    }
    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure> {
        let pos_weight = call.inputs.find_floats("pos_weight")?;
        match view(&pos_weight)? {
            Some(r) => weighted(BceWithLogits::default().pos_weight(r), self.common(), call),
            None => weighted(BceWithLogits::default(), self.common(), call),
        }
    }
}

impl Evaluate for KlDivArgs {
    fn common(&self) -> &Common {
        &self.common
    }
    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure> {
        evaluate(KlDiv::default().log_target(self.log_target), self.common(), call)
    }
}
