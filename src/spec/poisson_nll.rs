//! Negative log-likelihood of a Poisson distribution.

use crate::base::error::Result;
use crate::base::validate;
use crate::spec::elementwise::{Elementwise, Formula, Functor, Traits, Weights, sealed};

/// Negative log-likelihood of counts y under Poisson distributions
/// (`torch.nn.functional.poisson_nll_loss`), element by element:
///
/// | input | ℓ | ∂ℓ/∂x | ∂ℓ/∂y |
/// |---|---|---|---|
/// | the rate's logarithm x | e^x − y·x | e^x − y | −x |
/// | the rate x (`log_input(false)`) | x − y·ln(x + ε) | 1 − y/(x + ε) | −ln(x + ε) |
///
/// ln y! does not depend on the input and is left out; with `full` Stirling's approximation of it is
/// added where y > 1: y·ln y − y + ½·ln(2π·y), whose slope is ln y + 1/(2y).
///
/// A count of 0 silences an infinite logarithm (PyTorch: NaN); a rate of less than −ε has none: NaN.
/// Tensors, broadcasting and forms of the call: [`Elementwise`]; there is no weight.
///
/// ```
/// use warploss::{Device, PoissonNll, TensorRef};
/// let (input, target) = ([0.0f32, 2.0f32.ln()], [3.0f32, 0.0]);
/// let (x, y) = (TensorRef::new(&input, &[2])?, TensorRef::new(&target, &[2])?);
/// let loss = PoissonNll::default().forward(&Device::best(), x, y)?;
/// assert!((loss.item()? - (1.0 + 2.0) / 2.0).abs() < 1e-6);
/// # Ok::<(), warploss::Error>(())
/// ```
pub type PoissonNll = Elementwise<'static, PoissonNllLoss>;

/// The loss of [`PoissonNll`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PoissonNllLoss {
    log_input: bool,
    full: bool,
    eps: f32,
}

impl Default for PoissonNllLoss {
    fn default() -> Self {
        PoissonNllLoss { log_input: true, full: false, eps: 1e-8 }
    }
}

impl PoissonNll {
    /// Whether the input holds logarithms of rates. Default: it does.
    pub fn log_input(mut self, log_input: bool) -> Self {
        self.loss.log_input = log_input;
        self
    }

    /// Whether Stirling's approximation of ln y! is added. Default: it is not.
    pub fn full(mut self, full: bool) -> Self {
        self.loss.full = full;
        self
    }

    /// ε ≥ 0, finite: added to a rate before its logarithm is taken. Default 1e-8.
    pub fn eps(mut self, eps: f32) -> Self {
        self.loss.eps = eps;
        self
    }
}

impl sealed::Loss for PoissonNllLoss {
    fn traits(&self) -> Result<Traits<'_>> {
        let PoissonNllLoss { log_input, full, eps } = *self;
        validate::value("eps", eps, eps >= 0.0 && eps.is_finite(), "a finite number >= 0")?;
        let functor = if log_input { Functor::PoissonNll } else { Functor::PoissonNllOfRate };
        let formula = Formula::new(functor, [f32::from(u8::from(full)), eps]);
        Ok(Traits::regression(formula, Weights::Count))
    }
}
