//! Adaptive embeddings are looked up on the CPU alone so far; a CUDA device says so.

use super::Cuda;
use crate::loss::{AdaptiveEmbeddingParameters, CheckedEmbedding};
use crate::{Error, Result, TensorMut, TensorRef};

fn on_the_cpu_alone() -> Error {
    Error::Device { reason: "adaptive embeddings run on the CPU device alone".into() }
}

impl Cuda {
    pub(crate) fn adaptive_embedding_forward(
        &self,
        _: &CheckedEmbedding<'_>,
        _: TensorMut<'_>,
    ) -> Result<()> {
        Err(on_the_cpu_alone())
    }

    pub(crate) fn adaptive_embedding_backward(
        &self,
        _: &CheckedEmbedding<'_>,
        _: TensorRef<'_>,
        _: AdaptiveEmbeddingParameters<TensorMut<'_>>,
        _: bool,
    ) -> Result<()> {
        Err(on_the_cpu_alone())
    }
}
