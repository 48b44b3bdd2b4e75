//! The call as a value: what a device is handed.

use crate::base::tensor::{TensorMut, TensorRef};
use crate::spec::grad_output::GradOutput;

/// A call that has passed the checks, with everything that it reads and writes: devices take
/// nothing else.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) input: Input<'a>,
    pub(crate) target: TensorRef<'a>,
    pub(crate) grad_output: GradOutput<'a>,
    pub(crate) loss: Option<TensorMut<'a>>,
    pub(crate) grad_input: Option<TensorMut<'a>>,
    pub(crate) grad_target: Option<TensorMut<'a>>,
    /// Of the third tensor, which has one then.
    pub(crate) grad_third: Option<TensorMut<'a>>,
}

/// The input, or the input that becomes its own gradient.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    Kept(TensorRef<'a>),
    Consumed(TensorMut<'a>),
}

impl Input<'_> {
    pub(crate) fn view(&self) -> TensorRef<'_> {
        match self {
            Input::Kept(input) => *input,
            Input::Consumed(input) => input.as_ref(),
        }
    }
}
