//! Log-sum-exp along dimensions: `ln Σ e^x`, gradient `g·e^(x − lse)`.

use crate::base::error::{Error, Result};
use crate::base::tensor::{TensorMut, TensorRef};
use crate::base::validate;
use crate::spec::log_softmax::CheckedLines;

/// Logarithm of the sum of exponentials (`torch.logsumexp`).
///
/// | tensor | shape | dtype |
/// |---|---|---|
/// | input | any, row stride free | f32, f16, bf16 |
/// | output | the input's, without the dimensions (or 1 there with `keepdim`) | f32 |
/// | grad_output | the output's | f32 or the input's |
/// | grad_input | the input's | the input's |
///
/// A line of −∞ alone, or without elements, gives −∞; one with +∞ and no NaN gives +∞; one with
/// NaN gives NaN.
///
/// ```
/// use warploss::{Device, LogSumExp, TensorRef};
/// let input = TensorRef::new(&[1000.0f32, 1000.0], &[1, 2])?;
/// let output = LogSumExp::dims(&[1])?.forward(&Device::best(), input)?;
/// assert_eq!(output.as_slice::<f32>(), Some(&[1000.6932][..]));
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "options do nothing until a call is made with them"]
pub struct LogSumExp {
    dims: [isize; crate::base::shape::MAX_RANK],
    count: usize,
    keepdim: bool,
}

impl LogSumExp {
    /// Along the dimensions `dims`, one or more; negative counts from the end.
    ///
    /// # Errors
    /// No dimension, or more than a tensor can have.
    pub fn dims(dims: &[isize]) -> Result<Self> {
        let mut all = [0; crate::base::shape::MAX_RANK];
        match all.get_mut(..dims.len()) {
            Some(slots) if !dims.is_empty() => slots.copy_from_slice(dims),
            _ => {
                return Err(Error::Value {
                    argument: "dim",
                    expected: format!("1 to {} dimensions", crate::base::shape::MAX_RANK),
                    got: dims.len().to_string(),
                });
            }
        }
        Ok(LogSumExp { dims: all, count: dims.len(), keepdim: false })
    }

    /// Keep the reduced dimensions with size 1. Default: drop them.
    pub fn keepdim(mut self, keepdim: bool) -> Self {
        self.keepdim = keepdim;
        self
    }

    pub(crate) fn check(&self, input: &TensorRef<'_>) -> Result<CheckedLines> {
        validate::float("input", input)?;
        let mut along = 0;
        for &dim in &self.dims[..self.count] {
            let d = validate::dim(dim, input.rank())?;
            if along >> d & 1 == 1 {
                return Err(Error::Value {
                    argument: "dim",
                    expected: "distinct dimensions".into(),
                    got: format!("{dim} twice"),
                });
            }
            along |= 1 << d;
        }
        Ok(CheckedLines::new(input.shape(), along, self.keepdim))
    }
}

/// A call that has passed the checks, with everything that it reads and writes.
#[derive(Debug)]
#[expect(clippy::large_enum_variant)] // One a call, on its stack.
pub(crate) enum Call<'a> {
    Forward {
        input: TensorRef<'a>,
        output: TensorMut<'a>,
    },
    Backward {
        input: TensorRef<'a>,
        output: TensorRef<'a>,
        grad_output: TensorRef<'a>,
        grad_input: TensorMut<'a>,
    },
}
