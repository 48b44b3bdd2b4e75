//! What else a call gives from the same read: log-probability, entropy and the likeliest classes of
//! rows, and the gradients that the first two have.

use crate::base::tensor::{TensorMut, TensorRef};
use crate::spec::grad_output::GradOutput;

/// The most classes of a row that a call names ([`TopKOut`]).
pub(crate) const MOST_TOP: usize = 128;

/// Where the k likeliest classes of each row go, likeliest first; k, the last dimension, is from 1 to
/// 128 and no more than there are classes.
///
/// Classes are ordered as by [`Ranks`](crate::Ranks): of equals the lower index is first, and NaN is
/// larger than every number.
#[derive(Debug)]
pub struct TopKOut<'a> {
    /// The classes; the target's shape and then k, i64; −1 in ignored rows.
    pub classes: TensorMut<'a>,
    /// Their log-probabilities; the same shape, f32; 0 in ignored rows.
    pub logprob: TensorMut<'a>,
}

/// Upstream gradients of what a fused call gives: of the loss, and of each row's log-probability and
/// entropy, as the weights of a policy gradient beside a loss.
///
/// A number or a tensor stands for that of the loss alone.
///
/// ```
/// use warploss::CrossEntropyUpstream;
/// let upstream = CrossEntropyUpstream { grad_entropy: (-0.01).into(), ..1.0.into() };
/// assert_eq!(upstream.grad_logprob, 0.0.into());
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrossEntropyUpstream<'a> {
    /// Of the loss: a number or a tensor of its shape. Default 1.
    pub grad_output: GradOutput<'a>,
    /// Of the target's log-probability, whatever the reduction: a number, or one a row. Default 0.
    pub grad_logprob: GradOutput<'a>,
    /// Of the entropy, whatever the reduction: a number, or one a row. Default 0.
    pub grad_entropy: GradOutput<'a>,
}

impl Default for CrossEntropyUpstream<'_> {
    fn default() -> Self {
        GradOutput::default().into()
    }
}

impl<'a> From<GradOutput<'a>> for CrossEntropyUpstream<'a> {
    fn from(grad_output: GradOutput<'a>) -> Self {
        CrossEntropyUpstream { grad_output, grad_logprob: NOTHING, grad_entropy: NOTHING }
    }
}

impl From<f32> for CrossEntropyUpstream<'_> {
    fn from(number: f32) -> Self {
        GradOutput::from(number).into()
    }
}

impl<'a> From<TensorRef<'a>> for CrossEntropyUpstream<'a> {
    fn from(tensor: TensorRef<'a>) -> Self {
        GradOutput::from(tensor).into()
    }
}

/// Of what nobody optimises.
pub(super) const NOTHING: GradOutput<'static> = GradOutput::Number(0.0);

impl CrossEntropyUpstream<'_> {
    /// Whether anything but the loss has a gradient.
    pub(crate) fn of_tokens(&self) -> bool {
        self.grad_logprob != NOTHING || self.grad_entropy != NOTHING
    }
}

impl<'a> TopKOut<'a> {
    /// How many classes of a row there is room for.
    pub(crate) fn k(&self) -> usize {
        self.classes.shape().last().copied().unwrap_or(0)
    }
}
