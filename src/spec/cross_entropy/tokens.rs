//! What else a call gives from the same read: log-probability, entropy and the likeliest classes of
//! rows, and the gradients that the first two have.

use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::base::validate;
use crate::spec::cross_entropy::checked::{Checked, Target};
use crate::spec::cross_entropy::outputs::CrossEntropyOut;
use crate::spec::grad_output::GradOutput;

/// The most classes of a row that a call names ([`TopKOut`]).
pub(crate) const MOST_TOP: usize = 16;

/// Where the k likeliest classes of each row go, likeliest first; k, the last dimension, is from 1 to
/// 16 and no more than there are classes.
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

const NOTHING: GradOutput<'static> = GradOutput::Number(0.0);

impl CrossEntropyUpstream<'_> {
    /// Whether anything but the loss has a gradient.
    pub(crate) fn of_tokens(&self) -> bool {
        self.grad_logprob != NOTHING || self.grad_entropy != NOTHING
    }
}

impl<'a> CrossEntropyOut<'a> {
    /// Whether more is asked for than the loss, its parts and ranks.
    pub(crate) fn of_tokens(&self) -> bool {
        self.logprob.is_some() || self.entropy.is_some() || self.top_k.is_some()
    }
}

impl<'a> TopKOut<'a> {
    /// How many classes of a row there is room for.
    pub(crate) fn k(&self) -> usize {
        self.classes.shape().last().copied().unwrap_or(0)
    }
}

impl Checked<'_, Target<'_>> {
    /// Outputs of rows and their upstream gradients, which only class indices have.
    pub(super) fn check_tokens(&self, out: &CrossEntropyOut<'_>) -> Result<()> {
        for (argument, out) in [("logprob", &out.logprob), ("entropy", &out.entropy)] {
            if let Some(out) = out {
                self.has_classes(argument)?;
                validate::f32_output(argument, &out.as_ref(), self.rows, "the target's")?;
            }
        }
        out.top_k.as_ref().map_or(Ok(()), |top| self.check_top(top))
    }

    fn check_top(&self, top: &TopKOut<'_>) -> Result<()> {
        self.has_classes("top_k.classes")?;
        let (k, most) = (top.k(), MOST_TOP.min(self.classes));
        let dims: Vec<usize> = self.rows.iter().copied().chain([k]).collect();
        let shape = Shape::new(&dims).filter(|_| (1..=most).contains(&k));
        let Some(shape) = shape else {
            let expected = format!("{} and then a k from 1 to {most}", self.rows);
            let got = top.classes.shape();
            return Err(Error::Shape { argument: "top_k.classes", expected, got });
        };
        let owner = "the target's and then k";
        validate::i64_output("top_k.classes", &top.classes.as_ref(), shape, owner)?;
        validate::f32_output("top_k.logprob", &top.logprob.as_ref(), shape, "that of its classes")
    }

    pub(crate) fn check_upstream(&self, upstream: &CrossEntropyUpstream<'_>) -> Result<()> {
        self.check_grad_output(&upstream.grad_output)?;
        let tokens =
            [("grad_logprob", &upstream.grad_logprob), ("grad_entropy", &upstream.grad_entropy)];
        for (argument, grad) in tokens.into_iter().filter(|(_, grad)| **grad != NOTHING) {
            self.has_classes(argument)?;
            grad.check_as(argument, self.rows, self.dtype)?;
        }
        Ok(())
    }
}
