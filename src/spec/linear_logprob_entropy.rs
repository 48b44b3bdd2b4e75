//! Log-probability of the target and entropy of rows whose logits are products: options and checks. What is
//! computed is `logprob_entropy.rs` of the logits of `linear_cross_entropy.rs`.

use crate::base::error::{Error, Result};
use crate::base::reduction::Reduction;
use crate::base::tensor::{Tensor, TensorMut};
use crate::base::validate;
use crate::spec::class_indices::ClassIndices;
use crate::spec::cross_entropy::{Checked, CrossEntropyOut, CrossEntropyUpstream};
use crate::spec::linear_cross_entropy::{
    CheckedLinear, LinearCrossEntropy, LinearInput, LinearPath,
};
use crate::spec::logprob_entropy::{
    LogprobEntropy, LogprobEntropyOut, LogprobEntropyOutput, LogprobEntropyUpstream,
};

/// Log-probability of the target, and entropy of the distribution, of hidden states times a classifier, in nats,
/// with gradients of both; the logits are never all in memory.
///
/// It is what policy gradients ask of a model's last layer: [`LogprobEntropy`], which it is made from, options and
/// all, of the logits of [`LinearCrossEntropy`]. The examples `grpo` and `dpo` are losses of a few lines over it.
///
/// | tensor | shape | dtype |
/// |---|---|---|
/// | input, linear_weight, linear_bias, temperature ([`LinearInput`]) | as of [`LinearCrossEntropy`] | |
/// | target, indices | `[]` or `[1]`, `[N]` | i64, i32, u32, u8 |
/// | results ([`LogprobEntropyOut`]) | the target's; 0, or −1, for ignored rows | f32, i64 |
/// | grad_logprob, grad_entropy | a number, or the target's shape | f32 or the input's |
/// | gradients ([`LinearGradOut`](crate::LinearGradOut)) | those of what they belong to | the input's |
///
/// Rows have no weights beside their upstream gradients, and no target of probabilities.
///
/// ```
/// use warploss::{Device, LinearInput, LinearLogprobEntropy, LogprobEntropyUpstream, TensorRef};
/// let hidden = TensorRef::new(&[1.0f32, 2.0, -1.0, 0.5], &[2, 2])?;
/// let classifier = TensorRef::new(&[1.0f32, 0.0, 0.0, 1.0, -1.0, 1.0], &[3, 2])?;
/// let token = TensorRef::new(&[1i64, 2], &[2])?;
/// let temperature = TensorRef::new(&[1.0f32, 0.7], &[2])?;
/// let input = LinearInput::new(hidden, classifier, token).temperature(temperature);
/// let advantage = TensorRef::new(&[-0.5f32, 2.0], &[2])?;
/// let upstream = LogprobEntropyUpstream {
///     grad_logprob: advantage.into(),
///     grad_entropy: (-0.01).into(),
/// };
/// let op = LinearLogprobEntropy::default();
/// let result = op.forward_backward(&Device::best(), &input, upstream)?;
/// assert_eq!(*result.output.logprob.shape(), [2]);
/// assert_eq!(*result.linear_weight.shape(), [3, 2]);
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "options do nothing until a call is made with them"]
pub struct LinearLogprobEntropy {
    /// The loss that gives the same on the way, and is itself worth nothing.
    pub(crate) linear: LinearCrossEntropy<'static>,
}

/// What an allocating forward and backward pass returns.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearLogprobEntropyGrad {
    /// Log-probability, entropy and log-sum-exp.
    pub output: LogprobEntropyOutput,
    /// Gradient of the hidden states; the input's shape and dtype.
    pub input: Tensor,
    /// Gradient of the classifier; its shape and dtype.
    pub linear_weight: Tensor,
    /// Gradient of the bias, where there is one; its shape and dtype.
    pub linear_bias: Option<Tensor>,
}

impl Default for LinearLogprobEntropy {
    fn default() -> Self {
        LogprobEntropy::default().into()
    }
}

impl From<LogprobEntropy> for LinearLogprobEntropy {
    fn from(of_logits: LogprobEntropy) -> Self {
        LinearLogprobEntropy { linear: of_logits.rows.reduction(Reduction::Sum).into() }
    }
}

impl LinearLogprobEntropy {
    /// As [`LinearCrossEntropy::max_workspace_bytes`].
    pub fn max_workspace_bytes(self, bytes: usize) -> Self {
        LinearLogprobEntropy { linear: self.linear.max_workspace_bytes(bytes) }
    }

    /// As [`LinearCrossEntropy::path`].
    pub fn path(self, path: LinearPath) -> Self {
        LinearLogprobEntropy { linear: self.linear.path(path) }
    }

    /// The rows as the loss has them, and their logits as [`LogprobEntropy`] has them.
    pub(crate) fn check<'a>(
        &'a self,
        of: &LinearInput<'a>,
    ) -> Result<(CheckedLinear<'a>, Checked<'a>)> {
        if let Some(weight) = &of.row_weight {
            return Err(Error::Value {
                argument: "row_weight",
                expected: "none (upstream gradients, one a row each, are the rows' weights)".into(),
                got: format!("{} {}", weight.dtype(), weight.shape()),
            });
        }
        validate::index("target", &of.target)?;
        let checked = self.linear.check(of)?;
        let rows = checked.of_logits.rows;
        let classes = ClassIndices::of_rows("target", &of.target, rows, "one a row of the input")?;
        let of_logits = checked.of_logits.with(classes);
        Ok((checked, of_logits))
    }
}

impl<'a> LogprobEntropyOut<'a> {
    /// The same of a fused call, whose loss nobody asked for.
    pub(crate) fn beside(self, loss: TensorMut<'a>) -> CrossEntropyOut<'a> {
        let LogprobEntropyOut { logprob, entropy, lse, argmax, rank } = self;
        let (logprob, entropy) = (Some(logprob), Some(entropy));
        CrossEntropyOut { logprob, entropy, lse, argmax, rank, ..CrossEntropyOut::loss(loss) }
    }
}

impl<'a> LogprobEntropyUpstream<'a> {
    /// The same of a fused call, whose loss is worth nothing.
    pub(crate) fn alone(self) -> CrossEntropyUpstream<'a> {
        let LogprobEntropyUpstream { grad_logprob, grad_entropy } = self;
        CrossEntropyUpstream { grad_output: 0.0.into(), grad_logprob, grad_entropy }
    }
}
