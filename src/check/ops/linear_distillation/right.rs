//! What is right, of cases and of calls.

use crate::base::error::Result;
use crate::base::tensor::TensorRef;
use crate::check::reference::{self, DistillationData, HeadData, HeadReference, WithSizes};
use crate::spec::grad_output::GradOutput;
use crate::spec::js_div_logits::JsDivLogits;
use crate::spec::linear_distillation::{DistillationInput, LinearHead};

/// What is right of these tensors: the loss, and the gradients of both sides.
pub(super) fn right(
    options: &JsDivLogits<'_>,
    of: &DistillationInput<'_>,
    grad_output: GradOutput<'_>,
) -> Result<(WithSizes, [HeadReference; 2])> {
    let owned = |tensor: Option<TensorRef<'_>>| tensor.map(|tensor| tensor.to_f64()).transpose();
    let side = |head: &LinearHead<'_>| -> Result<HeadData> {
        Ok(HeadData {
            input: head.input.to_f64()?,
            features: head.input.shape().last().copied().unwrap_or(1),
            weight: head.linear_weight.to_f64()?,
            bias: owned(head.linear_bias)?,
            temperature: owned(head.temperature)?,
        })
    };
    let sides = [side(&of.student)?, side(&of.teacher)?];
    let labels = options.labels.map(reference::indices).transpose()?;
    let row_weight = owned(of.row_weight)?;
    let shape = of.student.input.shape();
    let data = DistillationData {
        sides: sides.each_ref(),
        rows: shape[..shape.len() - 1].iter().product(),
        classes: of.student.linear_weight.shape()[0],
        labels: labels.as_deref(),
        row_weight: row_weight.as_deref(),
        upstream: &reference::upstream(grad_output)?,
    };
    Ok(reference::linear_distillation(options, &data))
}
