//! Hinge embedding loss: distances small where two are alike, beyond a margin where they are not.

use crate::base::error::Result;
use crate::base::validate;
use crate::spec::elementwise::{Elementwise, Formula, Functor, Traits, Weights, sealed};

/// Hinge embedding loss of distances x and labels y, 1 where two are alike and −1 where they are not
/// (`torch.nn.functional.hinge_embedding_loss`):
///
/// | y | ℓ | ∂ℓ/∂x |
/// |---|---|---|
/// | 1 | x | 1 |
/// | −1 | max(0, margin − x) | −1 where x < margin, else 0 |
/// | anything else, NaN too | the sum of both, as in PyTorch | the sum of both |
///
/// The target only chooses: its gradient is 0. Tensors, broadcasting and forms of the call:
/// [`Elementwise`]; there is no weight.
///
/// ```
/// use warploss::{Device, HingeEmbedding, TensorRef};
/// let (input, target) = ([0.5f32, 0.5], [1.0f32, -1.0]);
/// let (x, y) = (TensorRef::new(&input, &[2])?, TensorRef::new(&target, &[2])?);
/// let loss = HingeEmbedding::default().margin(2.0).forward(&Device::best(), x, y)?;
/// assert_eq!(loss.item()?, (0.5 + 1.5) / 2.0);
/// # Ok::<(), warploss::Error>(())
/// ```
pub type HingeEmbedding = Elementwise<'static, HingeEmbeddingLoss>;

/// The loss of [`HingeEmbedding`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HingeEmbeddingLoss {
    margin: f32,
}

impl Default for HingeEmbeddingLoss {
    fn default() -> Self {
        HingeEmbeddingLoss { margin: 1.0 }
    }
}

impl HingeEmbedding {
    /// From which distance on what is not alike costs nothing; finite. Default 1.
    pub fn margin(mut self, margin: f32) -> Self {
        self.loss.margin = margin;
        self
    }
}

impl sealed::Loss for HingeEmbeddingLoss {
    fn traits(&self) -> Result<Traits<'_>> {
        let margin = self.margin;
        validate::value("margin", margin, margin.is_finite(), "a finite number")?;
        Ok(Traits::regression(Formula::new(Functor::HingeEmbedding, [margin]), Weights::Count))
    }
}
