//! The public calls of this loss; what it computes: `spec/log_softmax.rs`.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::host::Element as _;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::base::validate;
use crate::device::Device;
use crate::spec::log_softmax::{Call, LogSoftmax, same_shape};

impl LogSoftmax {
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
        validate::dtype("output", &out, &[f32::DTYPE, input.dtype()], "the input's")?;
        device
            .backend("input", &[input.place(), output.place()])?
            .log_softmax(checked, Call::Forward { input, output })
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
        validate::dtype("grad_output", &grad_output, &dtypes, "the input's")?;
        let grad = grad_input.as_ref();
        same_shape("grad_input", &grad, &input)?;
        validate::dtype("grad_input", &grad, &[input.dtype()], "the input's")?;
        let places = [input.place(), grad_output.place(), grad.place()];
        device
            .backend("input", &places)?
            .log_softmax(checked, Call::Backward { input, grad_output, grad_input })
    }
}
