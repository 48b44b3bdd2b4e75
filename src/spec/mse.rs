//! Mean squared error: `(x − y)²`, gradient `2(x − y)`.

use crate::base::error::Result;
use crate::spec::elementwise::{Elementwise, Formula, Functor, Traits, Weights, sealed};

/// Squared error between input and target (`torch.nn.functional.mse_loss`): with d = x − y,
/// ℓ = d² and ∂ℓ/∂x = 2d = −∂ℓ/∂y.
///
/// Tensors, broadcasting and forms of the call: [`Elementwise`]. With a weight the mean divides by
/// Σ weight, and is NaN where that is 0.
///
/// ```
/// use warploss::{Device, Mse, TensorRef, Wrt};
/// let (input, target) = ([1.0f32, 4.0], [1.0f32, 2.0]);
/// let (x, y) = (TensorRef::new(&input, &[2])?, TensorRef::new(&target, &[2])?);
/// let (loss, grad) = Mse::default().forward_backward(&Device::best(), x, y, 1.0, Wrt::Input)?;
/// assert_eq!(loss.item()?, 2.0);
/// assert_eq!(grad.grad_input.unwrap().as_slice::<f32>(), Some(&[0.0, 2.0][..]));
/// # Ok::<(), warploss::Error>(())
/// ```
pub type Mse<'w> = Elementwise<'w, MseLoss>;

/// The loss of [`Mse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MseLoss;

impl sealed::Loss for MseLoss {
    fn traits(&self) -> Result<Traits<'_>> {
        Ok(Traits::regression(Formula::new(Functor::Mse, []), Weights::Divide))
    }
}

impl sealed::Weighted for MseLoss {}
