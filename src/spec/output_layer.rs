//! The last layer of a model with its loss: hidden states and parameters to a loss and gradients.

use crate::base::error::{Error, Result};
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::base::validate;
use crate::spec::class_indices::ClassIndices;
use crate::spec::grad_output::GradOutput;

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
    pub(crate) fn out(&mut self) -> LayerOut<'_> {
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
        validate::float("input", input)?;
        validate::row("input", input)?;
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

    pub(crate) fn loss_shape(&self, reduction: Reduction) -> Shape {
        reduction.loss_shape(self.shape)
    }

    pub(crate) fn check_out(&self, reduction: Reduction, out: &LayerOut<'_>) -> Result<()> {
        validate::f32_output("output", &out.output.as_ref(), self.shape, "one a row")?;
        validate::f32_output("loss", &out.loss.as_ref(), self.loss_shape(reduction), "reduction")
    }

    pub(super) fn check_gradients(
        &self,
        reduction: Reduction,
        input: &TensorRef<'_>,
        (grad_output, grad_input): (&GradOutput<'_>, Option<&TensorMut<'_>>),
    ) -> Result<()> {
        grad_output.check(self.loss_shape(reduction), input.dtype())?;
        if let Some(grad) = grad_input {
            validate::like("grad_input", &grad.as_ref(), input, "the input's")?;
            validate::row("grad_input", &grad.as_ref())?;
        }
        Ok(())
    }
}

/// Where tensors lie that must lie together: the input, and the first that lies elsewhere.
pub(crate) fn places<'a>(
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
