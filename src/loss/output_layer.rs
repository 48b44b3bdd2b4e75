//! The public calls of this loss; what it computes: `spec/output_layer.rs`.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::host::Element as _;
use crate::base::reduction::Reduction;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::device::Device;
use crate::spec::grad_output::GradOutput;
use crate::spec::output_layer::{LayerGradOut, LayerOut, LayerOutput, LayerRows};

impl LayerRows {
    pub(super) fn allocate(
        &self,
        device: &Device,
        reduction: Reduction,
        input: &TensorRef<'_>,
    ) -> Result<LayerOutput> {
        let zeros = |name, shape| device.zeros(name, f32::DTYPE, shape, input);
        let output = zeros("output", self.shape)?;
        Ok(LayerOutput { output, loss: zeros("loss", self.loss_shape(reduction))? })
    }
}

/// What a trainer needs of its last layer, so that one can be put in another's place:
/// [`AdaptiveLogSoftmax`](crate::AdaptiveLogSoftmax), or
/// [`SampledSoftmax`](crate::SampledSoftmax) with few negatives, or with all classes.
///
/// Input is `[N, D]` (or `[D]`), target `[N]` (or `[]`), as the layer's own methods have them, which
/// say more.
///
/// ```
/// use warploss::{AdaptiveLogSoftmax, DType, Device, LayerGradOut, LayerOut, NegativeSampler};
/// use warploss::{OutputLayer, SampledSoftmax, Tensor, TensorRef};
///
/// /// The loss of a batch, and the input's gradient.
/// fn step<L: OutputLayer>(layer: &mut L, number: u64) -> warploss::Result<(f32, Tensor)> {
///     let device = Device::cpu();
///     layer.set_step(number);
///     let parameters = layer.init(DType::F32, 7)?;
///     let input = TensorRef::new(&[0.1f32, -0.2, 0.3, 0.4, 1.0, 0.0, -1.0, 0.5], &[2, 4])?;
///     let target = TensorRef::new(&[1i64, 8], &[2])?;
///     let mut output = Tensor::from_vec(vec![0f32; 2], &[2])?;
///     let mut loss = Tensor::from_vec(vec![0f32], &[])?;
///     let mut grad = Tensor::from_vec(vec![0f32; 8], &[2, 4])?;
///     let out = LayerOut { output: output.view_mut(), loss: loss.view_mut() };
///     let input_alone =
///         LayerGradOut { input: Some(grad.view_mut()), parameters: None, accumulate: false };
///     let (views, data) = (L::views(&parameters), (input, target));
///     layer.forward_backward_into(&device, &views, data, 1.0.into(), (out, input_alone))?;
///     Ok((loss.item()?, grad))
/// }
///
/// let (few, all) = (NegativeSampler::log_uniform(10, 4)?, NegativeSampler::all(10)?);
/// for (loss, _) in [
///     step(&mut AdaptiveLogSoftmax::new(4, 10, &[2, 6]), 0)?,
///     step(&mut SampledSoftmax::new(4, few), 0)?,
///     step(&mut SampledSoftmax::new(4, all), 0)?,
/// ] {
///     assert!(loss > 0.0);
/// }
/// # Ok::<(), warploss::Error>(())
/// ```
pub trait OutputLayer {
    /// The layer's parameters: tensors, views of them, or gradients.
    type Parameters<T>;

    /// New parameters.
    ///
    /// # Errors
    /// Those of the layer's `init`.
    fn init(&self, dtype: DType, seed: u64) -> Result<Self::Parameters<Tensor>>;

    /// Which step of the training the calls that follow belong to: what a layer draws depends on
    /// it. Of no effect where nothing is drawn.
    fn set_step(&mut self, _step: u64) {}

    /// Views of all parameters.
    fn views(parameters: &Self::Parameters<Tensor>) -> Self::Parameters<TensorRef<'_>>;

    /// Exclusive views of all parameters.
    fn views_mut(parameters: &mut Self::Parameters<Tensor>) -> Self::Parameters<TensorMut<'_>>;

    /// Log-probabilities and loss of `(input, target)`.
    ///
    /// # Errors
    /// Those of the layer's `forward_into`; nothing is written then.
    fn forward_into(
        &self,
        device: &Device,
        parameters: &Self::Parameters<TensorRef<'_>>,
        data: (TensorRef<'_>, TensorRef<'_>),
        out: LayerOut<'_>,
    ) -> Result<()>;

    /// The same with gradients, as far as there is memory for them.
    ///
    /// # Errors
    /// Those of the layer's `forward_backward_into`; nothing is written then.
    fn forward_backward_into(
        &self,
        device: &Device,
        parameters: &Self::Parameters<TensorRef<'_>>,
        data: (TensorRef<'_>, TensorRef<'_>),
        grad_output: GradOutput<'_>,
        written: (LayerOut<'_>, LayerGradOut<'_, Self::Parameters<TensorMut<'_>>>),
    ) -> Result<()>;
}
