//! Log-softmax along one dimension: `y = x − lse`, gradient `g − e^y·Σg`.

use crate::base::error::Result;
use crate::base::shape::Shape;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::base::validate;

/// Log-probabilities along a dimension (`torch.nn.functional.log_softmax`).
///
/// | tensor | shape | dtype |
/// |---|---|---|
/// | input | any, row stride free | f32, f16, bf16 |
/// | output | the input's | f32 or the input's |
/// | grad_output | the input's | f32 or the input's |
/// | grad_input | the input's | the input's |
///
/// An entry of −∞ stays −∞ and its gradient is that of the output; a line that is all −∞, or
/// holds +∞ or NaN, becomes NaN.
///
/// ```
/// use warploss::{Device, LogSoftmax, TensorRef};
/// let input = TensorRef::new(&[0.0f32, 0.0], &[1, 2])?;
/// let output = LogSoftmax::dim(-1).forward(&Device::best(), input)?;
/// assert_eq!(output.as_slice::<f32>(), Some(&[-std::f32::consts::LN_2; 2][..]));
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "options do nothing until a call is made with them"]
pub struct LogSoftmax {
    dim: isize,
}

/// An input with the dimensions to go along, resolved and in range.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckedLines {
    along: u32,
    /// Shape of the result where the dimensions are reduced away.
    pub(crate) reduced: Shape,
}

impl CheckedLines {
    pub(crate) fn new(shape: Shape, along: u32, keepdim: bool) -> CheckedLines {
        let mut reduced = Shape::SCALAR;
        for (d, &size) in shape.iter().enumerate() {
            match along >> d & 1 {
                0 => reduced.push(size),
                _ if keepdim => reduced.push(1),
                _ => {}
            }
        }
        CheckedLines { along, reduced }
    }

    /// Whether lines go along dimension `d`.
    pub(crate) fn along(&self, d: usize) -> bool {
        self.along >> d & 1 == 1
    }
}

impl LogSoftmax {
    /// Along dimension `dim`; negative counts from the end, as in PyTorch.
    pub fn dim(dim: isize) -> Self {
        LogSoftmax { dim }
    }

    pub(crate) fn check(&self, input: &TensorRef<'_>) -> Result<CheckedLines> {
        validate::float("input", input)?;
        let dim = validate::dim(self.dim, input.rank())?;
        Ok(CheckedLines::new(input.shape(), 1 << dim, true))
    }
}

pub(crate) fn same_shape(
    argument: &'static str,
    tensor: &TensorRef<'_>,
    input: &TensorRef<'_>,
) -> Result<()> {
    validate::shape(argument, tensor, input.shape(), "the input's")
}

/// A call that has passed the checks, with everything that it reads and writes.
#[derive(Debug)]
pub(crate) enum Call<'a> {
    Forward { input: TensorRef<'a>, output: TensorMut<'a> },
    Backward { input: TensorRef<'a>, grad_output: TensorRef<'a>, grad_input: TensorMut<'a> },
}
