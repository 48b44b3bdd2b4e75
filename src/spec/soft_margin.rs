//! Soft margin loss: the logistic loss of labels −1 and 1.

use crate::base::error::Result;
use crate::spec::elementwise::{Elementwise, Formula, Functor, Traits, Weights, sealed};

/// Soft margin loss of scores x and labels y, −1 or 1 (`torch.nn.functional.soft_margin_loss`):
///
/// ```text
/// ℓ = ln(1 + e^(−y·x))      ∂ℓ/∂x = −y·σ(−y·x)      ∂ℓ/∂y = −x·σ(−y·x)
/// ```
///
/// Formed as a softplus, so that no score is too large: PyTorch's `exp` overflows from 88.7 on.
/// Other labels are legal and scale the score. Tensors, broadcasting and forms of the call:
/// [`Elementwise`]; there is no weight.
///
/// ```
/// use warploss::{Device, SoftMargin, TensorRef};
/// let (input, target) = ([0.0f32, -200.0], [1.0f32, 1.0]);
/// let (x, y) = (TensorRef::new(&input, &[2])?, TensorRef::new(&target, &[2])?);
/// let loss = SoftMargin::default().forward(&Device::best(), x, y)?;
/// assert_eq!(loss.item()?, (std::f32::consts::LN_2 + 200.0) / 2.0);
/// # Ok::<(), warploss::Error>(())
/// ```
pub type SoftMargin = Elementwise<'static, SoftMarginLoss>;

/// The loss of [`SoftMargin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SoftMarginLoss;

impl sealed::Loss for SoftMarginLoss {
    fn traits(&self) -> Result<Traits<'_>> {
        Ok(Traits::regression(Formula::new(Functor::SoftMargin, []), Weights::Count))
    }
}
