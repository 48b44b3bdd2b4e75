//! The public calls of this loss; what it computes: `spec/logsumexp.rs`.

use crate::base::error::Result;
use crate::base::host::Element as _;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::base::validate;
use crate::device::Device;
use crate::spec::logsumexp::{Call, LogSumExp};

impl LogSumExp {
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
        validate::f32_output("output", &output.as_ref(), checked.reduced, "the lines'")?;
        device
            .backend("input", &[input.place(), output.place()])?
            .logsumexp(checked, Call::Forward { input, output })
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
        validate::f32_output("output", &output, checked.reduced, "the lines'")?;
        validate::shape("grad_output", &grad_output, checked.reduced, "the output's")?;
        let dtypes = [f32::DTYPE, input.dtype()];
        validate::dtype("grad_output", &grad_output, &dtypes, "the input's")?;
        validate::contiguous("grad_output", &grad_output)?;
        let grad = grad_input.as_ref();
        validate::like("grad_input", &grad, &input, "the input's")?;
        let places = [input.place(), output.place(), grad_output.place(), grad.place()];
        device
            .backend("input", &places)?
            .logsumexp(checked, Call::Backward { input, output, grad_output, grad_input })
    }
}
