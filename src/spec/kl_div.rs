//! Kullback–Leibler divergence, element by element.

use crate::base::error::Result;
use crate::spec::elementwise::{Elementwise, Formula, Functor, Traits, Weights, sealed};

/// Kullback–Leibler divergence of a target from log-probabilities x
/// (`torch.nn.functional.kl_div`), element by element:
///
/// | target | ℓ | ∂ℓ/∂x | ∂ℓ/∂target |
/// |---|---|---|---|
/// | probabilities q | q·(ln q − x), 0 for q = 0 | −q | ln q + 1 − x, NaN for q ≤ 0 |
/// | logarithms y (`log_target`) | e^y·(y − x), 0 for y = −∞ | −e^y | e^y·(y − x + 1) |
///
/// Nothing is normalised, so that the sum may be negative. A probability of exactly 0 silences
/// x = −∞ (PyTorch: NaN). Tensors, broadcasting and forms of the call: [`Elementwise`].
/// [`Reduction::Mean`](crate::Reduction::Mean) divides by the number of elements;
/// [`Reduction::BatchMean`](crate::Reduction::BatchMean), the divergence by its definition, by the
/// input's first dimension.
///
/// ```
/// use warploss::{Device, KlDiv, Reduction, TensorRef};
/// let (input, target) = ([0.5f32.ln(), 0.5f32.ln()], [1.0f32, 0.0]);
/// let (x, q) = (TensorRef::new(&input, &[1, 2])?, TensorRef::new(&target, &[1, 2])?);
/// let kl = KlDiv::default().reduction(Reduction::BatchMean);
/// assert_eq!(kl.forward(&Device::best(), x, q)?.item()?, std::f32::consts::LN_2);
/// # Ok::<(), warploss::Error>(())
/// ```
pub type KlDiv = Elementwise<'static, KlDivLoss>;

/// The loss of [`KlDiv`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KlDivLoss {
    log_target: bool,
}

impl KlDiv {
    /// Whether the target holds logarithms of probabilities. Default: probabilities.
    pub fn log_target(mut self, log_target: bool) -> Self {
        self.loss.log_target = log_target;
        self
    }
}

impl sealed::Loss for KlDivLoss {
    fn traits(&self) -> Result<Traits<'_>> {
        let formula = Formula::new(
            if self.log_target { Functor::KlDivLogTarget } else { Functor::KlDiv },
            [],
        );
        Ok(Traits { batch_mean: true, ..Traits::regression(formula, Weights::Count) })
    }
}
