//! The call as a value: what a device is handed.

use crate::base::tensor::TensorMut;
use crate::spec::grad_output::GradOutput;
use crate::spec::linear_distillation::outputs::DistillationGradOut;

/// A call that has passed the checks, with everything that it writes.
#[derive(Debug)]
#[expect(clippy::large_enum_variant)] // One a call, on its stack.
pub(crate) enum Call<'a> {
    Forward {
        loss: TensorMut<'a>,
    },
    /// Gradients, and the loss where there is room for it.
    Backward {
        grad_output: GradOutput<'a>,
        gradients: DistillationGradOut<'a>,
        loss: Option<TensorMut<'a>>,
    },
}
