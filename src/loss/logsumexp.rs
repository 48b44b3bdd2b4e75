//! Log-sum-exp along dimensions: `ln Σ e^x`, gradient `g·e^(x − lse)`.

use super::{CheckedLines, check};
use crate::device::{Device, on_device};
use crate::dtype::Element as _;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, TensorMut, TensorRef};

/// Logarithm of the sum of exponentials (`torch.logsumexp`).
///
/// | tensor | shape | dtype |
/// |---|---|---|
/// | input | any, row stride free | f32, f16, bf16 |
/// | output | the input's, without the dimensions (or 1 there with `keepdim`) | f32 |
/// | grad_output | the output's | f32 or the input's |
/// | grad_input | the input's | the input's |
///
/// A line of −∞ alone, or without elements, gives −∞; one with +∞ and no NaN gives +∞; one with
/// NaN gives NaN.
///
/// ```
/// use warploss::{Device, LogSumExp, TensorRef};
/// let input = TensorRef::new(&[1000.0f32, 1000.0], &[1, 2])?;
/// let output = LogSumExp::dims(&[1])?.forward(&Device::best(), input)?;
/// assert_eq!(output.as_slice::<f32>(), Some(&[1000.6932][..]));
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSumExp {
    dims: [isize; crate::shape::MAX_RANK],
    count: usize,
    keepdim: bool,
}

impl LogSumExp {
    /// Along the dimensions `dims`, one or more; negative counts from the end.
    ///
    /// # Errors
    /// No dimension, or more than a tensor can have.
    pub fn dims(dims: &[isize]) -> Result<Self> {
        let mut all = [0; crate::shape::MAX_RANK];
        match all.get_mut(..dims.len()) {
            Some(slots) if !dims.is_empty() => slots.copy_from_slice(dims),
            _ => {
                return Err(Error::Value {
                    argument: "dim",
                    expected: format!("1 to {} dimensions", crate::shape::MAX_RANK),
                    got: dims.len().to_string(),
                });
            }
        }
        Ok(LogSumExp { dims: all, count: dims.len(), keepdim: false })
    }

    /// Keep the reduced dimensions with size 1. Default: drop them.
    pub fn keepdim(mut self, keepdim: bool) -> Self {
        self.keepdim = keepdim;
        self
    }

    /// The log-sum-exp of every line, in f32.
    ///
    /// # Errors
    /// The input's dtype, a dimension out of range or repeated, out of memory.
    pub fn forward(&self, device: &Device, input: TensorRef<'_>) -> Result<Tensor> {
        let checked = self.check(&input)?;
        let mut output = device.zeros("output", f32::DTYPE, checked.reduced, &input)?;
        self.forward_into(device, input, output.view_mut())?;
        Ok(output)
    }

    /// As [`LogSumExp::forward`], into `output`.
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
        check::f32_output("output", &output.as_ref(), checked.reduced, "the lines'")?;
        on_device!(device, "input", [input.place(), output.place()], on => {
            on.logsumexp_forward(checked, input, output)
        })
    }

    /// Gradient with respect to the input, from the input and the `output` of a forward pass.
    ///
    /// # Errors
    /// As [`LogSumExp::forward`], and shape or dtype of `output` and `grad_output`.
    pub fn backward(
        &self,
        device: &Device,
        input: TensorRef<'_>,
        output: TensorRef<'_>,
        grad_output: TensorRef<'_>,
    ) -> Result<Tensor> {
        self.check(&input)?;
        let mut grad = device.zeros("grad_input", input.dtype(), input.shape(), &input)?;
        self.backward_into(device, input, output, grad_output, grad.view_mut())?;
        Ok(grad)
    }

    /// As [`LogSumExp::backward`], into `grad_input`.
    ///
    /// # Errors
    /// As `backward`; nothing is written then.
    pub fn backward_into(
        &self,
        device: &Device,
        input: TensorRef<'_>,
        output: TensorRef<'_>,
        grad_output: TensorRef<'_>,
        grad_input: TensorMut<'_>,
    ) -> Result<()> {
        let checked = self.check(&input)?;
        check::f32_output("output", &output, checked.reduced, "the lines'")?;
        check::shape("grad_output", &grad_output, checked.reduced, "the output's")?;
        let dtypes = [f32::DTYPE, input.dtype()];
        check::dtype("grad_output", &grad_output, &dtypes, "the input's")?;
        check::contiguous("grad_output", &grad_output)?;
        let grad = grad_input.as_ref();
        check::shape("grad_input", &grad, input.shape(), "the input's")?;
        check::dtype("grad_input", &grad, &[input.dtype()], "the input's")?;
        let places = [input.place(), output.place(), grad_output.place(), grad.place()];
        on_device!(device, "input", places, on => {
            on.logsumexp_backward(checked, input, (output, grad_output), grad_input)
        })
    }

    fn check(&self, input: &TensorRef<'_>) -> Result<CheckedLines> {
        check::float("input", input)?;
        let mut along = 0;
        for &dim in &self.dims[..self.count] {
            let d = check::dim(dim, input.rank())?;
            if along >> d & 1 == 1 {
                return Err(Error::Value {
                    argument: "dim",
                    expected: "distinct dimensions".into(),
                    got: format!("{dim} twice"),
                });
            }
            along |= 1 << d;
        }
        Ok(CheckedLines::new(input.shape(), along, self.keepdim))
    }
}
