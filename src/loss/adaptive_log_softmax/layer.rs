//! An adaptive softmax in the place of any other output layer.

use super::{AdaptiveLogSoftmax, AdaptiveParameters, LayerGradOut, LayerOut};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::loss::{GradOutput, OutputLayer};
use crate::tensor::{Tensor, TensorMut, TensorRef};

impl OutputLayer for AdaptiveLogSoftmax<'_> {
    type Parameters<T> = AdaptiveParameters<T>;

    fn init(&self, dtype: DType, seed: u64) -> Result<AdaptiveParameters<Tensor>> {
        AdaptiveLogSoftmax::init(self, dtype, seed)
    }

    fn views(parameters: &AdaptiveParameters<Tensor>) -> AdaptiveParameters<TensorRef<'_>> {
        parameters.view()
    }

    fn views_mut(parameters: &mut AdaptiveParameters<Tensor>) -> AdaptiveParameters<TensorMut<'_>> {
        parameters.view_mut()
    }

    fn forward_into(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        data: (TensorRef<'_>, TensorRef<'_>),
        out: LayerOut<'_>,
    ) -> Result<()> {
        AdaptiveLogSoftmax::forward_into(self, device, parameters, data, out)
    }

    fn forward_backward_into(
        &self,
        device: &Device,
        parameters: &AdaptiveParameters<TensorRef<'_>>,
        data: (TensorRef<'_>, TensorRef<'_>),
        grad_output: GradOutput<'_>,
        written: (LayerOut<'_>, LayerGradOut<'_, AdaptiveParameters<TensorMut<'_>>>),
    ) -> Result<()> {
        let call = AdaptiveLogSoftmax::forward_backward_into;
        call(self, device, parameters, data, grad_output, written)
    }
}
