//! The upstream gradient: what the rest of the network says that the loss is worth.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::host::Element as _;
use crate::base::shape::Shape;
use crate::base::tensor::TensorRef;
use crate::base::validate;

/// Gradient of the final objective with respect to a result: it multiplies every gradient.
///
/// One number serves results of any shape; a tensor has the result's shape (one value per row
/// where the reduction is none).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GradOutput<'a> {
    /// The same number for every element of the result.
    Number(f32),
    /// A tensor of the result's shape, or of one element; f32 or the input's dtype.
    Tensor(TensorRef<'a>),
}

impl Default for GradOutput<'_> {
    /// 1, as `loss.backward()` has it.
    fn default() -> Self {
        GradOutput::Number(1.0)
    }
}

impl From<f32> for GradOutput<'_> {
    fn from(value: f32) -> Self {
        GradOutput::Number(value)
    }
}

impl<'a> From<TensorRef<'a>> for GradOutput<'a> {
    fn from(value: TensorRef<'a>) -> Self {
        GradOutput::Tensor(value)
    }
}

impl GradOutput<'_> {
    /// Checks shape and dtype against the result's shape and the input's dtype.
    pub(crate) fn check(&self, result: Shape, input: DType) -> Result<()> {
        self.check_as("grad_output", result, input)
    }

    /// As [`GradOutput::check`], under the name that it has beside another one.
    pub(crate) fn check_as(
        &self,
        argument: &'static str,
        result: Shape,
        input: DType,
    ) -> Result<()> {
        let GradOutput::Tensor(g) = self else {
            return Ok(());
        };
        if g.shape() != result && g.elements() != 1 {
            return Err(Error::Shape {
                argument,
                expected: format!("{result} (the result's) or one number"),
                got: g.shape(),
            });
        }
        validate::dtype(argument, g, &[f32::DTYPE, input], "the input's")?;
        validate::contiguous(argument, g)
    }
}
