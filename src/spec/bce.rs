//! Binary cross entropy of probabilities.

use crate::base::error::Result;
use crate::spec::elementwise::{Elementwise, Formula, Functor, Traits, Weights, sealed};

/// Binary cross entropy of probabilities x and probabilities t
/// (`torch.nn.functional.binary_cross_entropy`): with v the weight and logarithms clamped at −100,
///
/// ```text
/// ℓ     = −v·(t·max(ln x, −100) + (1 − t)·max(ln(1 − x), −100))
/// ∂ℓ/∂x = v·(x − t) / max((1 − x)·x, 1e-12)
/// ∂ℓ/∂t = v·(ln(1 − x) − ln x),  infinite at 0 and 1
/// ```
///
/// The slopes are PyTorch's and not those of the clamped logarithms. Where there are logits,
/// [`BceWithLogits`](crate::BceWithLogits) keeps the digits that a probability near 1 has lost.
///
/// An x outside of [0, 1] is an error that names the first, as in PyTorch (whose GPU ends the process);
/// one that is NaN makes NaN of its own loss and gradients. A t outside of [0, 1] is legal and goes by the
/// formula.
///
/// Input and target have one shape; the weight broadcasts to it. Tensors and forms of the call:
/// [`Elementwise`]; the mean divides by the number of elements.
///
/// ```
/// use warploss::{Bce, Device, TensorRef};
/// let (input, target) = ([0.5f32, 0.0], [1.0f32, 1.0]);
/// let (x, t) = (TensorRef::new(&input, &[2])?, TensorRef::new(&target, &[2])?);
/// let loss = Bce::default().forward(&Device::best(), x, t)?;
/// assert_eq!(loss.item()?, (std::f32::consts::LN_2 + 100.0) / 2.0);
/// # Ok::<(), warploss::Error>(())
/// ```
pub type Bce<'w> = Elementwise<'w, BceLoss>;

/// The loss of [`Bce`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BceLoss;

impl sealed::Loss for BceLoss {
    fn traits(&self) -> Result<Traits<'_>> {
        let formula = Formula::new(Functor::Bce, []);
        let traits = Traits::regression(formula, Weights::Broadcast);
        Ok(Traits { broadcasts: false, probabilities: true, ..traits })
    }
}

impl sealed::Weighted for BceLoss {}
