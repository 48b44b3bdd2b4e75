//! What is checked before a device sees it.

use super::{LayerGradOut, LayerOut, LayerOutput, SampledParameters, SampledSoftmax};
use crate::loss::{GradOutput, check};
use crate::{DType, Device, Element as _, Error, Reduction, Result, Shape, TensorMut, TensorRef};

/// Inputs that have passed the checks.
pub(crate) struct CheckedSampled<'a> {
    pub(crate) options: &'a SampledSoftmax,
    pub(crate) parameters: &'a SampledParameters<TensorRef<'a>>,
    pub(crate) input: TensorRef<'a>,
    pub(crate) target: TensorRef<'a>,
    pub(crate) rows: usize,
    /// The shape of what has one value a row: `[]` or `[N]`.
    pub(crate) row_shape: Shape,
}

impl SampledSoftmax {
    pub(super) fn check_options(&self) -> Result<()> {
        check::reduction(self.reduction)?;
        let refuse = |argument, expected: &str, got: String| {
            Err(Error::Value { argument, expected: expected.into(), got })
        };
        if self.in_features == 0 {
            return refuse("in_features", "at least 1", "0".into());
        }
        if self.in_features.checked_mul(self.classes()).is_none_or(|n| n > isize::MAX as usize) {
            return refuse("in_features", "sizes within reach", self.in_features.to_string());
        }
        Ok(())
    }

    pub(super) fn check<'a>(
        &'a self,
        parameters: &'a SampledParameters<TensorRef<'a>>,
        input: &TensorRef<'a>,
        target: &TensorRef<'a>,
    ) -> Result<CheckedSampled<'a>> {
        check::float("input", input)?;
        let shape = input.shape();
        let (rows, row_shape) = match *shape {
            [_] => (1, Shape::SCALAR),
            [rows, _] => (rows, shape.without(1)),
            _ => {
                let expected = "1 or 2".into();
                return Err(Error::Rank { argument: "input", expected, got: shape.len() });
            }
        };
        if shape.last() != Some(&self.in_features) {
            let expected = format!("[…, {}] (in_features)", self.in_features);
            return Err(Error::Shape { argument: "input", expected, got: shape });
        }
        self.check_parameters("parameters", parameters, input.dtype())?;
        check::class_indices(target, ("input", shape, row_shape))?;
        let (input, target) = (*input, *target);
        Ok(CheckedSampled { options: self, parameters, input, target, rows, row_shape })
    }

    /// Parameters, or their gradients, have the shapes of the options and one dtype.
    fn check_parameters(
        &self,
        argument: &'static str,
        parameters: &SampledParameters<TensorRef<'_>>,
        dtype: DType,
    ) -> Result<()> {
        let shapes = self.shapes()?;
        if parameters.bias.is_some() != self.bias {
            let say = |is: bool| if is { "bias" } else { "no bias" };
            let (expected, got) = (say(self.bias), say(parameters.bias.is_some()).into());
            return Err(Error::Value { argument, expected: format!("{expected} (bias)"), got });
        }
        parameters.try_map(|key, tensor| {
            let shape = if key == "weight" { Some(shapes.weight) } else { shapes.bias };
            let owned = (dtype, "the input's");
            check::parameter(argument, (key, tensor), shape.unwrap_or(Shape::SCALAR), owned)
        })?;
        Ok(())
    }
}

impl CheckedSampled<'_> {
    fn loss_shape(&self) -> Shape {
        match self.options.reduction {
            Reduction::None => self.row_shape,
            Reduction::Sum | Reduction::Mean | Reduction::BatchMean => Shape::SCALAR,
        }
    }

    /// Where input and parameters lie: they must lie together.
    pub(super) fn places(&self) -> [&'static str; 2] {
        let input = self.input.place();
        let all = std::iter::once(&self.parameters.weight).chain(&self.parameters.bias);
        let other = all.map(|p| p.place()).find(|&place| place != input);
        [input, other.unwrap_or(input)]
    }

    pub(super) fn allocate(&self, device: &Device) -> Result<LayerOutput> {
        let zeros = |name, shape| device.zeros(name, f32::DTYPE, shape, &self.input);
        let output = zeros("output", self.row_shape)?;
        Ok(LayerOutput { output, loss: zeros("loss", self.loss_shape())? })
    }

    pub(super) fn check_out(&self, out: &LayerOut<'_>) -> Result<()> {
        check::f32_output("output", &out.output.as_ref(), self.row_shape, "one a row")?;
        check::f32_output("loss", &out.loss.as_ref(), self.loss_shape(), "reduction")
    }

    pub(super) fn check_gradients(
        &self,
        grad_output: &GradOutput<'_>,
        gradients: &LayerGradOut<'_, SampledParameters<TensorMut<'_>>>,
    ) -> Result<()> {
        let dtype = self.input.dtype();
        grad_output.check(self.loss_shape(), dtype)?;
        if let Some(grad) = &gradients.input {
            check::shape("grad_input", &grad.as_ref(), self.input.shape(), "the input's")?;
            check::dtype("grad_input", &grad.as_ref(), &[dtype], "the input's")?;
        }
        match &gradients.parameters {
            Some(grads) => self.options.check_parameters("grad_parameters", &grads.as_ref(), dtype),
            None => Ok(()),
        }
    }
}
