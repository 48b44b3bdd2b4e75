//! The public calls of this loss; what it computes: `spec/nll.rs`.

use crate::base::error::Result;
use crate::base::host::Element as _;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::base::validate;
use crate::device::Device;
use crate::spec::grad_output::GradOutput;
use crate::spec::nll::{Call, Nll, NllGrad};

impl<'w> Nll<'w> {
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
        validate::f32_output("loss", &loss.as_ref(), checked.loss_shape(), "reduction")?;
        device
            .backend("input", &[input.place(), loss.place()])?
            .nll(&checked, Call::Forward { input, loss })
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
        device
            .backend("grad_input", &[grad.place()])?
            .nll(&checked, Call::Backward { grad_output, grad_input })
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
        validate::f32_output("loss", &loss.as_ref(), checked.loss_shape(), "reduction")?;
        let grad_output = grad_output.into();
        grad_output.check(checked.loss_shape(), input.dtype())?;
        device
            .backend("input", &[input.place(), loss.place()])?
            .nll(&checked, Call::ForwardBackward { input, grad_output, loss })
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
}
