//! Where gradients go, and what an allocating call returns.

use crate::base::tensor::Tensor;
use crate::spec::linear_cross_entropy::LinearGradOut;

/// Memory that gradients are written to; without one of them its product is not made. There is no target that
/// has one.
#[derive(Debug, Default)]
pub struct DistillationGradOut<'a> {
    /// Of the student's tensors.
    pub student: LinearGradOut<'a>,
    /// Of the teacher's.
    pub teacher: LinearGradOut<'a>,
}

impl<'a> From<LinearGradOut<'a>> for DistillationGradOut<'a> {
    /// Of the student's tensors alone.
    fn from(student: LinearGradOut<'a>) -> Self {
        DistillationGradOut { student, teacher: LinearGradOut::default() }
    }
}

/// What an allocating forward and backward pass returns: the student's gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct DistillationGrad {
    /// `[]`, or one a row for none; f32.
    pub loss: Tensor,
    /// Gradient of the hidden states; the input's shape and dtype.
    pub input: Tensor,
    /// Gradient of the classifier; its shape and dtype.
    pub linear_weight: Tensor,
    /// Gradient of the bias, where there is one; its shape and dtype.
    pub linear_bias: Option<Tensor>,
}
