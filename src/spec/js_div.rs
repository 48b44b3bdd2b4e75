//! Jensen–Shannon divergence of log-probabilities, element by element.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::validate;
use crate::spec::elementwise::{Elementwise, Formula, Functor, Traits, Weights, sealed};

/// Generalised Jensen–Shannon divergence of a target P from a model Q, both given as logarithms:
/// x = ln Q, y = ln P. With M = β·P + (1 − β)·Q,
///
/// | β | ℓ | ∂ℓ/∂x | ∂ℓ/∂y |
/// |---|---|---|---|
/// | inside (0, 1) | β·P·(y − ln M) + (1 − β)·Q·(x − ln M) | (1 − β)·Q·(x − ln M) | β·P·(y − ln M) |
/// | 0, KL(P‖Q) | P·(y − x) | −P | P·(y − x + 1) |
/// | 1, KL(Q‖P) | Q·(x − y) | Q·(x − y + 1) | −Q |
///
/// The ends are defined so, as in Liger's kernels; the limits of the middle are 0. A class that
/// neither gives any probability adds 0. Tensors, broadcasting and forms of the call:
/// [`Elementwise`]. The default reduction is [`Reduction::BatchMean`], the divergence by its
/// definition. From logits, with rows that may be left out: [`JsDivLogits`](crate::JsDivLogits).
///
/// ```
/// use warploss::{Device, JsDiv, TensorRef};
/// let (input, target) = ([0.5f32.ln(), 0.5f32.ln()], [0f32, f32::NEG_INFINITY]);
/// let (x, y) = (TensorRef::new(&input, &[1, 2])?, TensorRef::new(&target, &[1, 2])?);
/// let divergence = JsDiv::default().forward(&Device::best(), x, y)?.item()?;
/// assert!((divergence - 0.215_761_55).abs() < 1e-6); // 3/4·ln(4/3)
/// # Ok::<(), warploss::Error>(())
/// ```
pub type JsDiv = Elementwise<'static, JsDivLoss>;

/// The loss of [`JsDiv`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JsDivLoss {
    beta: f32,
}

impl Default for JsDivLoss {
    fn default() -> Self {
        JsDivLoss { beta: 0.5 }
    }
}

impl JsDiv {
    /// β in [0, 1], the target's share of the mixture. Default 0.5.
    pub fn beta(mut self, beta: f32) -> Self {
        self.loss.beta = beta;
        self
    }
}

/// β is a share.
pub(crate) fn check_beta(beta: f32) -> Result<()> {
    validate::value("beta", beta, (0.0..=1.0).contains(&beta), "a number in [0, 1]")
}

impl sealed::Loss for JsDivLoss {
    const REDUCTION: Reduction = Reduction::BatchMean;

    fn traits(&self) -> Result<Traits<'_>> {
        check_beta(self.beta)?;
        let formula = match self.beta {
            0.0 => Formula::new(Functor::KlDivLogTarget, []),
            1.0 => Formula::new(Functor::KlDivReversed, []),
            beta => Formula::new(Functor::JsDiv, [beta]),
        };
        Ok(Traits { batch_mean: true, ..Traits::regression(formula, Weights::Count) })
    }
}
