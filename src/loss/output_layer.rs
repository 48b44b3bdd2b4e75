//! The last layer of a model with its loss: hidden states and parameters to a loss and gradients.

use super::{ClassIndices, GradOutput, check};
use crate::device::Device;
use crate::dtype::{DType, Element as _};
use crate::error::{Error, Result};
use crate::reduction::Reduction;
use crate::shape::Shape;
use crate::tensor::{Tensor, TensorMut, TensorRef};

/// Bytes of a layer's buffers on a CUDA device, unless the caller has another budget.
pub(crate) const WORKSPACE: usize = 256 << 20;

/// What an allocating forward pass returns.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerOutput {
    /// The target's log-probability, one a row; f32; 0 for ignored rows.
    pub output: Tensor,
    /// `[]` for sum and mean, one a row for none; f32.
    pub loss: Tensor,
}

/// Where a forward pass writes.
#[derive(Debug)]
pub struct LayerOut<'a> {
    /// One a row, f32.
    pub output: TensorMut<'a>,
    /// `[]` for sum and mean, one a row for none; f32.
    pub loss: TensorMut<'a>,
}

/// What an allocating forward and backward pass returns; `P` holds tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerGrad<P> {
    /// Log-probabilities and loss.
    pub output: LayerOutput,
    /// The input's shape and dtype.
    pub input: Tensor,
    /// The parameters' shapes and dtype; 0 where no row came by.
    pub parameters: P,
}

/// Memory that gradients are written to; `P` holds exclusive views.
#[derive(Debug)]
pub struct LayerGradOut<'a, P> {
    /// The input's shape and dtype.
    pub input: Option<TensorMut<'a>>,
    /// The parameters' shapes and dtype.
    pub parameters: Option<P>,
    /// Whether the parameters' gradients are added to what is there.
    pub accumulate: bool,
}

impl LayerOutput {
    pub(super) fn out(&mut self) -> LayerOut<'_> {
        LayerOut { output: self.output.view_mut(), loss: self.loss.view_mut() }
    }
}

/// The rows of a layer's input, and what is checked of all that has something for each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerRows {
    pub(crate) len: usize,
    /// The shape of what has one value a row: `[]` or `[N]`.
    pub(crate) shape: Shape,
}

impl LayerRows {
    /// Of an input `[D]` or `[N, D]`.
    pub(super) fn of(input: &TensorRef<'_>, in_features: usize) -> Result<LayerRows> {
        check::float("input", input)?;
        check::row("input", input)?;
        let shape = input.shape();
        let rows = match *shape {
            [_] => LayerRows { len: 1, shape: Shape::SCALAR },
            [len, _] => LayerRows { len, shape: shape.without(1) },
            _ => {
                let expected = "1 or 2".into();
                return Err(Error::Rank { argument: "input", expected, got: shape.len() });
            }
        };
        if shape.last() != Some(&in_features) {
            let expected = format!("[…, {in_features}] (in_features)");
            return Err(Error::Shape { argument: "input", expected, got: shape });
        }
        Ok(rows)
    }

    /// A class for each row of `input`.
    pub(super) fn indices<'a>(
        &self,
        input: &TensorRef<'_>,
        target: &TensorRef<'a>,
    ) -> Result<ClassIndices<'a>> {
        let owner = format_args!("the input's {} without its features", input.shape());
        ClassIndices::of_rows("target", target, self.shape, owner)
    }

    fn loss_shape(&self, reduction: Reduction) -> Shape {
        match reduction {
            Reduction::None => self.shape,
            Reduction::Sum | Reduction::Mean | Reduction::BatchMean => Shape::SCALAR,
        }
    }

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

    pub(super) fn check_out(&self, reduction: Reduction, out: &LayerOut<'_>) -> Result<()> {
        check::f32_output("output", &out.output.as_ref(), self.shape, "one a row")?;
        check::f32_output("loss", &out.loss.as_ref(), self.loss_shape(reduction), "reduction")
    }

    pub(super) fn check_gradients(
        &self,
        reduction: Reduction,
        input: &TensorRef<'_>,
        (grad_output, grad_input): (&GradOutput<'_>, Option<&TensorMut<'_>>),
    ) -> Result<()> {
        grad_output.check(self.loss_shape(reduction), input.dtype())?;
        if let Some(grad) = grad_input {
            check::shape("grad_input", &grad.as_ref(), input.shape(), "the input's")?;
            check::dtype("grad_input", &grad.as_ref(), &[input.dtype()], "the input's")?;
            check::row("grad_input", &grad.as_ref())?;
        }
        Ok(())
    }
}

/// Where tensors lie that must lie together: the input, and the first that lies elsewhere.
pub(super) fn places<'a>(
    input: &TensorRef<'_>,
    others: impl IntoIterator<Item = TensorRef<'a>>,
) -> [&'static str; 2] {
    let input = input.place();
    let other = others.into_iter().map(|tensor| tensor.place()).find(|&place| place != input);
    [input, other.unwrap_or(input)]
}

/// A kept target that names no class.
pub(crate) fn bad_target(
    (classes, ignore_index): (usize, Option<i64>),
    (row, value): (usize, i64),
) -> Error {
    match ignore_index {
        Some(ignore_index) => {
            Error::Target { argument: "target", row, value, classes, ignore_index }
        }
        None => Error::Value {
            argument: "target",
            expected: format!("a class in [0, {classes})"),
            got: format!("{value} at row {row}"),
        },
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
