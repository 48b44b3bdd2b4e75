//! The public calls of this loss; what it computes: `spec/linear_cross_entropy.rs`.

use crate::base::error::Result;
use crate::base::host::Element as _;
use crate::device::Device;
use crate::loss::linear_gradients::LinearGradients;
use crate::spec::cross_entropy::{CrossEntropyOut, CrossEntropyOutput, CrossEntropyUpstream};
use crate::spec::linear_cross_entropy::{
    Call, CheckedLinear, LinearCrossEntropy, LinearGrad, LinearGradOut, LinearInput, LinearOutputs,
    LinearPlan,
};

impl LinearCrossEntropy<'_> {
    /// Loss and log-sum-exp of every row.
    ///
    /// # Errors
    /// A shape, dtype, stride, option, target, temperature or weight that breaks the rules above; a budget that
    /// is too small for the shapes; out of memory.
    pub fn forward(&self, device: &Device, input: &LinearInput<'_>) -> Result<CrossEntropyOutput> {
        let mut output = self.check(input)?.allocate(device)?;
        self.forward_into(device, input, output.out())?;
        Ok(output)
    }

    /// As [`LinearCrossEntropy::forward`], into the caller's buffers, with all that those ask for: ranks,
    /// log-probabilities, entropies and the likeliest classes come of the same pass.
    ///
    /// # Errors
    /// As `forward`; nothing is written then.
    pub fn forward_into(
        &self,
        device: &Device,
        input: &LinearInput<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let checked = self.check(input)?;
        checked.of_logits.check_out(&out)?;
        device
            .backend("input", &checked.places())?
            .linear_cross_entropy(&checked, Call::Forward { out })
    }

    /// Loss and all gradients, of logits that are made once.
    ///
    /// # Errors
    /// As [`LinearCrossEntropy::forward`], and the shape of the upstream gradients.
    pub fn forward_backward<'g>(
        &self,
        device: &Device,
        input: &LinearInput<'_>,
        upstream: impl Into<CrossEntropyUpstream<'g>>,
    ) -> Result<LinearGrad> {
        let checked = self.check(input)?;
        let mut output = checked.allocate(device)?;
        let mut gradients = LinearGradients::of(device, input)?;
        self.forward_backward_into(device, input, upstream, gradients.out(), output.out())?;
        let LinearGradients { input, linear_weight, linear_bias } = gradients;
        Ok(LinearGrad { output, input, linear_weight, linear_bias })
    }

    /// As [`LinearCrossEntropy::forward_backward`], into the caller's buffers, added to what is there if
    /// `gradients` says so.
    ///
    /// # Errors
    /// As `forward_backward`; nothing is written then.
    pub fn forward_backward_into<'g>(
        &self,
        device: &Device,
        input: &LinearInput<'_>,
        upstream: impl Into<CrossEntropyUpstream<'g>>,
        gradients: LinearGradOut<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let checked = self.check(input)?;
        checked.of_logits.check_out(&out)?;
        let upstream = upstream.into();
        let gradients = checked.flat_gradients(gradients)?;
        checked.check_gradients(&upstream, &gradients)?;
        let [input, other] = checked.places();
        let [_, grad] = checked.gradient_places(&gradients);
        device
            .backend("input", &[input, other, grad])?
            .linear_cross_entropy(&checked, Call::Backward { upstream, gradients, out: Some(out) })
    }

    /// The gradients alone, for upstream gradients that were not known in the forward pass: the logits are made
    /// again.
    ///
    /// # Errors
    /// As [`LinearCrossEntropy::forward_backward`]; nothing is written then.
    pub fn backward_into<'g>(
        &self,
        device: &Device,
        input: &LinearInput<'_>,
        upstream: impl Into<CrossEntropyUpstream<'g>>,
        gradients: LinearGradOut<'_>,
    ) -> Result<()> {
        let checked = self.check(input)?;
        let upstream = upstream.into();
        let gradients = checked.flat_gradients(gradients)?;
        checked.check_gradients(&upstream, &gradients)?;
        let [input, other] = checked.places();
        let [_, grad] = checked.gradient_places(&gradients);
        device
            .backend("input", &[input, other, grad])?
            .linear_cross_entropy(&checked, Call::Backward { upstream, gradients, out: None })
    }

    /// What a call will do that gives these results (`true`: gradients, `false`: losses alone): the path, the rows of
    /// a chunk, and the memory that it takes.
    ///
    /// # Errors
    /// As [`LinearCrossEntropy::forward`], but for what is found in the values of tensors; likeliest classes that are
    /// more than there are, or than 128.
    pub fn plan(
        &self,
        device: &Device,
        input: &LinearInput<'_>,
        outputs: impl Into<LinearOutputs>,
    ) -> Result<LinearPlan> {
        let (checked, outputs) = (self.check(input)?, outputs.into());
        checked.check_outputs(outputs)?;
        device.backend("input", &checked.places())?.linear_plan(&checked, outputs)
    }
}

impl CheckedLinear<'_> {
    pub(super) fn allocate(&self, device: &Device) -> Result<CrossEntropyOutput> {
        let (loss, rows) = (self.of_logits.loss_shape(), self.of_logits.rows);
        let zeros = |name, shape| device.zeros(name, f32::DTYPE, shape, &self.input.input);
        Ok(CrossEntropyOutput {
            loss: zeros("loss", loss)?,
            lse: zeros("lse", rows)?,
            z_loss: zeros("z_loss", loss)?,
        })
    }
}
