//! Negative log-likelihood with class indices: options, checks and the maths in words.
//!
//! ```text
//! ℓ = −w_t·x_t,   ∂ℓ/∂x_j = −w_t·[j = t]
//! ```
//!
//! Only x_t is read, so that x need not be log-probabilities and anything may stand elsewhere. A
//! weight of 0 silences an x_t of −∞. The mean divides by W = Σ w_t over kept rows.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::base::validate;
use crate::spec::class_indices::ClassIndices;
use crate::spec::counting::Counting;
use crate::spec::grad_output::GradOutput;
use crate::spec::weight::Weight;

/// Negative log-likelihood −w_t·x_t of class indices, x being log-probabilities
/// (`torch.nn.NLLLoss`).
///
/// | tensor | shape | dtype |
/// |---|---|---|
/// | input | `[C]`, `[N, C]` or `[N, C, d1, …]`, row stride free | f32, f16, bf16 |
/// | target | `[]` or `[1]`, `[N]`, `[N, d1, …]` | i64, i32, u32, u8 |
/// | weight | `[C]` | f32 or the input's |
/// | loss | `[]`, or the target's shape for [`Reduction::None`] | f32 |
///
/// One element of each row is read, and each element of a gradient is written once, in any layout.
/// The mean is NaN if no row is kept, or if the kept rows weigh 0; ignored rows have gradient 0
/// even then.
///
/// ```
/// use warploss::{Device, Nll, TensorRef};
/// let input = TensorRef::new(&[-0.5f32, -1.0, -2.0, -3.0, -0.1, -2.5], &[2, 3])?;
/// let target = TensorRef::new(&[0i64, 1], &[2])?;
/// let loss = Nll::default().forward(&Device::best(), input, target)?;
/// assert!((loss.item()? - 0.3).abs() < 1e-6);
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "options do nothing until a call is made with them"]
pub struct Nll<'w> {
    weight: Option<Weight<'w>>,
    pub(crate) ignore_index: i64,
    pub(crate) reduction: Reduction,
}

impl Default for Nll<'_> {
    fn default() -> Self {
        Nll { weight: None, ignore_index: -100, reduction: Reduction::Mean }
    }
}

/// What a fused forward and backward pass returns: the input's memory now holds the gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct NllGrad {
    /// `[]` for sum and mean, the target's shape for none; f32.
    pub loss: Tensor,
    /// Gradient with respect to the input, in its memory, shape and dtype.
    pub grad_input: Tensor,
}

impl<'w> Nll<'w> {
    /// Class weights, `[C]`, finite; f32 or the input's dtype. Default: 1 each.
    pub fn weight<'v>(self, weight: impl Into<Weight<'v>>) -> Nll<'v> {
        let Nll { ignore_index, reduction, .. } = self;
        Nll { weight: Some(weight.into()), ignore_index, reduction }
    }

    /// The weights, where there are any.
    pub(crate) fn class_weight(&self) -> Option<TensorRef<'_>> {
        self.weight.as_ref().map(Weight::view)
    }

    /// The label of rows that do not count; any integer. Default −100.
    pub fn ignore_index(mut self, label: i64) -> Self {
        self.ignore_index = label;
        self
    }

    /// Default [`Reduction::Mean`], which divides by the weights of the kept rows' targets.
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    pub(crate) fn check<'a>(
        &'a self,
        input: &TensorRef<'_>,
        target: &TensorRef<'a>,
    ) -> Result<CheckedNll<'a>> {
        self.check_named("input", input, target)
    }

    /// Everything about the inputs that can be told without reading them; `argument` has the
    /// input's shape and dtype.
    pub(crate) fn check_named<'a>(
        &'a self,
        argument: &'static str,
        input: &TensorRef<'_>,
        target: &TensorRef<'a>,
    ) -> Result<CheckedNll<'a>> {
        validate::reduction(self.reduction)?;
        validate::float(argument, input)?;
        let shape = input.shape();
        let (class_dim, rows) = validate::classes(argument, shape)?;
        let owner = format_args!("the input's {shape} without its classes");
        let target = ClassIndices::beside("target", target, rows, (shape, owner))?;
        let classes = shape[class_dim];
        let weight = self.class_weight();
        validate::class_weight(weight.as_ref(), classes, (input.dtype(), "the input's"))?;
        let counting = Counting {
            rows: target.len(),
            weight,
            classes,
            ignore_index: Some(self.ignore_index),
            by_rows: false,
            reduction: self.reduction,
        };
        Ok(CheckedNll { target, counting })
    }
}

/// Inputs that have passed the checks: only [`Nll`] makes one, and a device takes nothing else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckedNll<'a> {
    pub(crate) target: ClassIndices<'a>,
    pub(crate) counting: Counting<'a>,
}

impl CheckedNll<'_> {
    pub(crate) fn loss_shape(&self) -> Shape {
        self.counting.reduction.loss_shape(self.target.shape())
    }
}

/// Where the elements of rows lie: position k of block n has its class c at
/// `n·stride + c·class_stride + k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Positions {
    pub(crate) blocks: usize,
    pub(crate) stride: usize,
    pub(crate) classes: usize,
    pub(crate) class_stride: usize,
    /// Positions of a block, next to one another.
    pub(crate) positions: usize,
}

impl Positions {
    /// Of a tensor `[C]`, `[N, C]` or `[N, C, d1, …]`.
    pub(crate) fn new(shape: &Shape, stride: usize) -> Positions {
        let (blocks, stride, classes, class_stride, positions) = match **shape {
            [] => (0, 0, 0, 0, 0),
            // Of one dimension, the classes are what a row stride lies between.
            [classes] => (1, 0, classes, stride, 1),
            [blocks, classes, ref extra @ ..] => {
                let positions = extra.iter().product();
                (blocks, stride, classes, positions, positions)
            }
        };
        Positions { blocks, stride, classes, class_stride, positions }
    }

    /// Offset of a row's element, the row counted row-major over blocks and positions.
    #[inline]
    pub(crate) fn offset(&self, row: usize, class: usize) -> usize {
        let (block, position) = match self.positions {
            1 => (row, 0),
            positions => (row / positions, row % positions),
        };
        block * self.stride + class * self.class_stride + position
    }
}

/// A call that has passed the checks, with everything that it reads and writes.
#[derive(Debug)]
pub(crate) enum Call<'a> {
    Forward {
        input: TensorRef<'a>,
        loss: TensorMut<'a>,
    },
    Backward {
        grad_output: GradOutput<'a>,
        grad_input: TensorMut<'a>,
    },
    /// In one pass, the gradient over the input.
    ForwardBackward {
        input: TensorMut<'a>,
        grad_output: GradOutput<'a>,
        loss: TensorMut<'a>,
    },
}
