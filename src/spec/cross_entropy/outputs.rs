//! Where cross entropy writes, and what it returns.

use crate::base::tensor::{Tensor, TensorMut};
use crate::spec::cross_entropy::tokens::TopKOut;
#[cfg(doc)]
use crate::spec::ranks::Ranks;

/// Where a forward pass writes.
#[derive(Debug)]
pub struct CrossEntropyOut<'a> {
    /// `[]` for sum and mean, the target's shape for none; f32. The z-loss is part of it.
    pub loss: TensorMut<'a>,
    /// Per-row log-sum-exp of z, which a later backward pass takes; the target's shape, f32.
    pub lse: Option<TensorMut<'a>>,
    /// The z-loss part of `loss`, for logging; the loss's shape, f32.
    pub z_loss: Option<TensorMut<'a>>,
    /// The class that beats all others ([`Ranks::argmax`]); the target's shape, i64.
    pub argmax: Option<TensorMut<'a>>,
    /// How many classes beat the target ([`Ranks::rank`]); the target's shape, i64.
    pub rank: Option<TensorMut<'a>>,
    /// Log-probability of the target; the target's shape, f32; 0 in ignored rows.
    pub logprob: Option<TensorMut<'a>>,
    /// Entropy of the row, in nats; the target's shape, f32; 0 in ignored rows.
    pub entropy: Option<TensorMut<'a>>,
    /// The likeliest classes of the row.
    pub top_k: Option<TopKOut<'a>>,
}

impl<'a> CrossEntropyOut<'a> {
    /// Whether more is asked for than the loss, its parts and ranks.
    pub(crate) fn of_tokens(&self) -> bool {
        self.logprob.is_some() || self.entropy.is_some() || self.top_k.is_some()
    }

    /// Only the loss.
    pub fn loss(loss: TensorMut<'a>) -> Self {
        CrossEntropyOut {
            loss,
            lse: None,
            z_loss: None,
            argmax: None,
            rank: None,
            logprob: None,
            entropy: None,
            top_k: None,
        }
    }
}

/// Memory that gradients are written to; a [`TensorMut`] stands for that of the logits alone.
#[derive(Debug)]
pub struct CrossEntropyGradients<'a> {
    /// The logits' shape and dtype; in a call that works in place, the logits themselves.
    pub logits: TensorMut<'a>,
    /// The gradient with respect to probabilities, of their shape and dtype, its own row stride.
    pub target: Option<TensorMut<'a>>,
}

impl<'a> From<TensorMut<'a>> for CrossEntropyGradients<'a> {
    fn from(logits: TensorMut<'a>) -> Self {
        CrossEntropyGradients { logits, target: None }
    }
}

/// What an allocating forward pass returns.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossEntropyOutput {
    /// `[]` for sum and mean, the target's shape for none; f32. The z-loss is part of it.
    pub loss: Tensor,
    /// Per-row log-sum-exp of z; the target's shape, f32; 0 for ignored rows.
    pub lse: Tensor,
    /// The z-loss part of `loss`; its shape, f32; 0 without a z-loss.
    pub z_loss: Tensor,
}

/// What a fused forward and backward pass returns: the logits' memory now holds the gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossEntropyGrad {
    /// Loss, log-sum-exp and z-loss.
    pub output: CrossEntropyOutput,
    /// Gradient with respect to the logits, in their memory, shape and dtype.
    pub grad_logits: Tensor,
}

impl CrossEntropyOutput {
    pub(crate) fn out(&mut self) -> CrossEntropyOut<'_> {
        CrossEntropyOut {
            lse: Some(self.lse.view_mut()),
            z_loss: Some(self.z_loss.view_mut()),
            ..CrossEntropyOut::loss(self.loss.view_mut())
        }
    }
}
