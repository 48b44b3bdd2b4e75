//! Focal loss of logits.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::validate;
use crate::spec::elementwise::{Elementwise, Formula, Functor, Traits, Weights, sealed};

/// Focal loss of logits x and labels t, 0 or 1 (`torchvision.ops.sigmoid_focal_loss`): binary cross
/// entropy, of which what is already told apart has the less the larger γ is. With p = σ(x),
///
/// ```text
/// u     = (1 − t)·p + t·(1 − p)          α_t = (1 − t)·(1 − α) + t·α, or 1 for α < 0
/// ce    = t·softplus(−x) + (1 − t)·softplus(x)
/// ℓ     = α_t·u^γ·ce
/// ∂ℓ/∂x = α_t·u^γ·((1 − t)·p − t·(1 − p) + γ·(1 − 2t)·ce/u·p·(1 − p))
/// ∂ℓ/∂t = u^γ·((2α − 1)·ce − α_t·x + α_t·γ·ce/u·(1 − 2p)), without its first term for α < 0
/// ```
///
/// u, its logarithm and ce/u are formed of e^(−|x|) and no difference, so that the loss of a sure logit
/// has its digits. A label between 0 and 1 is legal, and so is one outside, where u may be negative: NaN
/// but for a whole γ.
/// Input and target have one shape. Tensors and forms of the call: [`Elementwise`]; there is no
/// weight, and the default reduction is torchvision's, [`Reduction::None`].
///
/// ```
/// use warploss::{Device, SigmoidFocal, TensorRef};
/// let (input, target) = ([0.0f32], [1.0f32]);
/// let (x, t) = (TensorRef::new(&input, &[1])?, TensorRef::new(&target, &[1])?);
/// let loss = SigmoidFocal::default().forward(&Device::best(), x, t)?;
/// let expected = 0.25 * 0.25 * std::f32::consts::LN_2; // α·(1 − p)^2·ln 2
/// assert!((loss.as_slice::<f32>().unwrap()[0] - expected).abs() < 1e-7);
/// # Ok::<(), warploss::Error>(())
/// ```
pub type SigmoidFocal = Elementwise<'static, SigmoidFocalLoss>;

/// The loss of [`SigmoidFocal`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SigmoidFocalLoss {
    alpha: f32,
    gamma: f32,
}

impl Default for SigmoidFocalLoss {
    fn default() -> Self {
        SigmoidFocalLoss { alpha: 0.25, gamma: 2.0 }
    }
}

impl SigmoidFocal {
    /// α in [0, 1], the weight of the label 1 against that of 0, or less than 0: both weigh 1. Default
    /// 0.25.
    pub fn alpha(mut self, alpha: f32) -> Self {
        self.loss.alpha = alpha;
        self
    }

    /// γ ≥ 0, finite: 0 is binary cross entropy. Default 2.
    pub fn gamma(mut self, gamma: f32) -> Self {
        self.loss.gamma = gamma;
        self
    }
}

impl sealed::Loss for SigmoidFocalLoss {
    const REDUCTION: Reduction = Reduction::None;

    fn traits(&self) -> Result<Traits<'_>> {
        let SigmoidFocalLoss { alpha, gamma } = *self;
        let legal = alpha <= 1.0 && alpha.is_finite();
        validate::value("alpha", alpha, legal, "a number in [0, 1], or one below 0 for none")?;
        validate::value("gamma", gamma, gamma >= 0.0 && gamma.is_finite(), "a finite number >= 0")?;
        let functor = match gamma == 2.0 {
            true => Functor::SigmoidFocal,
            false => Functor::SigmoidFocalOfPower,
        };
        let formula = Formula::new(functor, [alpha, gamma]);
        Ok(Traits { broadcasts: false, ..Traits::regression(formula, Weights::Count) })
    }
}
