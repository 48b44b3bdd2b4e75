//! Functions that are called as candle's are.

use crate::{CrossEntropyLoss, LinearArgs, LinearCrossEntropyLoss};
use candle_core::{Result, Tensor};

/// The mean cross entropy of logits `[N, C]` and class indices `[N]`: `candle_nn::loss::cross_entropy`, f32.
///
/// # Errors
/// As [`CrossEntropyLoss::forward`].
pub fn cross_entropy(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    CrossEntropyLoss::default().forward(logits, target)
}

/// The mean cross entropy of hidden states `[N, D]` times a classifier `[V, D]`, and class indices `[N]`.
///
/// # Errors
/// As [`LinearCrossEntropyLoss::forward`].
pub fn linear_cross_entropy(
    input: &Tensor,
    linear_weight: &Tensor,
    target: &Tensor,
) -> Result<Tensor> {
    LinearCrossEntropyLoss::default().forward(&LinearArgs::new(input, linear_weight, target))
}
