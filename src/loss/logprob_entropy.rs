//! The public calls of this loss; what it computes: `spec/logprob_entropy.rs`.

use crate::base::error::Result;
use crate::base::host::Element as _;
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::base::validate;
use crate::device::Device;
use crate::spec::logprob_entropy::{
    Call, LogprobEntropy, LogprobEntropyGrad, LogprobEntropyOut, LogprobEntropyOutput,
    LogprobEntropyUpstream,
};
use crate::spec::ranks::Ranks;

impl LogprobEntropy {
    /// Log-probability, entropy and log-sum-exp of every row.
    ///
    /// # Errors
    /// A shape, dtype, stride, option or target that breaks the rules above; out of memory.
    pub fn forward(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
    ) -> Result<LogprobEntropyOutput> {
        self.rows.check_classes(&logits, &target)?;
        let mut output = LogprobEntropyOutput::new(device, &logits, &target)?;
        self.forward_into(device, logits, target, output.out())?;
        Ok(output)
    }

    /// As [`LogprobEntropy::forward`], with argmax and rank from the same read.
    ///
    /// # Errors
    /// As `forward`.
    pub fn forward_with_ranks(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
    ) -> Result<(LogprobEntropyOutput, Ranks)> {
        self.rows.check_classes(&logits, &target)?;
        let mut output = LogprobEntropyOutput::new(device, &logits, &target)?;
        let mut ranks = Ranks::new(device, target.shape(), &logits)?;
        let out = LogprobEntropyOut {
            argmax: Some(ranks.argmax.view_mut()),
            rank: Some(ranks.rank.view_mut()),
            ..output.out()
        };
        self.forward_into(device, logits, target, out)?;
        Ok((output, ranks))
    }

    /// As [`LogprobEntropy::forward`], into the caller's buffers; allocates nothing.
    ///
    /// # Errors
    /// As `forward`; nothing is written then.
    pub fn forward_into(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
        out: LogprobEntropyOut<'_>,
    ) -> Result<()> {
        let checked = self.rows.check_classes(&logits, &target)?;
        out.check(&checked)?;
        device
            .backend("logits", &[logits.place(), out.logprob.place()])?
            .logprob_entropy(&checked, Call::Forward { logits, out })
    }

    /// Gradient with respect to the logits from the `lse` that a forward pass returned.
    ///
    /// A row whose entropy has a gradient is summed again before it is written: lse and entropy in
    /// f32 are too coarse to make `z − lse + H` of. Rows without are read once.
    ///
    /// # Errors
    /// As [`LogprobEntropy::forward`], and shapes of `lse` and of the upstream gradients.
    pub fn backward(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
        lse: TensorRef<'_>,
        upstream: LogprobEntropyUpstream<'_>,
    ) -> Result<Tensor> {
        let mut grad = device.zeros("grad_logits", logits.dtype(), logits.shape(), &logits)?;
        self.backward_into(device, logits, (target, lse), upstream, grad.view_mut())?;
        Ok(grad)
    }

    /// As [`LogprobEntropy::backward`], into `grad_logits` (the logits' shape and dtype, its own
    /// row stride); allocates nothing. `saved` is the forward pass's target and `lse`.
    ///
    /// # Errors
    /// As `backward`; nothing is written then.
    pub fn backward_into(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        saved: (TensorRef<'_>, TensorRef<'_>),
        upstream: LogprobEntropyUpstream<'_>,
        grad_logits: TensorMut<'_>,
    ) -> Result<()> {
        let (target, lse) = saved;
        let checked = self.check_backward(&logits, &target, &lse, &upstream)?;
        let grad = grad_logits.as_ref();
        validate::like("grad_logits", &grad, &logits, "the logits'")?;
        let [a, b] = upstream.places();
        device
            .backend("logits", &[logits.place(), grad.place(), lse.place(), a, b])?
            .logprob_entropy(&checked, Call::Backward { logits, lse, upstream, grad_logits })
    }

    /// As [`LogprobEntropy::backward_into`], **overwriting the logits** with their gradient.
    ///
    /// # Errors
    /// As `backward`; nothing is written then.
    pub fn backward_in_place(
        &self,
        device: &Device,
        logits: TensorMut<'_>,
        target: TensorRef<'_>,
        lse: TensorRef<'_>,
        upstream: LogprobEntropyUpstream<'_>,
    ) -> Result<()> {
        let checked = self.check_backward(&logits.as_ref(), &target, &lse, &upstream)?;
        let [a, b] = upstream.places();
        device
            .backend("logits", &[logits.place(), lse.place(), a, b])?
            .logprob_entropy(&checked, Call::BackwardInPlace { logits, lse, upstream })
    }

    /// Both results and the gradient in one pass, **overwriting the logits** with their gradient.
    ///
    /// # Errors
    /// As [`LogprobEntropy::forward`]; nothing is written then, the logits are as they were.
    pub fn forward_backward_in_place(
        &self,
        device: &Device,
        logits: TensorMut<'_>,
        target: TensorRef<'_>,
        upstream: LogprobEntropyUpstream<'_>,
        out: LogprobEntropyOut<'_>,
    ) -> Result<()> {
        let checked = self.rows.check_classes(&logits.as_ref(), &target)?;
        out.check(&checked)?;
        upstream.check(&checked)?;
        let [a, b] = upstream.places();
        device
            .backend("logits", &[logits.place(), out.logprob.place(), a, b])?
            .logprob_entropy(&checked, Call::ForwardBackward { logits, upstream, out })
    }

    /// As [`LogprobEntropy::forward_backward_in_place`], **consuming the logits**: the tensor
    /// comes back as the gradient.
    ///
    /// # Errors
    /// As `forward`.
    pub fn forward_backward(
        &self,
        device: &Device,
        mut logits: Tensor,
        target: TensorRef<'_>,
        upstream: LogprobEntropyUpstream<'_>,
    ) -> Result<LogprobEntropyGrad> {
        self.rows.check_classes(&logits.view(), &target)?;
        let mut output = LogprobEntropyOutput::new(device, &logits.view(), &target)?;
        let view = logits.view_mut();
        self.forward_backward_in_place(device, view, target, upstream, output.out())?;
        Ok(LogprobEntropyGrad { output, grad_logits: logits })
    }
}

impl LogprobEntropyOutput {
    fn new(device: &Device, logits: &TensorRef<'_>, target: &TensorRef<'_>) -> Result<Self> {
        LogprobEntropyOutput::of_rows(device, target.shape(), logits)
    }

    /// For rows of this shape, where `beside` lies.
    pub(super) fn of_rows(device: &Device, rows: Shape, beside: &TensorRef<'_>) -> Result<Self> {
        let zeros = |name| device.zeros(name, f32::DTYPE, rows, beside);
        Ok(LogprobEntropyOutput {
            logprob: zeros("logprob")?,
            entropy: zeros("entropy")?,
            lse: zeros("lse")?,
        })
    }
}
