//! The public calls of this loss; what it computes: `spec/elementwise.rs`.

use crate::base::error::Result;
use crate::base::host::Element as _;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::device::Device;
use crate::spec::elementwise::{
    Call, Checked, Elementwise, ElementwiseGrad, ElementwiseGradOut, Input, Third, Wrt, sealed,
};
use crate::spec::grad_output::GradOutput;

impl<'w, L: sealed::Loss> Elementwise<'w, L> {
    /// The loss, in f32.
    ///
    /// # Errors
    /// A shape, dtype, stride or option that breaks the rules above; out of memory.
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

    /// As [`Elementwise::forward`], into `loss`; allocates nothing.
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
        let grads = ElementwiseGradOut::default();
        self.call(device, Input::Kept(input), target, GradOutput::default(), (Some(loss), grads))
    }

    /// The gradients that `wrt` names, for the upstream gradient `grad_output`.
    ///
    /// # Errors
    /// As [`Elementwise::forward`], and shape or dtype of `grad_output`.
    pub fn backward<'g>(
        &self,
        device: &Device,
        input: TensorRef<'_>,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
        wrt: Wrt,
    ) -> Result<ElementwiseGrad> {
        let variance = variance(&self.check(&input, &target)?);
        let mut grads = zeros(device, &input, (&target, variance), wrt)?;
        self.backward_into(device, input, target, grad_output, grads.out())?;
        Ok(grads)
    }

    /// As [`Elementwise::backward`], into `grads`; allocates nothing.
    ///
    /// # Errors
    /// As `backward`, and shapes and dtypes of the gradients; nothing is written then.
    pub fn backward_into<'g>(
        &self,
        device: &Device,
        input: TensorRef<'_>,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
        grads: ElementwiseGradOut<'_>,
    ) -> Result<()> {
        self.call(device, Input::Kept(input), target, grad_output.into(), (None, grads))
    }

    /// The loss and the gradients that `wrt` names, together.
    ///
    /// # Errors
    /// As [`Elementwise::backward`].
    pub fn forward_backward<'g>(
        &self,
        device: &Device,
        input: TensorRef<'_>,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
        wrt: Wrt,
    ) -> Result<(Tensor, ElementwiseGrad)> {
        let checked = self.check(&input, &target)?;
        let mut loss = device.zeros("loss", f32::DTYPE, checked.loss_shape(), &input)?;
        let mut grads = zeros(device, &input, (&target, variance(&checked)), wrt)?;
        let out = (loss.view_mut(), grads.out());
        self.forward_backward_into(device, input, target, grad_output, out)?;
        Ok((loss, grads))
    }

    /// As [`Elementwise::forward_backward`], into the loss and the gradients of `out`: input and
    /// target are read once where their shapes are equal. Allocates nothing.
    ///
    /// # Errors
    /// As [`Elementwise::backward_into`]; nothing is written then.
    pub fn forward_backward_into<'g>(
        &self,
        device: &Device,
        input: TensorRef<'_>,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
        out: (TensorMut<'_>, ElementwiseGradOut<'_>),
    ) -> Result<()> {
        let (loss, grads) = out;
        self.call(device, Input::Kept(input), target, grad_output.into(), (Some(loss), grads))
    }

    /// As [`Elementwise::forward_backward_into`], **overwriting the input** with its gradient; the
    /// target must not be larger than the input. Allocates nothing.
    ///
    /// # Errors
    /// As there; nothing is written then, the input is as it was.
    pub fn forward_backward_in_place<'g>(
        &self,
        device: &Device,
        input: TensorMut<'_>,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let grads = ElementwiseGradOut::default();
        let grad_output = grad_output.into();
        self.call(device, Input::Consumed(input), target, grad_output, (Some(loss), grads))
    }

    /// Every form of the call comes here.
    fn call(
        &self,
        device: &Device,
        input: Input<'_>,
        target: TensorRef<'_>,
        grad_output: GradOutput<'_>,
        out: (Option<TensorMut<'_>>, ElementwiseGradOut<'_>),
    ) -> Result<()> {
        let (loss, ElementwiseGradOut { grad_input, grad_target, grad_variance }) = out;
        let grad_third = grad_variance;
        let call = Call { input, target, grad_output, loss, grad_input, grad_target, grad_third };
        let checked = self.check(&call.input.view(), &target)?;
        checked.check_call(&call)?;
        let places = checked.places(&call);
        device.backend("input", &places)?.elementwise(&checked, call)
    }
}

fn variance<'a>(checked: &Checked<'a>) -> Option<TensorRef<'a>> {
    match checked.third {
        Some(Third::Variance(variance)) => Some(variance),
        Some(Third::PosWeight(_)) | None => None,
    }
}

fn zeros(
    device: &Device,
    input: &TensorRef<'_>,
    (target, variance): (&TensorRef<'_>, Option<TensorRef<'_>>),
    wrt: Wrt,
) -> Result<ElementwiseGrad> {
    let zeros = |argument, like: &TensorRef<'_>, wanted: bool| {
        let make = || device.zeros(argument, input.dtype(), like.shape(), input);
        wanted.then(make).transpose()
    };
    Ok(ElementwiseGrad {
        grad_input: zeros("grad_input", input, wrt != Wrt::Target)?,
        grad_target: zeros("grad_target", target, wrt != Wrt::Input)?,
        grad_variance: match variance {
            Some(variance) => zeros("grad_variance", &variance, wrt == Wrt::All)?,
            None => None,
        },
    })
}
