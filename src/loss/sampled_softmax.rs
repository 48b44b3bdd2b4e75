//! The public calls of this loss; what it computes: `spec/sampled_softmax.rs`.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::device::Device;
use crate::loss::output_layer::OutputLayer;
use crate::spec::grad_output::GradOutput;
use crate::spec::output_layer::{LayerGrad, LayerGradOut, LayerOut, LayerOutput};
use crate::spec::sampled_softmax::{Call, SampledParameters, SampledSoftmax};

impl SampledSoftmax {
    /// Log-probability of each row's target, and the loss.
    ///
    /// # Errors
    /// A shape, dtype, stride, option or target that breaks the rules above; a target that the
    /// sampler never draws; memory that the device cannot reach; out of memory.
    pub fn forward(
        &self,
        device: &Device,
        parameters: &SampledParameters<TensorRef<'_>>,
        input: TensorRef<'_>,
        target: TensorRef<'_>,
    ) -> Result<LayerOutput> {
        let checked = self.check(parameters, &input, &target)?;
        let mut output = checked.rows.allocate(device, self.reduction, &input)?;
        self.forward_into(device, parameters, (input, target), output.out())?;
        Ok(output)
    }

    /// As [`SampledSoftmax::forward`], of `(input, target)`, into the caller's buffers.
    ///
    /// # Errors
    /// As `forward`; nothing is written then.
    pub fn forward_into(
        &self,
        device: &Device,
        parameters: &SampledParameters<TensorRef<'_>>,
        (input, target): (TensorRef<'_>, TensorRef<'_>),
        out: LayerOut<'_>,
    ) -> Result<()> {
        let checked = self.check(parameters, &input, &target)?;
        checked.rows.check_out(self.reduction, &out)?;
        device.backend("input", &checked.places())?.sampled_softmax(&checked, Call::Forward { out })
    }

    /// Log-probabilities, loss, and the gradients of the input and of the parameters: 0 for classes
    /// that are neither drawn nor a target. `grad_output` is the upstream gradient of the loss.
    ///
    /// # Errors
    /// As [`SampledSoftmax::forward`], and the shape of `grad_output`.
    pub fn forward_backward<'g>(
        &self,
        device: &Device,
        parameters: &SampledParameters<TensorRef<'_>>,
        input: TensorRef<'_>,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
    ) -> Result<LayerGrad<SampledParameters<Tensor>>> {
        let checked = self.check(parameters, &input, &target)?;
        let mut output = checked.rows.allocate(device, self.reduction, &input)?;
        let zeros =
            |name, like: &TensorRef<'_>| device.zeros(name, like.dtype(), like.shape(), like);
        let mut grad_input = zeros("grad_input", &input)?;
        let mut grads = parameters.try_map(|_, p| zeros("grad_parameters", p))?;
        let gradients = LayerGradOut {
            input: Some(grad_input.view_mut()),
            parameters: Some(grads.view_mut()),
            accumulate: false,
        };
        let (data, written) = ((input, target), (output.out(), gradients));
        self.forward_backward_into(device, parameters, data, grad_output, written)?;
        Ok(LayerGrad { output, input: grad_input, parameters: grads })
    }

    /// As [`SampledSoftmax::forward_backward`], of `(input, target)`, into the caller's buffers:
    /// those gradients for which there is memory. With `accumulate` only the rows of classes that
    /// are drawn, or a target, are touched.
    ///
    /// # Errors
    /// As `forward_backward`; nothing is written then.
    pub fn forward_backward_into<'g>(
        &self,
        device: &Device,
        parameters: &SampledParameters<TensorRef<'_>>,
        (input, target): (TensorRef<'_>, TensorRef<'_>),
        grad_output: impl Into<GradOutput<'g>>,
        (out, gradients): (LayerOut<'_>, LayerGradOut<'_, SampledParameters<TensorMut<'_>>>),
    ) -> Result<()> {
        let checked = self.check(parameters, &input, &target)?;
        let grad_output = grad_output.into();
        checked.rows.check_out(self.reduction, &out)?;
        checked.check_gradients(&grad_output, &gradients)?;
        device
            .backend("input", &checked.places())?
            .sampled_softmax(&checked, Call::ForwardBackward { grad_output, out, gradients })
    }
}

impl OutputLayer for SampledSoftmax {
    type Parameters<T> = SampledParameters<T>;

    fn init(&self, dtype: DType, seed: u64) -> Result<SampledParameters<Tensor>> {
        SampledSoftmax::init(self, dtype, seed)
    }

    fn set_step(&mut self, step: u64) {
        self.step = step;
    }

    fn views(parameters: &SampledParameters<Tensor>) -> SampledParameters<TensorRef<'_>> {
        parameters.view()
    }

    fn views_mut(parameters: &mut SampledParameters<Tensor>) -> SampledParameters<TensorMut<'_>> {
        parameters.view_mut()
    }

    fn forward_into(
        &self,
        device: &Device,
        parameters: &SampledParameters<TensorRef<'_>>,
        data: (TensorRef<'_>, TensorRef<'_>),
        out: LayerOut<'_>,
    ) -> Result<()> {
        SampledSoftmax::forward_into(self, device, parameters, data, out)
    }

    fn forward_backward_into(
        &self,
        device: &Device,
        parameters: &SampledParameters<TensorRef<'_>>,
        data: (TensorRef<'_>, TensorRef<'_>),
        grad_output: GradOutput<'_>,
        written: (LayerOut<'_>, LayerGradOut<'_, SampledParameters<TensorMut<'_>>>),
    ) -> Result<()> {
        let call = SampledSoftmax::forward_backward_into;
        call(self, device, parameters, data, grad_output, written)
    }
}
