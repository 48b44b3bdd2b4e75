//! Sampled softmax is computed on the CPU alone so far; a CUDA device says so.

use super::Cuda;
use crate::loss::{CheckedSampled, GradOutput, LayerGradOut, LayerOut, SampledParameters};
use crate::{Error, Result, TensorMut};

fn on_the_cpu_alone() -> Error {
    Error::Device { reason: "sampled softmax runs on the CPU device alone".into() }
}

impl Cuda {
    pub(crate) fn sampled_softmax_forward(
        &self,
        _: &CheckedSampled<'_>,
        _: LayerOut<'_>,
    ) -> Result<()> {
        Err(on_the_cpu_alone())
    }

    pub(crate) fn sampled_softmax_forward_backward(
        &self,
        _: &CheckedSampled<'_>,
        _: GradOutput<'_>,
        _: LayerOut<'_>,
        _: LayerGradOut<'_, SampledParameters<TensorMut<'_>>>,
    ) -> Result<()> {
        Err(on_the_cpu_alone())
    }
}
