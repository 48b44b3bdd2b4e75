//! Log-softmax along one dimension: `y = x − lse`, gradient `g − e^y·Σg`.

use super::check;
use crate::device::{Device, on_device};
use crate::dtype::{DType, Element as _};
use crate::error::Result;
use crate::shape::Shape;
use crate::tensor::{Tensor, TensorMut, TensorRef};

/// Log-probabilities along a dimension (`torch.nn.functional.log_softmax`).
///
/// | tensor | shape | dtype |
/// |---|---|---|
/// | input | any, row stride free | f32, f16, bf16 |
/// | output | the input's | f32 or the input's |
/// | grad_output | the input's | f32 or the input's |
/// | grad_input | the input's | the input's |
///
/// An entry of −∞ stays −∞ and its gradient is that of the output; a line that is all −∞, or
/// holds +∞ or NaN, becomes NaN.
///
/// ```
/// use warploss::{Device, LogSoftmax, TensorRef};
/// let input = TensorRef::new(&[0.0f32, 0.0], &[1, 2])?;
/// let output = LogSoftmax::dim(-1).forward(&Device::best(), input)?;
/// assert_eq!(output.as_slice::<f32>(), Some(&[-std::f32::consts::LN_2; 2][..]));
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSoftmax {
    dim: isize,
}

/// An input with the dimensions to go along, resolved and in range.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckedLines {
    along: u32,
    /// Shape of the result where the dimensions are reduced away.
    pub(crate) reduced: Shape,
}

impl CheckedLines {
    pub(crate) fn new(shape: Shape, along: u32, keepdim: bool) -> CheckedLines {
        let mut reduced = Shape::SCALAR;
        for (d, &size) in shape.iter().enumerate() {
            match along >> d & 1 {
                0 => reduced.push(size),
                _ if keepdim => reduced.push(1),
                _ => {}
            }
        }
        CheckedLines { along, reduced }
    }

    /// Whether lines go along dimension `d`.
    pub(crate) fn along(&self, d: usize) -> bool {
        self.along >> d & 1 == 1
    }
}

impl LogSoftmax {
    /// Along dimension `dim`; negative counts from the end, as in PyTorch.
    pub fn dim(dim: isize) -> Self {
        LogSoftmax { dim }
    }

    /// Log-probabilities in f32.
    ///
    /// # Errors
    /// The input's dtype, `dim` out of range, out of memory.
    pub fn forward(&self, device: &Device, input: TensorRef<'_>) -> Result<Tensor> {
        self.check(&input)?;
        let mut output = device.zeros("output", f32::DTYPE, input.shape(), &input)?;
        self.forward_into(device, input, output.view_mut())?;
        Ok(output)
    }

    /// As [`LogSoftmax::forward`], into `output` (f32 or the input's dtype, its own row stride).
    ///
    /// # Errors
    /// As `forward`, and the output's shape or dtype; nothing is written then.
    pub fn forward_into(
        &self,
        device: &Device,
        input: TensorRef<'_>,
        output: TensorMut<'_>,
    ) -> Result<()> {
        let checked = self.check(&input)?;
        same_shape("output", &output.as_ref(), &input)?;
        let out = output.as_ref();
        check::dtype("output", &out, &[f32::DTYPE, input.dtype()], "the input's")?;
        on_device!(device, "input", [input.place(), output.place()], on => {
            on.log_softmax_forward(checked, input, output)
        })
    }

    /// Gradient with respect to the input, from the input itself, so that a rounded output costs
    /// no digits.
    ///
    /// # Errors
    /// As [`LogSoftmax::forward`], and shape or dtype of `grad_output`.
    pub fn backward(
        &self,
        device: &Device,
        input: TensorRef<'_>,
        grad_output: TensorRef<'_>,
    ) -> Result<Tensor> {
        self.check(&input)?;
        let mut grad = device.zeros("grad_input", input.dtype(), input.shape(), &input)?;
        self.backward_into(device, input, grad_output, grad.view_mut())?;
        Ok(grad)
    }

    /// As [`LogSoftmax::backward`], into `grad_input`.
    ///
    /// # Errors
    /// As `backward`; nothing is written then.
    pub fn backward_into(
        &self,
        device: &Device,
        input: TensorRef<'_>,
        grad_output: TensorRef<'_>,
        grad_input: TensorMut<'_>,
    ) -> Result<()> {
        let checked = self.check(&input)?;
        same_shape("grad_output", &grad_output, &input)?;
        let dtypes: [DType; 2] = [f32::DTYPE, input.dtype()];
        check::dtype("grad_output", &grad_output, &dtypes, "the input's")?;
        let grad = grad_input.as_ref();
        same_shape("grad_input", &grad, &input)?;
        check::dtype("grad_input", &grad, &[input.dtype()], "the input's")?;
        let places = [input.place(), grad_output.place(), grad.place()];
        on_device!(device, "input", places, on => {
            on.log_softmax_backward(checked, input, grad_output, grad_input)
        })
    }

    fn check(&self, input: &TensorRef<'_>) -> Result<CheckedLines> {
        check::float("input", input)?;
        let dim = check::dim(self.dim, input.rank())?;
        Ok(CheckedLines::new(input.shape(), 1 << dim, true))
    }
}

fn same_shape(argument: &'static str, tensor: &TensorRef<'_>, input: &TensorRef<'_>) -> Result<()> {
    check::shape(argument, tensor, input.shape(), "the input's")
}
