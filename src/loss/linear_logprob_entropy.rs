//! The public calls of this loss; what it computes: `spec/linear_logprob_entropy.rs`.

use crate::base::error::Result;
use crate::base::host::Element as _;
use crate::base::shape::Shape;
use crate::base::tensor::Tensor;
use crate::device::Device;
use crate::loss::linear_gradients::LinearGradients;
use crate::spec::linear_cross_entropy::{LinearGradOut, LinearInput, LinearOutputs, LinearPlan};
use crate::spec::linear_logprob_entropy::{LinearLogprobEntropy, LinearLogprobEntropyGrad};
use crate::spec::logprob_entropy::{
    LogprobEntropyOut, LogprobEntropyOutput, LogprobEntropyUpstream,
};
use crate::spec::ranks::Ranks;

impl LinearLogprobEntropy {
    /// Log-probability, entropy and log-sum-exp of every row.
    ///
    /// # Errors
    /// A shape, dtype, stride, option, target or temperature that breaks the rules above; a budget that is too
    /// small for the shapes; out of memory.
    pub fn forward(
        &self,
        device: &Device,
        input: &LinearInput<'_>,
    ) -> Result<LogprobEntropyOutput> {
        let mut output = self.output(device, input)?;
        self.forward_into(device, input, output.out())?;
        Ok(output)
    }

    /// As [`LinearLogprobEntropy::forward`], with argmax and rank from the same logits.
    ///
    /// # Errors
    /// As `forward`.
    pub fn forward_with_ranks(
        &self,
        device: &Device,
        input: &LinearInput<'_>,
    ) -> Result<(LogprobEntropyOutput, Ranks)> {
        let mut output = self.output(device, input)?;
        let mut ranks = Ranks::new(device, self.check(input)?.1.rows, &input.input)?;
        let out = LogprobEntropyOut {
            argmax: Some(ranks.argmax.view_mut()),
            rank: Some(ranks.rank.view_mut()),
            ..output.out()
        };
        self.forward_into(device, input, out)?;
        Ok((output, ranks))
    }

    /// As [`LinearLogprobEntropy::forward`], into the caller's buffers.
    ///
    /// # Errors
    /// As `forward`; nothing is written then.
    pub fn forward_into(
        &self,
        device: &Device,
        input: &LinearInput<'_>,
        out: LogprobEntropyOut<'_>,
    ) -> Result<()> {
        out.check(&self.check(input)?.1)?;
        let mut loss = loss(device, input)?;
        self.linear.forward_into(device, input, out.beside(loss.view_mut()))
    }

    /// Both results and all gradients, of logits that are made once.
    ///
    /// # Errors
    /// As [`LinearLogprobEntropy::forward`], and the shapes of the upstream gradients.
    pub fn forward_backward(
        &self,
        device: &Device,
        input: &LinearInput<'_>,
        upstream: LogprobEntropyUpstream<'_>,
    ) -> Result<LinearLogprobEntropyGrad> {
        let mut output = self.output(device, input)?;
        let mut gradients = LinearGradients::of(device, input)?;
        self.forward_backward_into(device, input, upstream, gradients.out(), output.out())?;
        let LinearGradients { input, linear_weight, linear_bias } = gradients;
        Ok(LinearLogprobEntropyGrad { output, input, linear_weight, linear_bias })
    }

    /// As [`LinearLogprobEntropy::forward_backward`], into the caller's buffers, added to what is there if
    /// `gradients` says so.
    ///
    /// # Errors
    /// As `forward_backward`; nothing is written then.
    pub fn forward_backward_into(
        &self,
        device: &Device,
        input: &LinearInput<'_>,
        upstream: LogprobEntropyUpstream<'_>,
        gradients: LinearGradOut<'_>,
        out: LogprobEntropyOut<'_>,
    ) -> Result<()> {
        out.check(&self.check(input)?.1)?;
        let mut loss = loss(device, input)?;
        let out = out.beside(loss.view_mut());
        self.linear.forward_backward_into(device, input, upstream.alone(), gradients, out)
    }

    /// The gradients alone, for upstream gradients that were not known in the forward pass, as those of a
    /// policy's ratio are not: the logits are made again.
    ///
    /// # Errors
    /// As [`LinearLogprobEntropy::forward_backward`]; nothing is written then.
    pub fn backward_into(
        &self,
        device: &Device,
        input: &LinearInput<'_>,
        upstream: LogprobEntropyUpstream<'_>,
        gradients: LinearGradOut<'_>,
    ) -> Result<()> {
        self.check(input)?;
        self.linear.backward_into(device, input, upstream.alone(), gradients)
    }

    /// As [`LinearCrossEntropy::plan`](crate::LinearCrossEntropy::plan).
    ///
    /// # Errors
    /// As [`LinearLogprobEntropy::forward`], but for what is found in the values of tensors.
    pub fn plan(
        &self,
        device: &Device,
        input: &LinearInput<'_>,
        outputs: impl Into<LinearOutputs>,
    ) -> Result<LinearPlan> {
        self.check(input)?;
        self.linear.plan(device, input, outputs)
    }

    fn output(&self, device: &Device, input: &LinearInput<'_>) -> Result<LogprobEntropyOutput> {
        let rows = self.check(input)?.1.rows;
        LogprobEntropyOutput::of_rows(device, rows, &input.input)
    }
}

/// The sum of losses that the rows' log-probabilities come with, for nobody to read.
fn loss(device: &Device, input: &LinearInput<'_>) -> Result<Tensor> {
    device.zeros("loss", f32::DTYPE, Shape::SCALAR, &input.input)
}
