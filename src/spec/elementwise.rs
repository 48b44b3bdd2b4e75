//! Losses of one element of the input and one of the target: what they share.
//!
//! A loss ℓ(x, y) has a value and two slopes, ∂ℓ/∂x and ∂ℓ/∂y; its file says what they are. Here
//! is the rest: broadcasting, weights, reductions, and the forms of the call. With v the weight of
//! an element (1 without weights), D the denominator and g the upstream gradient,
//!
//! ```text
//! none: v·ℓ      sum: Σ v·ℓ      mean, batchmean: Σ v·ℓ / D
//! gradient to x = g·v·∂ℓ/∂x (over D where the reduction divides), to y likewise
//! ```
//!
//! A tensor that was broadcast gets the sum of its gradients, in its own shape.

mod call;
pub(crate) mod checked;
pub(crate) mod functors;
mod space;

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::spec::weight::Weight;
pub(crate) use call::{Call, Input};
pub(crate) use checked::{Checked, Denominator, Formula, Options, Third, Traits, Weights};
pub(crate) use functors::Functor;
pub(crate) use space::{OPERANDS, Operand, Space, Strides};

/// What only this crate can name: the loss behind an [`Elementwise`].
pub(crate) mod sealed {
    use super::checked::Traits;

    /// Options of one loss, which become a formula.
    pub trait Loss: Clone {
        #[doc(hidden)]
        const REDUCTION: crate::base::reduction::Reduction =
            crate::base::reduction::Reduction::Mean;
        #[doc(hidden)]
        fn traits(&self) -> crate::base::error::Result<Traits<'_>>;
    }

    /// A loss that takes a weight for each element.
    pub trait Weighted: Loss {}
}

/// A loss of one element of the input and one of the target; `L` says which. Call it by a name of
/// its own: [`Mse`](crate::Mse), [`L1`](crate::L1), [`SmoothL1`](crate::SmoothL1),
/// [`Huber`](crate::Huber), [`BceWithLogits`](crate::BceWithLogits), [`KlDiv`](crate::KlDiv),
/// [`JsDiv`](crate::JsDiv), [`SoftMargin`](crate::SoftMargin),
/// [`HingeEmbedding`](crate::HingeEmbedding), [`Bce`](crate::Bce), [`PoissonNll`](crate::PoissonNll),
/// [`SigmoidFocal`](crate::SigmoidFocal).
///
/// | tensor | shape | dtype |
/// |---|---|---|
/// | input, target | any, row strides free; they broadcast as in PyTorch (not for BCE and focal loss) | f32, f16, bf16, both the same |
/// | weight | the input's, which is then the target's too (BCE: broadcasts to the input) | f32 or the input's |
/// | loss | `[]`, or the broadcast shape for [`Reduction::None`] | f32 |
/// | grad_output | the loss's, or one number | f32 or the input's |
/// | grad_input, grad_target | the input's, the target's, row strides free | the input's |
///
/// Arithmetic is f32, so that a difference or a loss beyond f32's range is infinite; sums are f64
/// in an order that does not depend on the number of threads. A gradient is rounded once. An empty
/// result has the sum 0 and the mean NaN.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "options do nothing until a call is made with them"]
pub struct Elementwise<'w, L> {
    pub(crate) loss: L,
    weight: Option<Weight<'w>>,
    reduction: Reduction,
}

impl<L: Default + sealed::Loss> Default for Elementwise<'_, L> {
    fn default() -> Self {
        Elementwise { loss: L::default(), weight: None, reduction: L::REDUCTION }
    }
}

/// Which gradients an allocating call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wrt {
    /// With respect to the input.
    #[default]
    Input,
    /// With respect to the target.
    Target,
    /// Both.
    Both,
    /// Both, and with respect to the variance where the loss has one.
    All,
}

/// Where gradients are written; what is `None` is not computed.
#[derive(Debug, Default)]
pub struct ElementwiseGradOut<'a> {
    /// The input's shape and dtype.
    pub grad_input: Option<TensorMut<'a>>,
    /// The target's shape and dtype.
    pub grad_target: Option<TensorMut<'a>>,
    /// The variance's shape and dtype; of [`GaussianNll`](crate::GaussianNll) alone.
    pub grad_variance: Option<TensorMut<'a>>,
}

/// Gradients that were asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct ElementwiseGrad {
    /// In the input's shape and dtype.
    pub grad_input: Option<Tensor>,
    /// In the target's shape and dtype.
    pub grad_target: Option<Tensor>,
    /// In the variance's shape and dtype.
    pub grad_variance: Option<Tensor>,
}

impl ElementwiseGrad {
    pub(crate) fn out(&mut self) -> ElementwiseGradOut<'_> {
        ElementwiseGradOut {
            grad_input: self.grad_input.as_mut().map(Tensor::view_mut),
            grad_target: self.grad_target.as_mut().map(Tensor::view_mut),
            grad_variance: self.grad_variance.as_mut().map(Tensor::view_mut),
        }
    }
}

impl<'w, L: sealed::Loss> Elementwise<'w, L> {
    /// Default [`Reduction::Mean`]; [`Reduction::BatchMean`] is for [`KlDiv`](crate::KlDiv) alone.
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    pub(crate) fn check(
        &self,
        input: &TensorRef<'_>,
        target: &TensorRef<'_>,
    ) -> Result<Checked<'_>> {
        let traits = self.loss.traits()?;
        let weight = self.weight.as_ref().map(Weight::view);
        Checked::new(traits, self.reduction, weight, input, target)
    }
}

impl<'w, L: sealed::Weighted> Elementwise<'w, L> {
    /// A weight for each element. Default: 1 each.
    pub fn weight<'v>(self, weight: impl Into<Weight<'v>>) -> Elementwise<'v, L> {
        Elementwise { loss: self.loss, weight: Some(weight.into()), reduction: self.reduction }
    }
}
