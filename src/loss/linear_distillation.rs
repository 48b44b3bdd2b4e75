//! The public calls of this loss; what it computes: `spec/linear_distillation.rs`.

use crate::base::error::Result;
use crate::base::host::Element as _;
use crate::base::tensor::{Tensor, TensorMut};
use crate::base::validate;
use crate::device::Device;
use crate::loss::linear_gradients::LinearGradients;
use crate::spec::grad_output::GradOutput;
use crate::spec::linear_cross_entropy::LinearPlan;
use crate::spec::linear_distillation::{
    Call, CheckedDistillation, DistillationGrad, DistillationGradOut, DistillationInput,
    LinearDistillation,
};

impl LinearDistillation<'_> {
    /// The divergence.
    ///
    /// # Errors
    /// A shape, dtype, stride, option, label, temperature or weight that breaks the rules above; a budget that is
    /// too small for the shapes; out of memory.
    pub fn forward(&self, device: &Device, input: &DistillationInput<'_>) -> Result<Tensor> {
        let mut loss = self.loss(device, input)?;
        self.forward_into(device, input, loss.view_mut())?;
        Ok(loss)
    }

    /// As [`LinearDistillation::forward`], into the caller's buffer.
    ///
    /// # Errors
    /// As `forward`; nothing is written then.
    pub fn forward_into(
        &self,
        device: &Device,
        input: &DistillationInput<'_>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let checked = self.check(input)?;
        checked.check_loss(&loss)?;
        device
            .backend("input", &checked.places(None))?
            .linear_distillation(&checked, Call::Forward { loss })
    }

    /// The divergence and the gradients of the student's tensors, of logits that are made once.
    ///
    /// # Errors
    /// As [`LinearDistillation::forward`], and the shape of `grad_output`.
    pub fn forward_backward<'g>(
        &self,
        device: &Device,
        input: &DistillationInput<'_>,
        grad_output: impl Into<GradOutput<'g>>,
    ) -> Result<DistillationGrad> {
        let mut loss = self.loss(device, input)?;
        let student = &input.student;
        let mut gradients = LinearGradients::new(
            device,
            [&student.input, &student.linear_weight],
            &student.linear_bias,
        )?;
        let out = gradients.out();
        self.forward_backward_into(device, input, grad_output, out, loss.view_mut())?;
        let LinearGradients { input, linear_weight, linear_bias } = gradients;
        Ok(DistillationGrad { loss, input, linear_weight, linear_bias })
    }

    /// As [`LinearDistillation::forward_backward`], into the caller's buffers: gradients of the student's tensors
    /// (a [`LinearGradOut`](crate::LinearGradOut) stands for those) and, where there is memory for them, of the
    /// teacher's; added to what is there if they say so.
    ///
    /// # Errors
    /// As `forward_backward`; nothing is written then.
    pub fn forward_backward_into<'g, 'o>(
        &self,
        device: &Device,
        input: &DistillationInput<'_>,
        grad_output: impl Into<GradOutput<'g>>,
        gradients: impl Into<DistillationGradOut<'o>>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let checked = self.check(input)?;
        checked.check_loss(&loss)?;
        checked.backward(device, (grad_output.into(), gradients.into()), Some(loss))
    }

    /// The gradients alone, for an upstream gradient that was not known in the forward pass: the logits are made
    /// again.
    ///
    /// # Errors
    /// As [`LinearDistillation::forward_backward`]; nothing is written then.
    pub fn backward_into<'g, 'o>(
        &self,
        device: &Device,
        input: &DistillationInput<'_>,
        grad_output: impl Into<GradOutput<'g>>,
        gradients: impl Into<DistillationGradOut<'o>>,
    ) -> Result<()> {
        self.check(input)?.backward(device, (grad_output.into(), gradients.into()), None)
    }

    /// What a call will do, with gradients of the student's tensors and of the teacher's or without: the rows of a
    /// chunk, and the memory that it takes.
    ///
    /// # Errors
    /// As [`LinearDistillation::forward`], but for what is found in the values of tensors.
    pub fn plan(
        &self,
        device: &Device,
        input: &DistillationInput<'_>,
        [student, teacher]: [bool; 2],
    ) -> Result<LinearPlan> {
        let checked = self.check(input)?;
        let backend = device.backend("input", &checked.places(None))?;
        backend.distillation_plan(&checked, [student, teacher])
    }

    fn loss(&self, device: &Device, input: &DistillationInput<'_>) -> Result<Tensor> {
        let shape = self.check(input)?.of_rows.loss_shape();
        device.zeros("loss", f32::DTYPE, shape, &input.student.input)
    }
}

impl<'a> CheckedDistillation<'a> {
    fn check_loss(&self, loss: &TensorMut<'_>) -> Result<()> {
        let shape = self.of_rows.loss_shape();
        validate::f32_output("loss", &loss.as_ref(), shape, "reduction")
    }

    fn backward(
        &self,
        device: &Device,
        (grad_output, gradients): (GradOutput<'_>, DistillationGradOut<'_>),
        loss: Option<TensorMut<'_>>,
    ) -> Result<()> {
        self.check_gradients(&grad_output, &gradients)?;
        device
            .backend("input", &self.places(Some(&gradients)))?
            .linear_distillation(self, Call::Backward { grad_output, gradients, loss })
    }
}
