//! A case in words, so that a mismatch says what it was about.

use super::cases::{Call, Case, CrossEntropyCall, Upstream};
use crate::Tensor;
use std::fmt;

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { op, values, dtype, shape, row_stride, .. } = self;
        write!(f, "{} {dtype} {shape:?} row stride {row_stride}, values {values:?}", op.name())?;
        match &self.call {
            Call::CrossEntropy(call) => {
                let CrossEntropyCall { target, weight, options, grad_output } = &**call;
                let weight = weight.as_ref().map(Tensor::dtype);
                let g = match grad_output {
                    Upstream::Number(g) => g.to_string(),
                    Upstream::Tensor(g) => format!("{} per row", g.dtype()),
                };
                write!(f, ", target {}, weight {weight:?}, {}", target.dtype(), options.reduction)?;
                write!(f, ", ignore_index {}", options.ignore_index)?;
                write!(f, ", label_smoothing {}", options.label_smoothing)?;
                write!(f, ", lse_square_scale {}", options.lse_square_scale)?;
                write!(f, ", logit_scale {}", options.logit_scale)?;
                write!(f, ", softcap {:?}, grad_output {g}", options.softcap)
            }
            Call::LogSoftmax { dim, output, grad_output } => {
                write!(f, ", dim {dim}, output {output}, grad_output {}", grad_output.dtype())
            }
            Call::LogSumExp { dims, keepdim, grad_output } => {
                write!(f, ", dims {dims:?}, keepdim {keepdim}")?;
                write!(f, ", grad_output {}", grad_output.dtype())
            }
        }
    }
}
