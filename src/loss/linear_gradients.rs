//! Gradients of hidden states, classifier and bias that a call allocates.

use crate::base::error::Result;
use crate::base::tensor::{Tensor, TensorRef};
use crate::device::Device;
use crate::spec::linear_cross_entropy::{LinearGradOut, LinearInput};

/// One of each that there is.
pub(super) struct LinearGradients {
    pub(super) input: Tensor,
    pub(super) linear_weight: Tensor,
    pub(super) linear_bias: Option<Tensor>,
}

impl LinearGradients {
    pub(super) fn new(
        device: &Device,
        [input, linear_weight]: [&TensorRef<'_>; 2],
        linear_bias: &Option<TensorRef<'_>>,
    ) -> Result<LinearGradients> {
        let zeros = |name, of: &TensorRef<'_>| device.zeros(name, of.dtype(), of.shape(), of);
        let bias = linear_bias.as_ref();
        Ok(LinearGradients {
            input: zeros("grad_input", input)?,
            linear_weight: zeros("grad_linear_weight", linear_weight)?,
            linear_bias: bias.map(|bias| zeros("grad_linear_bias", bias)).transpose()?,
        })
    }

    /// Of what a linear loss reads.
    pub(super) fn of(device: &Device, input: &LinearInput<'_>) -> Result<LinearGradients> {
        LinearGradients::new(device, [&input.input, &input.linear_weight], &input.linear_bias)
    }

    pub(super) fn out(&mut self) -> LinearGradOut<'_> {
        LinearGradOut {
            input: Some(self.input.view_mut()),
            linear_weight: Some(self.linear_weight.view_mut()),
            linear_bias: self.linear_bias.as_mut().map(Tensor::view_mut),
            ..LinearGradOut::default()
        }
    }
}
