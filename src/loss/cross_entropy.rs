//! The public calls of this loss; what it computes: `spec/cross_entropy.rs`.

use crate::base::error::Result;
use crate::base::host::Element as _;
use crate::base::tensor::{Tensor, TensorRef};
use crate::base::validate;
use crate::device::Device;
use crate::spec::cross_entropy::checked::Target;
use crate::spec::cross_entropy::{
    Call, Checked, CrossEntropy, CrossEntropyGrad, CrossEntropyGradients, CrossEntropyOut,
    CrossEntropyOutput, CrossEntropyUpstream, SoftCall,
};
use crate::spec::grad_output::GradOutput;
use crate::spec::ranks::Ranks;

impl<'w> CrossEntropy<'w> {
    /// Loss and log-sum-exp of every row.
    ///
    /// # Errors
    /// A shape, dtype, stride, option or target that breaks the rules above; out of memory.
    pub fn forward(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
    ) -> Result<CrossEntropyOutput> {
        let checked = self.check(&logits, &target)?;
        let mut output = checked.allocate(device, &logits)?;
        self.forward_into(device, logits, target, output.out())?;
        Ok(output)
    }

    /// As [`CrossEntropy::forward`], with what each row's logits say of the target beside the
    /// other classes, from the same read.
    ///
    /// # Errors
    /// As `forward`.
    pub fn forward_with_ranks(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
    ) -> Result<(CrossEntropyOutput, Ranks)> {
        let checked = self.check(&logits, &target)?;
        checked.has_classes("rank")?;
        let mut output = checked.allocate(device, &logits)?;
        let mut ranks = Ranks::new(device, checked.rows, &logits)?;
        let out = CrossEntropyOut {
            argmax: Some(ranks.argmax.view_mut()),
            rank: Some(ranks.rank.view_mut()),
            ..output.out()
        };
        self.forward_into(device, logits, target, out)?;
        Ok((output, ranks))
    }

    /// As [`CrossEntropy::forward`], into the caller's buffers; allocates nothing.
    ///
    /// # Errors
    /// As `forward`; nothing is written then.
    pub fn forward_into(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let checked = self.check(&logits, &target)?;
        checked.check_out(&out)?;
        let backend = device.backend("logits", &[logits.place()])?;
        match checked.target {
            Target::Classes(t) => {
                backend.cross_entropy(&checked.with(t), Call::Forward { logits, out })
            }
            Target::Soft(t) => {
                backend.soft_cross_entropy(&checked.with(t), SoftCall::Forward { logits, out })
            }
        }
    }

    /// Gradient with respect to the logits from the `lse` that a forward pass returned. (Against
    /// probabilities the sum over each row is made anew, since M is needed anyway.)
    ///
    /// # Errors
    /// As [`CrossEntropy::forward`], and shapes of `lse` and `grad_output`.
    pub fn backward<'g>(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
        lse: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
    ) -> Result<Tensor> {
        let mut grad = device.zeros("grad_logits", logits.dtype(), logits.shape(), &logits)?;
        let saved = (target, lse);
        self.backward_into(device, logits, saved, grad_output, grad.view_mut())?;
        Ok(grad)
    }

    /// As [`CrossEntropy::backward`], into `gradients`: that of the logits (their shape and dtype,
    /// its own row stride) and, where there is memory for it, that of probabilities. Allocates
    /// nothing. `saved` is the forward pass's target and `lse`.
    ///
    /// # Errors
    /// As `backward`; nothing is written then.
    pub fn backward_into<'g, 'o>(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        saved: (TensorRef<'_>, TensorRef<'_>),
        grad_output: impl Into<GradOutput<'g>>,
        gradients: impl Into<CrossEntropyGradients<'o>>,
    ) -> Result<()> {
        let (target, lse) = saved;
        let checked = self.check(&logits, &target)?;
        let (grad_output, gradients) = (grad_output.into(), gradients.into());
        checked.check_backward(&lse, &grad_output)?;
        let grad = gradients.logits.as_ref();
        validate::like("grad_logits", &grad, &logits, "the logits'")?;
        checked.check_grad_target(&gradients)?;
        let places = [logits.place(), grad.place(), lse.place()];
        let backend = device.backend("logits", &places)?;
        match checked.target {
            Target::Classes(t) => {
                let grad_logits = gradients.logits;
                let call = Call::Backward { logits, lse, grad_output, grad_logits };
                backend.cross_entropy(&checked.with(t), call)
            }
            Target::Soft(t) => {
                let from = Some(logits);
                let call = SoftCall::Backward { from, gradients, grad_output, out: None };
                backend.soft_cross_entropy(&checked.with(t), call)
            }
        }
    }

    /// As [`CrossEntropy::backward_into`], **overwriting the logits** with their gradient.
    ///
    /// # Errors
    /// As `backward`; nothing is written then.
    pub fn backward_in_place<'g, 'o>(
        &self,
        device: &Device,
        logits: impl Into<CrossEntropyGradients<'o>>,
        target: TensorRef<'_>,
        lse: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
    ) -> Result<()> {
        let (gradients, grad_output) = (logits.into(), grad_output.into());
        let logits = gradients.logits.as_ref();
        let checked = self.check(&logits, &target)?;
        checked.check_backward(&lse, &grad_output)?;
        checked.check_grad_target(&gradients)?;
        let backend = device.backend("logits", &[logits.place(), lse.place()])?;
        match checked.target {
            Target::Classes(t) => {
                let call = Call::BackwardInPlace { logits: gradients.logits, lse, grad_output };
                backend.cross_entropy(&checked.with(t), call)
            }
            Target::Soft(t) => {
                let call = SoftCall::Backward { from: None, gradients, grad_output, out: None };
                backend.soft_cross_entropy(&checked.with(t), call)
            }
        }
    }

    /// Loss and gradient in one pass, **overwriting the logits** with their gradient: memory is
    /// read once and written once, and nothing is allocated.
    ///
    /// # Errors
    /// As [`CrossEntropy::forward`]; nothing is written then, the logits are as they were.
    pub fn forward_backward_in_place<'g, 'o>(
        &self,
        device: &Device,
        logits: impl Into<CrossEntropyGradients<'o>>,
        target: TensorRef<'_>,
        upstream: impl Into<CrossEntropyUpstream<'g>>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        self.fused(device, (None, logits.into()), target, (upstream.into(), out))
    }

    /// As [`CrossEntropy::forward_backward_in_place`], **keeping the logits**: they are read once, and their gradient
    /// is written once to `gradients` (the logits' shape and dtype, its own row stride), with the same bits.
    ///
    /// ```
    /// use warploss::{CrossEntropy, CrossEntropyOut, Device, Tensor, TensorRef};
    /// let logits = TensorRef::new(&[2.0f32, 1.0, 0.1, 0.5, 2.5, 0.0], &[2, 3])?;
    /// let target = TensorRef::new(&[0i64, 1], &[2])?;
    /// let mut loss = Tensor::from_vec(vec![0.0f32], &[])?;
    /// let mut grad = Tensor::from_vec(vec![0.0f32; 6], &[2, 3])?;
    /// let out = CrossEntropyOut::loss(loss.view_mut());
    /// let call = CrossEntropy::default();
    /// call.forward_backward_into(&Device::cpu(), logits, target, 1.0, grad.view_mut(), out)?;
    /// assert!((loss.item()? - 0.3069).abs() < 1e-4);
    /// assert!(grad.as_slice::<f32>().unwrap()[0] < 0.0);
    /// # Ok::<(), warploss::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`CrossEntropy::forward`]; nothing is written then.
    pub fn forward_backward_into<'g, 'o>(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
        upstream: impl Into<CrossEntropyUpstream<'g>>,
        gradients: impl Into<CrossEntropyGradients<'o>>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        self.fused(device, (Some(logits), gradients.into()), target, (upstream.into(), out))
    }

    /// Loss and gradient in one pass, from logits that are kept or over them.
    fn fused(
        &self,
        device: &Device,
        (from, gradients): (Option<TensorRef<'_>>, CrossEntropyGradients<'_>),
        target: TensorRef<'_>,
        (upstream, out): (CrossEntropyUpstream<'_>, CrossEntropyOut<'_>),
    ) -> Result<()> {
        let grad = gradients.logits.as_ref();
        let logits = from.unwrap_or(grad);
        let checked = self.check(&logits, &target)?;
        checked.check_out(&out)?;
        checked.check_upstream(&upstream)?;
        validate::like("grad_logits", &grad, &logits, "the logits'")?;
        checked.check_grad_target(&gradients)?;
        let backend = device.backend("logits", &[logits.place(), grad.place()])?;
        match checked.target {
            Target::Classes(t) => {
                let grad_logits = gradients.logits;
                let call = Call::ForwardBackward { from, grad_logits, upstream, out };
                backend.cross_entropy(&checked.with(t), call)
            }
            Target::Soft(t) => {
                let grad_output = upstream.grad_output;
                let call = SoftCall::Backward { from, gradients, grad_output, out: Some(out) };
                backend.soft_cross_entropy(&checked.with(t), call)
            }
        }
    }

    /// As [`CrossEntropy::forward_backward_in_place`], **consuming the logits**: the tensor comes
    /// back as the gradient.
    ///
    /// # Errors
    /// As `forward`.
    pub fn forward_backward<'g>(
        &self,
        device: &Device,
        mut logits: Tensor,
        target: TensorRef<'_>,
        upstream: impl Into<CrossEntropyUpstream<'g>>,
    ) -> Result<CrossEntropyGrad> {
        let mut output = self.check(&logits.view(), &target)?.allocate(device, &logits.view())?;
        let view = logits.view_mut();
        self.forward_backward_in_place(device, view, target, upstream, output.out())?;
        Ok(CrossEntropyGrad { output, grad_logits: logits })
    }
}

impl Checked<'_, Target<'_>> {
    pub(crate) fn allocate(
        &self,
        device: &Device,
        logits: &TensorRef<'_>,
    ) -> Result<CrossEntropyOutput> {
        let f32_zeros = |name, shape| device.zeros(name, f32::DTYPE, shape, logits);
        Ok(CrossEntropyOutput {
            loss: f32_zeros("loss", self.loss_shape())?,
            lse: f32_zeros("lse", self.rows)?,
            z_loss: f32_zeros("z_loss", self.loss_shape())?,
        })
    }
}
