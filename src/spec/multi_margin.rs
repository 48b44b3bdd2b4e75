//! Multi-class margin loss: options, checks and the maths in words.
//!
//! ```text
//! ℓ       = w_t/C·Σ_{j≠t} h_j^p,   h_j = max(0, margin − x_t + x_j)
//! ∂ℓ/∂x_j = w_t/C·p·h_j^(p−1) where h_j > 0, else 0     ∂ℓ/∂x_t = −Σ_{j≠t} ∂ℓ/∂x_j
//! ```
//!
//! As in PyTorch the mean divides by the number of rows, whatever they weigh, no row is ignored, and
//! what is NaN is not greater than 0: it costs nothing.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::base::validate;
use crate::spec::class_indices::ClassIndices;
use crate::spec::counting::Counting;
use crate::spec::elementwise::Input;
use crate::spec::grad_output::GradOutput;
use crate::spec::weight::Weight;

/// Margin between the score of a row's class and every other (`torch.nn.MultiMarginLoss`):
///
/// ```text
/// ℓ = w_t/C·Σ_{j≠t} max(0, margin − x_t + x_j)^p
/// ```
///
/// | tensor | shape | dtype |
/// |---|---|---|
/// | input | `[C]`, `[N, C]` or `[N, C, d1, …]`, row stride free | f32, f16, bf16 |
/// | target | `[]` or `[1]`, `[N]`, `[N, d1, …]` | i64, i32, u32, u8 |
/// | weight | `[C]` | f32 or the input's |
/// | loss | `[]`, or the target's shape for [`Reduction::None`] | f32 |
///
/// As PyTorch's: the mean divides by the number of rows and not by their weights, there is no label of
/// rows that do not count, and a score that is NaN is above no margin: it costs nothing and has a gradient
/// of 0. (More than two dimensions are ours.) What margin − x_t loses in rounding is added to the
/// sum, so that a common offset costs no digits.
///
/// ```
/// use warploss::{Device, MultiMargin, TensorRef};
/// let input = TensorRef::new(&[0.5f32, 0.0, 2.0], &[1, 3])?;
/// let target = TensorRef::new(&[0i64], &[1])?;
/// let loss = MultiMargin::default().forward(&Device::best(), input, target)?;
/// assert_eq!(loss.item()?, (0.5 + 2.5) / 3.0);
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "options do nothing until a call is made with them"]
pub struct MultiMargin<'w> {
    p: u32,
    margin: f32,
    weight: Option<Weight<'w>>,
    reduction: Reduction,
}

impl Default for MultiMargin<'_> {
    fn default() -> Self {
        MultiMargin { p: 1, margin: 1.0, weight: None, reduction: Reduction::Mean }
    }
}

/// What a fused forward and backward pass returns: the input's memory now holds the gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct MultiMarginGrad {
    /// `[]` for sum and mean, the target's shape for none; f32.
    pub loss: Tensor,
    /// Gradient with respect to the input, in its memory, shape and dtype.
    pub grad_input: Tensor,
}

impl<'w> MultiMargin<'w> {
    /// The exponent, 1 or 2. Default 1.
    pub fn p(mut self, p: u32) -> Self {
        self.p = p;
        self
    }

    /// By how much the score of the class shall exceed the others; finite. Default 1.
    pub fn margin(mut self, margin: f32) -> Self {
        self.margin = margin;
        self
    }

    /// Class weights, `[C]`, finite; f32 or the input's dtype. Default: 1 each.
    pub fn weight<'v>(self, weight: impl Into<Weight<'v>>) -> MultiMargin<'v> {
        let MultiMargin { p, margin, reduction, .. } = self;
        MultiMargin { p, margin, weight: Some(weight.into()), reduction }
    }

    /// Default [`Reduction::Mean`], which divides by the number of rows.
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    /// Everything about the inputs that can be told without reading them.
    pub(crate) fn check<'a>(
        &'a self,
        input: &TensorRef<'_>,
        target: &TensorRef<'a>,
    ) -> Result<CheckedMargin<'a>> {
        let MultiMargin { p, margin, reduction, .. } = *self;
        let weight = self.weight.as_ref().map(Weight::view);
        validate::value("p", p, matches!(p, 1 | 2), "1 or 2")?;
        validate::value("margin", margin, margin.is_finite(), "a finite number")?;
        validate::reduction(reduction)?;
        validate::float("input", input)?;
        let shape = input.shape();
        let (class_dim, rows) = validate::classes("input", shape)?;
        let owner = format_args!("the input's {shape} without its classes");
        let target = ClassIndices::beside("target", target, rows, (shape, owner))?;
        let classes = shape[class_dim];
        validate::class_weight(weight.as_ref(), classes, (input.dtype(), "the input's"))?;
        let rows = target.len();
        let counting =
            Counting { rows, weight, classes, ignore_index: None, by_rows: true, reduction };
        Ok(CheckedMargin { target, counting, class_dim, margin, square: p == 2 })
    }
}

/// Inputs that have passed the checks: only [`MultiMargin`] makes one, and a device takes nothing else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckedMargin<'a> {
    pub(crate) target: ClassIndices<'a>,
    pub(crate) counting: Counting<'a>,
    pub(crate) class_dim: usize,
    pub(crate) margin: f32,
    /// p is 2.
    pub(crate) square: bool,
}

impl CheckedMargin<'_> {
    pub(crate) fn loss_shape(&self) -> Shape {
        self.counting.reduction.loss_shape(self.target.shape())
    }
}

/// What slopes are multiplied by before their factor is, over the same power of two: a factor that f32 has
/// not, or not with its digits, meets slopes that bring it back.
pub(crate) fn unit(factor: f64) -> f64 {
    const FAR: f64 = (1u128 << 66) as f64;
    const UNIT: f64 = (1u64 << 60) as f64;
    match factor.abs() {
        size if size > FAR => UNIT,
        size if size < 1.0 / FAR => 1.0 / UNIT,
        _ => 1.0,
    }
}

/// A call that has passed the checks, with everything that it reads and writes.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) input: Input<'a>,
    pub(crate) grad_output: GradOutput<'a>,
    pub(crate) loss: Option<TensorMut<'a>>,
    /// Of an input that is kept.
    pub(crate) grad_input: Option<TensorMut<'a>>,
}
