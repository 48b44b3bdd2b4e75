//! Where gradients go, and what an allocating call returns.

use crate::base::error::{Error, Result};
use crate::base::tensor::{Tensor, TensorMut};
use crate::spec::cross_entropy::CrossEntropyOutput;

/// Memory that gradients are written to; without one of them its product is not made.
#[derive(Debug, Default)]
pub struct LinearGradOut<'a> {
    /// The input's shape and dtype, row stride free.
    pub input: Option<TensorMut<'a>>,
    /// The classifier's shape and dtype, row stride free.
    pub linear_weight: Option<TensorMut<'a>>,
    /// What rounding has left of the classifier's gradient, where that is of 16 bits: its shape and dtype, row stride
    /// free. A call that adds then rounds the f32 sum of its part and of what both hold, and leaves the rest here: many
    /// calls come to what one rounding of their sum does, where each would lose its own. Without `accumulate` it is
    /// only written. On a GPU such a call sums the gradient in f32 within its budget.
    pub linear_weight_rest: Option<TensorMut<'a>>,
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

/// What a call gives beside its losses, as far as its path and its memory follow from that:
/// [`LinearCrossEntropy::plan`](crate::LinearCrossEntropy::plan). Of a `bool`: gradients, or nothing.
///
/// ```
/// use warploss::LinearOutputs;
/// let training = LinearOutputs { top_k: 5, ..true.into() };
/// assert!(training.gradients && !training.ranks);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinearOutputs {
    /// Gradients: [`LinearGradOut`].
    pub gradients: bool,
    /// The target's rank, or the row's likeliest class.
    pub ranks: bool,
    /// So many of a row's likeliest classes, at most 128.
    pub top_k: usize,
    /// [`LinearGradOut::linear_weight_rest`].
    pub linear_weight_rest: bool,
}

impl From<bool> for LinearOutputs {
    fn from(gradients: bool) -> LinearOutputs {
        LinearOutputs { gradients, ..LinearOutputs::default() }
    }
}

/// What rounding left of the classifier's gradient.
pub(crate) const REST: &str = "grad_linear_weight_rest";

impl<'a> LinearGradOut<'a> {
    /// # Errors
    /// The call, which is of something, keeps nothing of what rounding leaves.
    pub(crate) fn check_no_rest(&self, of: &str) -> Result<()> {
        let Some(rest) = &self.linear_weight_rest else { return Ok(()) };
        Err(Error::Value {
            argument: REST,
            expected: format!("none ({of})"),
            got: format!("{} {}", rest.dtype(), rest.shape()),
        })
    }

    /// All gradients that there are, by name.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, &TensorMut<'a>)> {
        let named = [
            ("grad_input", &self.input),
            ("grad_linear_weight", &self.linear_weight),
            (REST, &self.linear_weight_rest),
            ("grad_linear_bias", &self.linear_bias),
            ("grad_target", &self.target),
        ];
        named.into_iter().filter_map(|(name, grad)| grad.as_ref().map(|grad| (name, grad)))
    }
}
