//! The public calls of cross entropy over lists of classes, of logits; what it computes: `spec/subset_cross_entropy.rs`.

use crate::base::error::Result;
use crate::device::Device;
use crate::spec::cross_entropy::{CrossEntropyOut, CrossEntropyOutput, CrossEntropyUpstream};
use crate::spec::linear_cross_entropy::{Call, CheckedLinear, LinearPlan};
use crate::spec::subset_cross_entropy::{
    SubsetCrossEntropy, SubsetGrad, SubsetGradOut, SubsetInput,
};

impl SubsetCrossEntropy<'_> {
    /// Loss and log-sum-exp of every row.
    ///
    /// # Errors
    /// A shape, dtype, stride, option, target, temperature, weight or list that breaks the rules above; a budget
    /// that is too small for the shapes; out of memory.
    pub fn forward(&self, device: &Device, input: &SubsetInput<'_>) -> Result<CrossEntropyOutput> {
        let mut output = self.check(input)?.allocate(device)?;
        self.forward_into(device, input, output.out())?;
        Ok(output)
    }

    /// As [`SubsetCrossEntropy::forward`], into the caller's buffers, with all that those ask for.
    ///
    /// # Errors
    /// As `forward`; nothing is written then.
    pub fn forward_into(
        &self,
        device: &Device,
        input: &SubsetInput<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        run(device, &self.check(input)?, Call::Forward { out })
    }

    /// Loss and the logits' gradient.
    ///
    /// # Errors
    /// As [`SubsetCrossEntropy::forward`], and the shape of the upstream gradients.
    pub fn forward_backward<'g>(
        &self,
        device: &Device,
        input: &SubsetInput<'_>,
        upstream: impl Into<CrossEntropyUpstream<'g>>,
    ) -> Result<SubsetGrad> {
        let output = self.check(input)?.allocate(device)?;
        let of = input.logits();
        let logits = device.zeros("grad_logits", of.dtype(), of.shape(), of)?;
        let mut result = SubsetGrad { output, logits };
        let gradients = result.logits.view_mut().into();
        self.forward_backward_into(device, input, upstream, gradients, result.output.out())?;
        Ok(result)
    }

    /// As [`SubsetCrossEntropy::forward_backward`], into the caller's buffers.
    ///
    /// # Errors
    /// As `forward_backward`; nothing is written then.
    pub fn forward_backward_into<'g>(
        &self,
        device: &Device,
        input: &SubsetInput<'_>,
        upstream: impl Into<CrossEntropyUpstream<'g>>,
        gradients: SubsetGradOut<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let (upstream, gradients) = (upstream.into(), gradients.of_input());
        run(device, &self.check(input)?, Call::Backward { upstream, gradients, out: Some(out) })
    }

    /// The gradient alone, for upstream gradients that were not known in the forward pass.
    ///
    /// # Errors
    /// As [`SubsetCrossEntropy::forward_backward`]; nothing is written then.
    pub fn backward_into<'g>(
        &self,
        device: &Device,
        input: &SubsetInput<'_>,
        upstream: impl Into<CrossEntropyUpstream<'g>>,
        gradients: SubsetGradOut<'_>,
    ) -> Result<()> {
        let (upstream, gradients) = (upstream.into(), gradients.of_input());
        run(device, &self.check(input)?, Call::Backward { upstream, gradients, out: None })
    }

    /// The memory that a call takes, with a gradient or without.
    ///
    /// # Errors
    /// As [`SubsetCrossEntropy::forward`], but for what is found in the values of tensors.
    pub fn plan(
        &self,
        device: &Device,
        input: &SubsetInput<'_>,
        backward: bool,
    ) -> Result<LinearPlan> {
        let checked = self.check(input)?;
        device.backend("logits", &checked.places())?.linear_plan(&checked, backward.into())
    }
}

/// Has the device do what passes the checks of outputs and upstream gradients.
fn run(device: &Device, checked: &CheckedLinear<'_>, call: Call<'_>) -> Result<()> {
    let [logits, other] = checked.places();
    let mut places = [logits, other, logits];
    match &call {
        Call::Forward { out } => checked.of_logits.check_out(out)?,
        Call::Backward { upstream, gradients, out } => {
            out.as_ref().map_or(Ok(()), |out| checked.of_logits.check_out(out))?;
            checked.check_gradients(upstream, gradients)?;
            let [_, grad] = checked.gradient_places(gradients);
            places[2] = grad;
        }
    }
    device.backend("logits", &places)?.linear_cross_entropy(checked, call)
}
