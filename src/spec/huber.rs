//! Huber loss: a square up to δ, a line of slope δ beyond it.

use crate::base::error::Result;
use crate::base::validate;
use crate::spec::elementwise::{Elementwise, Formula, Functor, Traits, Weights, sealed};

/// Huber loss (`torch.nn.functional.huber_loss`): with d = x − y,
/// ℓ = d²/2 where |d| ≤ δ, else δ·(|d| − δ/2); ∂ℓ/∂x = d or δ·sign(d) = −∂ℓ/∂y.
///
/// Tensors, broadcasting and forms of the call: [`Elementwise`]. With a weight the mean divides by
/// the number of elements, as in PyTorch.
///
/// ```
/// use warploss::{Device, Huber, TensorRef};
/// let (input, target) = ([1.0f32, 4.0], [0.0f32, 1.0]);
/// let (x, y) = (TensorRef::new(&input, &[2])?, TensorRef::new(&target, &[2])?);
/// let loss = Huber::default().delta(2.0).forward(&Device::best(), x, y)?;
/// assert_eq!(loss.item()?, (0.5 + 4.0) / 2.0);
/// # Ok::<(), warploss::Error>(())
/// ```
pub type Huber<'w> = Elementwise<'w, HuberLoss>;

/// The loss of [`Huber`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HuberLoss {
    delta: f32,
}

impl Default for HuberLoss {
    fn default() -> Self {
        HuberLoss { delta: 1.0 }
    }
}

impl Huber<'_> {
    /// δ > 0, finite: where the square ends. Default 1.
    pub fn delta(mut self, delta: f32) -> Self {
        self.loss.delta = delta;
        self
    }
}

impl sealed::Loss for HuberLoss {
    fn traits(&self) -> Result<Traits<'_>> {
        let delta = self.delta;
        let legal = delta > 0.0 && delta.is_finite();
        validate::value("delta", delta, legal, "a finite number > 0")?;
        let formula = Formula::new(Functor::Huber, [delta, 1.0]);
        Ok(Traits::regression(formula, Weights::Count))
    }
}

impl sealed::Weighted for HuberLoss {}
