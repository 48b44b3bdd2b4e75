//! The negative log-likelihood of a normal distribution.

use crate::base::error::Result;
use crate::base::tensor::TensorRef;
use crate::base::validate;
use crate::spec::elementwise::{Elementwise, Formula, Functor, Third, Traits, Weights, sealed};

/// Negative log-likelihood of targets t under a normal distribution with means x and variances s
/// (`torch.nn.functional.gaussian_nll_loss`): with v = max(s, ε),
///
/// ```text
/// ℓ     = ½·(ln v + (x − t)²/v), and ½·ln 2π if full
/// ∂ℓ/∂x = (x − t)/v,  ∂ℓ/∂t = (t − x)/v
/// ∂ℓ/∂s = ½·(1/v − (x − t)²/v²)
/// ```
///
/// As in PyTorch the slope to s is formed at v and passes where s < ε too, so that a model may leave
/// there. A variance below 0 is an error that names the first; NaN makes NaN of its own element.
///
/// Input and target broadcast, and the variance to what they become: or it has that shape without the
/// last dimension, one number for all along it. Its gradient, summed over what it served, is
/// [`grad_variance`](crate::ElementwiseGradOut::grad_variance); [`Wrt::All`](crate::Wrt::All) asks for
/// it. There are no element weights. Tensors and forms of the call: [`Elementwise`]; the mean divides by
/// the number of elements.
///
/// ```
/// use warploss::{Device, GaussianNll, TensorRef, Wrt};
/// let (input, target, variance) = ([1.0f32, 3.0], [1.0f32, 1.0], [1.0f32, 4.0]);
/// let [x, t, s] = [&input, &target, &variance].map(|data| TensorRef::new(data, &[2]));
/// let loss = GaussianNll::default().variance(s?);
/// let (value, grad) = loss.forward_backward(&Device::cpu(), x?, t?, 1.0, Wrt::All)?;
/// assert_eq!(value.item()?, (4f32.ln() + 1.0) / 4.0);
/// assert_eq!(grad.grad_variance.unwrap().as_slice::<f32>(), Some(&[0.25, 0.0][..]));
/// # Ok::<(), warploss::Error>(())
/// ```
pub type GaussianNll<'w> = Elementwise<'w, GaussianNllLoss<'w>>;

/// The loss of [`GaussianNll`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GaussianNllLoss<'w> {
    variance: Option<TensorRef<'w>>,
    full: bool,
    eps: f32,
}

impl Default for GaussianNllLoss<'_> {
    fn default() -> Self {
        GaussianNllLoss { variance: None, full: false, eps: 1e-6 }
    }
}

impl<'w> GaussianNll<'w> {
    /// The variances, of the input's dtype. Default: 1 each.
    pub fn variance(mut self, variance: TensorRef<'w>) -> Self {
        self.loss.variance = Some(variance);
        self
    }

    /// Whether ½·ln 2π is added. Default false.
    pub fn full(mut self, full: bool) -> Self {
        self.loss.full = full;
        self
    }

    /// ε > 0, finite: the smallest variance. Default 1e-6.
    pub fn eps(mut self, eps: f32) -> Self {
        self.loss.eps = eps;
        self
    }
}

impl sealed::Loss for GaussianNllLoss<'_> {
    fn traits(&self) -> Result<Traits<'_>> {
        let eps = self.eps;
        validate::value("eps", eps, eps > 0.0 && eps.is_finite(), "a finite number > 0")?;
        let formula = Formula::new(Functor::GaussianNll, [eps, self.full.into()]);
        let third = self.variance.map(Third::Variance);
        Ok(Traits { third, ..Traits::regression(formula, Weights::Count) })
    }
}
