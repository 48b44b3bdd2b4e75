//! The public calls of this loss; what it computes: `spec/multi_margin.rs`.

use crate::base::error::Result;
use crate::base::host::Element as _;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::base::validate;
use crate::device::Device;
use crate::spec::elementwise::Input;
use crate::spec::grad_output::GradOutput;
use crate::spec::multi_margin::{Call, MultiMargin, MultiMarginGrad};

impl MultiMargin<'_> {
    /// The loss.
    ///
    /// # Errors
    /// A shape, dtype, stride, target or option that breaks the rules above; out of memory.
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

    /// As [`MultiMargin::forward`], into the caller's buffer; allocates nothing.
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
        let grad_output = GradOutput::default();
        let (input, loss, grad_input) = (Input::Kept(input), Some(loss), None);
        self.call(device, target, Call { input, grad_output, loss, grad_input })
    }

    /// Gradient with respect to `input`.
    ///
    /// # Errors
    /// As [`MultiMargin::forward`], and the shape of `grad_output`.
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
        self.backward_into(device, input, target, grad_output, grad.view_mut())?;
        Ok(grad)
    }

    /// As [`MultiMargin::backward`], into `grad_input`, whose shape and dtype are the input's. Allocates
    /// nothing.
    ///
    /// # Errors
    /// As `backward`; nothing is written then.
    pub fn backward_into<'g>(
        &self,
        device: &Device,
        input: TensorRef<'_>,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
        grad_input: TensorMut<'_>,
    ) -> Result<()> {
        let grad_output = grad_output.into();
        let (input, loss, grad_input) = (Input::Kept(input), None, Some(grad_input));
        self.call(device, target, Call { input, grad_output, loss, grad_input })
    }

    /// Loss and gradient at once, **overwriting the input** with its gradient; allocates nothing.
    ///
    /// # Errors
    /// As [`MultiMargin::forward`]; nothing is written then, the input is as it was.
    pub fn forward_backward_in_place<'g>(
        &self,
        device: &Device,
        input: TensorMut<'_>,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let grad_output = grad_output.into();
        let (input, loss, grad_input) = (Input::Consumed(input), Some(loss), None);
        self.call(device, target, Call { input, grad_output, loss, grad_input })
    }

    /// As [`MultiMargin::forward_backward_in_place`], **consuming the input**: the tensor comes back as
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
    ) -> Result<MultiMarginGrad> {
        let shape = self.check(&input.view(), &target)?.loss_shape();
        let mut loss = device.zeros("loss", f32::DTYPE, shape, &input.view())?;
        let (view, out) = (input.view_mut(), loss.view_mut());
        self.forward_backward_in_place(device, view, target, grad_output, out)?;
        Ok(MultiMarginGrad { loss, grad_input: input })
    }

    /// Checks, and hands the call to the device.
    fn call(&self, device: &Device, target: TensorRef<'_>, call: Call<'_>) -> Result<()> {
        let input = call.input.view();
        let checked = self.check(&input, &target)?;
        let mut places = [input.place(); 2];
        if let Some(loss) = &call.loss {
            validate::f32_output("loss", &loss.as_ref(), checked.loss_shape(), "reduction")?;
            places[1] = loss.place();
        }
        if let Some(grad) = &call.grad_input {
            let grad = grad.as_ref();
            validate::like("grad_input", &grad, &input, "the input's")?;
            places[1] = grad.place();
        }
        call.grad_output.check(checked.loss_shape(), input.dtype())?;
        device.backend("input", &places)?.multi_margin(&checked, call)
    }
}
