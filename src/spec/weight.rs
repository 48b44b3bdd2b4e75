//! Weights that options hold.

use crate::base::tensor::{Tensor, TensorRef};
use std::sync::Arc;

/// Weights as options hold them: those of a caller, for as long as they last, or shared with it, so that options are
/// `'static` and a trainer keeps them.
///
/// ```
/// use std::sync::Arc;
/// use warploss::{CrossEntropy, Tensor, TensorRef};
/// struct Trainer {
///     loss: CrossEntropy<'static>,
/// }
/// let weight = Arc::new(Tensor::from_vec(vec![1.0f32, 0.5, 2.0], &[3])?);
/// let trainer = Trainer { loss: CrossEntropy::default().weight(weight.clone()) };
/// // For one call others in their place, and whatever else belongs to a batch.
/// let others = [1.0f32, 1.0, 0.0];
/// let loss = trainer.loss.clone().weight(TensorRef::new(&others, &[3])?);
/// # let _ = loss;
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone)]
pub enum Weight<'w> {
    /// Of the caller.
    Borrowed(TensorRef<'w>),
    /// Of whoever has it.
    Shared(Arc<Tensor>),
}

impl Weight<'_> {
    /// The weights.
    pub fn view(&self) -> TensorRef<'_> {
        match self {
            Weight::Borrowed(weight) => *weight,
            Weight::Shared(weight) => weight.view(),
        }
    }
}

impl PartialEq for Weight<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.view() == other.view()
    }
}

impl<'w> From<TensorRef<'w>> for Weight<'w> {
    fn from(weight: TensorRef<'w>) -> Self {
        Weight::Borrowed(weight)
    }
}

impl<'w> From<&'w Tensor> for Weight<'w> {
    fn from(weight: &'w Tensor) -> Self {
        Weight::Borrowed(weight.view())
    }
}

impl From<Arc<Tensor>> for Weight<'_> {
    fn from(weight: Arc<Tensor>) -> Self {
        Weight::Shared(weight)
    }
}

impl From<Tensor> for Weight<'_> {
    fn from(weight: Tensor) -> Self {
        Weight::Shared(Arc::new(weight))
    }
}
