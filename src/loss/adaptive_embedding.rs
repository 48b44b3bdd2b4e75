//! The public calls of this loss; what it computes: `spec/adaptive_embedding.rs`.

use crate::base::error::Result;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::device::Device;
use crate::spec::adaptive_embedding::{AdaptiveEmbedding, AdaptiveEmbeddingParameters, Call};

impl AdaptiveEmbedding {
    /// The embedding of each class that `index` names.
    ///
    /// # Errors
    /// A shape, dtype, stride, option or class that breaks the rules above; memory that the device
    /// cannot reach; out of memory.
    pub fn forward(
        &self,
        device: &Device,
        parameters: &AdaptiveEmbeddingParameters<TensorRef<'_>>,
        index: TensorRef<'_>,
    ) -> Result<Tensor> {
        let checked = self.check(parameters, &index)?;
        let (dtype, shape) = (checked.dtype(), checked.shape());
        let mut output = device.zeros("output", dtype, shape, &parameters.shortlist)?;
        self.forward_into(device, parameters, index, output.view_mut())?;
        Ok(output)
    }

    /// As [`AdaptiveEmbedding::forward`], into the caller's buffer.
    ///
    /// # Errors
    /// As `forward`; nothing is written then.
    pub fn forward_into(
        &self,
        device: &Device,
        parameters: &AdaptiveEmbeddingParameters<TensorRef<'_>>,
        index: TensorRef<'_>,
        output: TensorMut<'_>,
    ) -> Result<()> {
        let checked = self.check(parameters, &index)?;
        checked.check_like_output("output", &output.as_ref())?;
        device
            .backend("index", &checked.places())?
            .adaptive_embedding(&checked, Call::Forward { output })
    }

    /// The gradients of all parameters, from that of the output.
    ///
    /// # Errors
    /// As [`AdaptiveEmbedding::forward`]; a `grad_output` that is not like the output.
    pub fn backward(
        &self,
        device: &Device,
        parameters: &AdaptiveEmbeddingParameters<TensorRef<'_>>,
        index: TensorRef<'_>,
        grad_output: TensorRef<'_>,
    ) -> Result<AdaptiveEmbeddingParameters<Tensor>> {
        self.check(parameters, &index)?;
        let zeros = |_: &str, p: &TensorRef<'_>| device.zeros("gradient", p.dtype(), p.shape(), p);
        let mut grads = parameters.try_map(zeros)?;
        let data = (index, grad_output);
        self.backward_into(device, parameters, data, (grads.view_mut(), false))?;
        Ok(grads)
    }

    /// As [`AdaptiveEmbedding::backward`], of `(index, grad_output)`, into the caller's buffers;
    /// added to what is there if so asked, and then only rows that the index names are touched.
    ///
    /// # Errors
    /// As `backward`; nothing is written then.
    pub fn backward_into(
        &self,
        device: &Device,
        parameters: &AdaptiveEmbeddingParameters<TensorRef<'_>>,
        (index, grad_output): (TensorRef<'_>, TensorRef<'_>),
        (gradients, accumulate): (AdaptiveEmbeddingParameters<TensorMut<'_>>, bool),
    ) -> Result<()> {
        let checked = self.check(parameters, &index)?;
        checked.check_like_output("grad_output", &grad_output)?;
        self.check_parameters("grad_parameters", &gradients.as_ref(), checked.dtype())?;
        device
            .backend("index", &checked.places())?
            .adaptive_embedding(&checked, Call::Backward { grad_output, gradients, accumulate })
    }
}
