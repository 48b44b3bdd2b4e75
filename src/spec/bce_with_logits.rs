//! Binary cross entropy with logits.

use crate::base::error::Result;
use crate::spec::elementwise::{Elementwise, Formula, Functor, Third, Traits, Weights, sealed};
use crate::spec::weight::Weight;

/// Binary cross entropy of logits x and probabilities t
/// (`torch.nn.functional.binary_cross_entropy_with_logits`): with v the weight and r the positive
/// weight,
///
/// ```text
/// ℓ     = v·(r·t·softplus(−x) + (1 − t)·softplus(x))
/// ∂ℓ/∂x = v·((1 − t)·σ(x) − r·t·(1 − σ(x)))
/// ∂ℓ/∂t = v·(r·softplus(−x) − softplus(x))
/// ```
///
/// Input and target have one shape; weight and pos_weight broadcast to it. A target outside [0, 1]
/// is legal. A coefficient that is exactly 0 silences an infinite softplus: x = +∞ with t = 1 has
/// the loss 0 (PyTorch: NaN). Tensors and forms of the call: [`Elementwise`]; the mean divides by
/// the number of elements.
///
/// ```
/// use warploss::{BceWithLogits, Device, TensorRef};
/// let (input, target) = ([0.0f32, 200.0], [1.0f32, 1.0]);
/// let (x, t) = (TensorRef::new(&input, &[2])?, TensorRef::new(&target, &[2])?);
/// let loss = BceWithLogits::default().forward(&Device::best(), x, t)?;
/// assert_eq!(loss.item()?, std::f32::consts::LN_2 / 2.0);
/// # Ok::<(), warploss::Error>(())
/// ```
pub type BceWithLogits<'w> = Elementwise<'w, BceWithLogitsLoss<'w>>;

/// The loss of [`BceWithLogits`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BceWithLogitsLoss<'w> {
    pos_weight: Option<Weight<'w>>,
}

impl<'w> BceWithLogits<'w> {
    /// r, a weight of the positive part, which broadcasts to the input; f32 or the input's dtype.
    /// Default: 1 each.
    pub fn pos_weight(mut self, pos_weight: impl Into<Weight<'w>>) -> Self {
        self.loss.pos_weight = Some(pos_weight.into());
        self
    }
}

impl sealed::Loss for BceWithLogitsLoss<'_> {
    fn traits(&self) -> Result<Traits<'_>> {
        Ok(Traits {
            formula: Formula::new(Functor::BceWithLogits, []),
            broadcasts: false,
            weight: Weights::Broadcast,
            third: self.pos_weight.as_ref().map(|weight| Third::PosWeight(weight.view())),
            batch_mean: false,
            probabilities: false,
        })
    }
}

impl sealed::Weighted for BceWithLogitsLoss<'_> {}
