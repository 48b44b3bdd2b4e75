//! What is checked before a device sees it.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::base::validate;
use crate::spec::class_indices::ClassIndices;
use crate::spec::grad_output::GradOutput;
use crate::spec::output_layer::{LayerRows, places};
use crate::spec::sampled_softmax::{LayerGradOut, SampledParameters, SampledSoftmax};

/// Inputs that have passed the checks.
pub(crate) struct CheckedSampled<'a> {
    pub(crate) options: &'a SampledSoftmax,
    pub(crate) parameters: &'a SampledParameters<TensorRef<'a>>,
    pub(crate) input: TensorRef<'a>,
    pub(crate) target: ClassIndices<'a>,
    pub(crate) rows: LayerRows,
}

impl SampledSoftmax {
    pub(crate) fn check_options(&self) -> Result<()> {
        validate::reduction(self.reduction)?;
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

    pub(crate) fn check<'a>(
        &'a self,
        parameters: &'a SampledParameters<TensorRef<'a>>,
        input: &TensorRef<'a>,
        target: &TensorRef<'a>,
    ) -> Result<CheckedSampled<'a>> {
        let rows = LayerRows::of(input, self.in_features)?;
        self.check_parameters("parameters", parameters, input.dtype())?;
        let target = rows.indices(input, target)?;
        let input = *input;
        Ok(CheckedSampled { options: self, parameters, input, target, rows })
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
            validate::parameter(argument, (key, tensor), shape.unwrap_or(Shape::SCALAR), owned)
        })?;
        Ok(())
    }
}

impl CheckedSampled<'_> {
    /// Where input and parameters lie: they must lie together.
    pub(crate) fn places(&self) -> [&'static str; 2] {
        let SampledParameters { weight, bias } = self.parameters;
        places(&self.input, std::iter::once(*weight).chain(*bias))
    }

    pub(crate) fn check_gradients(
        &self,
        grad_output: &GradOutput<'_>,
        gradients: &LayerGradOut<'_, SampledParameters<TensorMut<'_>>>,
    ) -> Result<()> {
        let given = (grad_output, gradients.input.as_ref());
        self.rows.check_gradients(self.options.reduction, &self.input, given)?;
        match &gradients.parameters {
            Some(grads) => {
                let dtype = self.input.dtype();
                self.options.check_parameters("grad_parameters", &grads.as_ref(), dtype)
            }
            None => Ok(()),
        }
    }
}
