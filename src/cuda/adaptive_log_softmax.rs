//! Adaptive log-softmax is computed on the CPU alone so far; a CUDA device says so.

use super::Cuda;
use crate::loss::{AdaptiveParameters, CheckedAdaptive, GradOutput, LayerGradOut, LayerOut};
use crate::{Error, Result, TensorMut};

fn on_the_cpu_alone() -> Error {
    Error::Device { reason: "adaptive log-softmax runs on the CPU device alone".into() }
}

impl Cuda {
    pub(crate) fn adaptive_log_softmax_forward(
        &self,
        _: &CheckedAdaptive<'_>,
        _: LayerOut<'_>,
    ) -> Result<()> {
        Err(on_the_cpu_alone())
    }

    pub(crate) fn adaptive_log_softmax_forward_backward(
        &self,
        _: &CheckedAdaptive<'_>,
        _: GradOutput<'_>,
        _: LayerOut<'_>,
        _: LayerGradOut<'_, AdaptiveParameters<TensorMut<'_>>>,
    ) -> Result<()> {
        Err(on_the_cpu_alone())
    }

    pub(crate) fn adaptive_log_softmax_log_prob(
        &self,
        _: &CheckedAdaptive<'_>,
        _: TensorMut<'_>,
    ) -> Result<()> {
        Err(on_the_cpu_alone())
    }

    pub(crate) fn adaptive_log_softmax_top_k(
        &self,
        _: &CheckedAdaptive<'_>,
        _: usize,
        _: TensorMut<'_>,
        _: Option<TensorMut<'_>>,
    ) -> Result<()> {
        Err(on_the_cpu_alone())
    }

    pub(crate) fn adaptive_log_softmax_sample(
        &self,
        _: &CheckedAdaptive<'_>,
        _: u64,
        _: TensorMut<'_>,
    ) -> Result<()> {
        Err(on_the_cpu_alone())
    }
}
