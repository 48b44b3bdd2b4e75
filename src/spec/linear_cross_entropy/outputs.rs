//! Where gradients go, and what an allocating call returns.

use crate::base::tensor::{Tensor, TensorMut};
use crate::spec::cross_entropy::CrossEntropyOutput;

/// Memory that gradients are written to; without one of them its product is not made.
#[derive(Debug, Default)]
pub struct LinearGradOut<'a> {
    /// The input's shape and dtype, row stride free.
    pub input: Option<TensorMut<'a>>,
    /// The classifier's shape and dtype, row stride free.
    pub linear_weight: Option<TensorMut<'a>>,
    /// The bias's shape and dtype.
    pub linear_bias: Option<TensorMut<'a>>,
    /// The gradient with respect to probabilities; their shape and dtype, row stride free.
    pub target: Option<TensorMut<'a>>,
    /// Whether the gradients of classifier and bias are added to what is there.
    pub accumulate: bool,
    /// Whether the input's gradient is added to what is there.
    pub accumulate_input: bool,
}

/// What an allocating forward and backward pass returns.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearGrad {
    /// Loss, log-sum-exp and z-loss.
    pub output: CrossEntropyOutput,
    /// Gradient of the hidden states; the input's shape and dtype.
    pub input: Tensor,
    /// Gradient of the classifier; its shape and dtype.
    pub linear_weight: Tensor,
    /// Gradient of the bias, where there is one; its shape and dtype.
    pub linear_bias: Option<Tensor>,
}

impl<'a> LinearGradOut<'a> {
    /// All gradients that there are, by name.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, &TensorMut<'a>)> {
        let named = [
            ("grad_input", &self.input),
            ("grad_linear_weight", &self.linear_weight),
            ("grad_linear_bias", &self.linear_bias),
            ("grad_target", &self.target),
        ];
        named.into_iter().filter_map(|(name, grad)| grad.as_ref().map(|grad| (name, grad)))
    }
}
