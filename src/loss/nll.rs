//! Negative log-likelihood with class indices: options, checks and the maths in words.
//!
//! ```text
//! ℓ = −w_t·x_t,   ∂ℓ/∂x_j = −w_t·[j = t]
//! ```
//!
//! Only x_t is read, so that x need not be log-probabilities and anything may stand elsewhere. A
//! weight of 0 silences an x_t of −∞. The mean divides by W = Σ w_t over kept rows.

use super::{ClassIndices, Counting, GradOutput, check};
use crate::device::{Device, on_device};
use crate::dtype::Element as _;
use crate::error::Result;
use crate::reduction::Reduction;
use crate::shape::Shape;
use crate::tensor::{Tensor, TensorMut, TensorRef};

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
pub struct Nll<'w> {
    pub(crate) weight: Option<TensorRef<'w>>,
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
    pub fn weight(self, weight: TensorRef<'_>) -> Nll<'_> {
        let Nll { ignore_index, reduction, .. } = self;
        Nll { weight: Some(weight), ignore_index, reduction }
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

    /// The loss.
    ///
    /// # Errors
    /// A shape, dtype, stride or target that breaks the rules above; out of memory.
    pub fn forward(
        &self,
        device: &Device,
        input: TensorRef<'_>,
        target: TensorRef<'_>,
    ) -> Result<Tensor> {
        let shape = self.check(&input, &target)?.loss_shape();
        let mut loss = device.zeros("loss", f32::DTYPE, shape, &input)?;
        self.forward_into(device, input, target, loss.view_mut())?;
        Ok(loss)
    }

    /// As [`Nll::forward`], into the caller's buffer; allocates nothing.
    ///
    /// # Errors
    /// As `forward`; nothing is written then.
    pub fn forward_into(
        &self,
        device: &Device,
        input: TensorRef<'_>,
        target: TensorRef<'_>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let checked = self.check(&input, &target)?;
        check::f32_output("loss", &loss.as_ref(), checked.loss_shape(), "reduction")?;
        on_device!(device, "input", [input.place(), loss.place()], on => {
            on.nll_forward(&checked, input, loss)
        })
    }

    /// Gradient with respect to `input`, of which shape and dtype alone are used.
    ///
    /// # Errors
    /// As [`Nll::forward`], and the shape of `grad_output`.
    pub fn backward<'g>(
        &self,
        device: &Device,
        input: TensorRef<'_>,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
    ) -> Result<Tensor> {
        // Before memory is taken for it.
        self.check(&input, &target)?;
        let mut grad = device.zeros("grad_input", input.dtype(), input.shape(), &input)?;
        self.backward_into(device, target, grad_output, grad.view_mut())?;
        Ok(grad)
    }

    /// As [`Nll::backward`], into `grad_input`, whose shape and dtype are the input's; it may be
    /// the input itself. Allocates nothing.
    ///
    /// # Errors
    /// As `backward`; nothing is written then.
    pub fn backward_into<'g>(
        &self,
        device: &Device,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
        grad_input: TensorMut<'_>,
    ) -> Result<()> {
        let grad = grad_input.as_ref();
        let checked = self.check_named("grad_input", &grad, &target)?;
        let grad_output = grad_output.into();
        grad_output.check(checked.loss_shape(), grad.dtype())?;
        on_device!(device, "grad_input", [grad.place()], on => {
            on.nll_backward(&checked, grad_output, grad_input)
        })
    }

    /// Loss and gradient at once, **overwriting the input** with its gradient; allocates nothing.
    ///
    /// # Errors
    /// As [`Nll::forward`]; nothing is written then, the input is as it was.
    pub fn forward_backward_in_place<'g>(
        &self,
        device: &Device,
        input: TensorMut<'_>,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let checked = self.check(&input.as_ref(), &target)?;
        check::f32_output("loss", &loss.as_ref(), checked.loss_shape(), "reduction")?;
        let grad_output = grad_output.into();
        grad_output.check(checked.loss_shape(), input.dtype())?;
        on_device!(device, "input", [input.place(), loss.place()], on => {
            on.nll_forward_backward(&checked, input, grad_output, loss)
        })
    }

    /// As [`Nll::forward_backward_in_place`], **consuming the input**: the tensor comes back as
    /// the gradient.
    ///
    /// # Errors
    /// As `forward`.
    pub fn forward_backward<'g>(
        &self,
        device: &Device,
        mut input: Tensor,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
    ) -> Result<NllGrad> {
        let shape = self.check(&input.view(), &target)?.loss_shape();
        let mut loss = device.zeros("loss", f32::DTYPE, shape, &input.view())?;
        let (view, out) = (input.view_mut(), loss.view_mut());
        self.forward_backward_in_place(device, view, target, grad_output, out)?;
        Ok(NllGrad { loss, grad_input: input })
    }

    fn check<'a>(
        &'a self,
        input: &TensorRef<'_>,
        target: &TensorRef<'a>,
    ) -> Result<CheckedNll<'a>> {
        self.check_named("input", input, target)
    }

    /// Everything about the inputs that can be told without reading them; `argument` has the
    /// input's shape and dtype.
    fn check_named<'a>(
        &'a self,
        argument: &'static str,
        input: &TensorRef<'_>,
        target: &TensorRef<'a>,
    ) -> Result<CheckedNll<'a>> {
        check::reduction(self.reduction)?;
        check::float(argument, input)?;
        let shape = input.shape();
        let (class_dim, rows) = check::classes(argument, shape)?;
        let owner = format_args!("the input's {shape} without its classes");
        let target = ClassIndices::of_rows("target", target, rows, owner)?;
        let classes = shape[class_dim];
        check::class_weight(self.weight.as_ref(), classes, (input.dtype(), "the input's"))?;
        let counting = Counting {
            rows: target.len(),
            weight: self.weight,
            classes,
            ignore_index: self.ignore_index,
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
    fn loss_shape(&self) -> Shape {
        match self.counting.reduction {
            Reduction::None => self.target.shape(),
            Reduction::Sum | Reduction::Mean | Reduction::BatchMean => Shape::SCALAR,
        }
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
