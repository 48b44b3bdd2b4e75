//! Smooth L1: a square of slope 1 at its edge β, a line beyond it.

use crate::base::error::Result;
use crate::base::validate;
use crate::spec::elementwise::{Elementwise, Formula, Functor, Traits, Weights, sealed};

/// Smooth L1 loss (`torch.nn.functional.smooth_l1_loss`): with d = x − y,
/// ℓ = d²/(2β) where |d| < β, else |d| − β/2; ∂ℓ/∂x = d/β or sign(d) = −∂ℓ/∂y.
///
/// β = 0 is [`L1`](crate::L1). Tensors, broadcasting and forms of the call: [`Elementwise`]. With a
/// weight (an extension) the mean divides by Σ weight, and is NaN where that is 0.
///
/// ```
/// use warploss::{Device, SmoothL1, TensorRef};
/// let (input, target) = ([1.0f32, 4.0], [0.5f32, 2.0]);
/// let (x, y) = (TensorRef::new(&input, &[2])?, TensorRef::new(&target, &[2])?);
/// let loss = SmoothL1::default().beta(1.0).forward(&Device::best(), x, y)?;
/// assert_eq!(loss.item()?, (0.125 + 1.5) / 2.0);
/// # Ok::<(), warploss::Error>(())
/// ```
pub type SmoothL1<'w> = Elementwise<'w, SmoothL1Loss>;

/// The loss of [`SmoothL1`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SmoothL1Loss {
    beta: f32,
}

impl Default for SmoothL1Loss {
    fn default() -> Self {
        SmoothL1Loss { beta: 1.0 }
    }
}

impl SmoothL1<'_> {
    /// β ≥ 0, finite: where the square ends. Default 1.
    pub fn beta(mut self, beta: f32) -> Self {
        self.loss.beta = beta;
        self
    }
}

impl sealed::Loss for SmoothL1Loss {
    fn traits(&self) -> Result<Traits<'_>> {
        let beta = self.beta;
        let legal = beta >= 0.0 && beta.is_finite();
        validate::value("beta", beta, legal, "a finite number ≥ 0")?;
        let formula = match beta {
            0.0 => Formula::new(Functor::L1, []),
            _ => Formula::new(Functor::Huber, [beta, beta]),
        };
        Ok(Traits::regression(formula, Weights::Divide))
    }
}

impl sealed::Weighted for SmoothL1Loss {}
