//! The public calls of this loss; what it computes: `spec/js_div_logits.rs`.

use crate::base::error::Result;
use crate::base::host::Element as _;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::base::validate;
use crate::device::Device;
use crate::spec::grad_output::GradOutput;
use crate::spec::js_div_logits::{Call, JsDivLogits, JsDivLogitsGrad, JsDivLogitsGradOut};

impl<'w> JsDivLogits<'w> {
    /// The divergence.
    ///
    /// # Errors
    /// A shape, dtype, stride, option or label that breaks the rules above; out of memory.
    pub fn forward(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
    ) -> Result<Tensor> {
        let shape = self.check(&logits, &target)?.of_rows.loss_shape();
        let mut loss = device.zeros("loss", f32::DTYPE, shape, &logits)?;
        self.forward_into(device, logits, target, loss.view_mut())?;
        Ok(loss)
    }

    /// As [`JsDivLogits::forward`], into the caller's buffer; allocates nothing.
    ///
    /// # Errors
    /// As `forward`; nothing is written then.
    pub fn forward_into(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let checked = self.check(&logits, &target)?;
        validate::f32_output("loss", &loss.as_ref(), checked.of_rows.loss_shape(), "reduction")?;
        device
            .backend("logits", &[logits.place(), loss.place()])?
            .js_div_logits(&checked, Call::Forward { logits, loss })
    }

    /// Gradient with respect to the logits.
    ///
    /// # Errors
    /// As [`JsDivLogits::forward`], and the shape of `grad_output`.
    pub fn backward<'g>(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
    ) -> Result<Tensor> {
        self.check(&logits, &target)?;
        let mut grad = device.zeros("grad_logits", logits.dtype(), logits.shape(), &logits)?;
        self.backward_into(device, logits, target, grad_output, grad.view_mut())?;
        Ok(grad)
    }

    /// As [`JsDivLogits::backward`], into `gradients`: that of the logits and, where there is
    /// memory for it, that of the teacher's. Allocates nothing.
    ///
    /// # Errors
    /// As `backward`; nothing is written then.
    pub fn backward_into<'g, 'o>(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
        gradients: impl Into<JsDivLogitsGradOut<'o>>,
    ) -> Result<()> {
        let checked = self.check(&logits, &target)?;
        let (grad_output, gradients) = (grad_output.into(), gradients.into());
        grad_output.check(checked.of_rows.loss_shape(), logits.dtype())?;
        let grad = gradients.logits.as_ref();
        validate::like("grad_logits", &grad, &logits, "the logits'")?;
        checked.check_grad_target(&gradients)?;
        device
            .backend("logits", &[logits.place(), grad.place()])?
            .js_div_logits(&checked, Call::Backward { logits, grad_output, gradients })
    }

    /// Loss and gradient at once, **overwriting the logits** with their gradient; allocates
    /// nothing.
    ///
    /// # Errors
    /// As [`JsDivLogits::forward`]; nothing is written then, the logits are as they were.
    pub fn forward_backward_in_place<'g, 'o>(
        &self,
        device: &Device,
        logits: impl Into<JsDivLogitsGradOut<'o>>,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let (gradients, grad_output) = (logits.into(), grad_output.into());
        let logits = gradients.logits.as_ref();
        let checked = self.check(&logits, &target)?;
        validate::f32_output("loss", &loss.as_ref(), checked.of_rows.loss_shape(), "reduction")?;
        grad_output.check(checked.of_rows.loss_shape(), logits.dtype())?;
        checked.check_grad_target(&gradients)?;
        device
            .backend("logits", &[logits.place(), loss.place()])?
            .js_div_logits(&checked, Call::ForwardBackward { gradients, grad_output, loss })
    }

    /// As [`JsDivLogits::forward_backward_in_place`], **consuming the logits**: the tensor comes
    /// back as the gradient.
    ///
    /// # Errors
    /// As `forward`.
    pub fn forward_backward<'g>(
        &self,
        device: &Device,
        mut logits: Tensor,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
    ) -> Result<JsDivLogitsGrad> {
        let shape = self.check(&logits.view(), &target)?.of_rows.loss_shape();
        let mut loss = device.zeros("loss", f32::DTYPE, shape, &logits.view())?;
        let (view, out) = (logits.view_mut(), loss.view_mut());
        self.forward_backward_in_place(device, view, target, grad_output, out)?;
        Ok(JsDivLogitsGrad { loss, grad_logits: logits })
    }
}
