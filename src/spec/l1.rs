//! Absolute error: `|x − y|`, gradient `sign(x − y)`.

use crate::base::error::Result;
use crate::spec::elementwise::{Elementwise, Formula, Functor, Traits, Weights, sealed};

/// Absolute error between input and target (`torch.nn.functional.l1_loss`): with d = x − y,
/// ℓ = |d| and ∂ℓ/∂x = sign(d) = −∂ℓ/∂y, 0 at d = 0 and, as in PyTorch, where d is NaN.
///
/// Tensors, broadcasting and forms of the call: [`Elementwise`]. With a weight the mean divides by
/// Σ weight, and is NaN where that is 0.
///
/// ```
/// use warploss::{Device, L1, TensorRef};
/// let (input, target) = ([1.0f32, 4.0], [1.0f32, 2.0]);
/// let (x, y) = (TensorRef::new(&input, &[2])?, TensorRef::new(&target, &[2])?);
/// assert_eq!(L1::default().forward(&Device::best(), x, y)?.item()?, 1.0);
/// # Ok::<(), warploss::Error>(())
/// ```
pub type L1<'w> = Elementwise<'w, L1Loss>;

/// The loss of [`L1`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct L1Loss;

impl sealed::Loss for L1Loss {
    fn traits(&self) -> Result<Traits<'_>> {
        Ok(Traits::regression(Formula::new(Functor::L1, []), Weights::Divide))
    }
}

impl sealed::Weighted for L1Loss {}
