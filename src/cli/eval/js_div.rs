//! `warploss eval js-div`.

use super::call::{Call, Common, Evaluate, Evaluation, bytes, one_number, zeros};
use super::columns::Columns;
use crate::base::dtype::DType;
use crate::base::reduction::Reduction;
use crate::cli::failure::Failure;
use crate::cli::memory;
use crate::spec::grad_output::GradOutput;
use crate::spec::js_div_logits::{JsDivLogits, JsDivLogitsGradOut};
use clap::Args;
use std::time::Instant;

/// Options of the op.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads input and target (a model's and a teacher's logits, both [C], [N, C] or [N, C, d1, ...]) and,
where the file has them, labels (class indices, one per row: those of --ignore-index leave their
row out) and, with --grad, grad_output. Writes loss (f32); with --grad also grad_input and
grad_target. The default reduction is batchmean, the sum over the rows that count.

Example:
  warploss eval js-div --input logits.safetensors --beta 0.1 --grad --output grad.safetensors")]
pub(super) struct JsDivArgs {
    #[command(flatten)]
    common: Common,

    /// The teacher's share of the mixture: 0 is KL(teacher, model), 1 is KL(model, teacher)
    #[arg(long, value_name = "B", default_value_t = 0.5, allow_hyphen_values = true)]
    beta: f32,

    /// The label of rows that do not count
    #[arg(long, value_name = "LABEL", default_value_t = -100, allow_hyphen_values = true)]
    ignore_index: i64,

    /// Multiply the model's logits by this first (an inverse temperature)
    #[arg(long, value_name = "S", default_value_t = 1.0, allow_hyphen_values = true)]
    logit_scale: f32,

    /// Multiply the teacher's logits by this first
    #[arg(long, value_name = "S", default_value_t = 1.0, allow_hyphen_values = true)]
    teacher_scale: f32,
}

const NAMES: &[(&str, &str)] = &[
    ("logits", "input"),
    ("labels", "labels"),
    ("beta", "--beta"),
    ("logit_scale", "--logit-scale"),
    ("teacher_scale", "--teacher-scale"),
];

impl Evaluate for JsDivArgs {
    fn common(&self) -> &Common {
        &self.common
    }

    fn evaluate(&self, call: &Call<'_>) -> Result<Evaluation, Failure> {
        let reduction = self.common.reduction_or(Reduction::BatchMean);
        let input = call.inputs.floats("input")?;
        let target = call.inputs.floats("target")?;
        let labels = call.inputs.find_indices("labels")?;
        let columns = Columns::new(&input, self.common.classes)?;
        let teacher = Columns::new(&target, self.common.classes)?;
        let (x, y) = (columns.of(&input)?, teacher.of(&target)?);
        let label_view = labels.as_ref().map(|labels| labels.view()).transpose()?;
        let mut op = JsDivLogits::default()
            .beta(self.beta)
            .reduction(reduction)
            .logit_scale(self.logit_scale)
            .teacher_scale(self.teacher_scale)
            .ignore_index(self.ignore_index);
        if let Some(labels) = label_view {
            op = op.labels(labels);
        }
        let grad_output = if self.common.grad { call.grad_output()? } else { None };
        let upstream = match &grad_output {
            Some(tensor) => GradOutput::Tensor(tensor.view()?),
            None => GradOutput::default(),
        };

        let classes = input.shape().get(usize::from(input.shape().len() > 1)).copied();
        let rows = input.elements() / classes.unwrap_or(1).max(1);
        let gradients = bytes(input.dtype(), input.shape()) + bytes(target.dtype(), target.shape());
        let needed = bytes(DType::F32, &[rows]) + if self.common.grad { gradients } else { 0 };
        memory::require(needed, "the results")?;

        let renamed = |e| call.renamed(&e, NAMES);
        let start = Instant::now();
        let loss = op.forward(call.device, x, y).map_err(renamed)?;
        let mut tensors = Vec::new();
        if self.common.grad {
            let mut grad_input = zeros("grad_input", input.dtype(), input.shape())?;
            let mut grad_target = zeros("grad_target", target.dtype(), target.shape())?;
            let logits = columns.of_mut(&mut grad_input).map_err(renamed)?;
            let target = Some(teacher.of_mut(&mut grad_target).map_err(renamed)?);
            let out = JsDivLogitsGradOut { logits, target };
            op.backward_into(call.device, x, y, upstream, out).map_err(renamed)?;
            tensors.push(("grad_input".to_owned(), grad_input));
            tensors.push(("grad_target".to_owned(), grad_target));
        }
        let seconds = start.elapsed().as_secs_f64();

        let value = one_number(&loss);
        if call.output {
            tensors.push(("loss".to_owned(), loss));
        }
        let ignored = labels.as_ref().map_or(0, |labels| labels.count(self.ignore_index));
        Ok(Evaluation {
            dtype: input.dtype(),
            shape: columns.stored,
            reduction,
            loss: value,
            rows,
            ignored,
            seconds,
            tensors,
        })
    }
}
