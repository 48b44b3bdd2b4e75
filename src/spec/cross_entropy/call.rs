//! The calls as values: what a device is handed.

use crate::base::tensor::{TensorMut, TensorRef};
use crate::spec::cross_entropy::outputs::{CrossEntropyGradients, CrossEntropyOut};
use crate::spec::cross_entropy::tokens::CrossEntropyUpstream;
use crate::spec::grad_output::GradOutput;

/// A call against class indices that has passed the checks, with everything that it reads and writes.
#[derive(Debug)]
#[expect(clippy::large_enum_variant)] // One a call, on its stack.
pub(crate) enum Call<'a> {
    Forward {
        logits: TensorRef<'a>,
        out: CrossEntropyOut<'a>,
    },
    /// From a saved log-sum-exp.
    Backward {
        logits: TensorRef<'a>,
        lse: TensorRef<'a>,
        grad_output: GradOutput<'a>,
        grad_logits: TensorMut<'a>,
    },
    /// The same, over the logits.
    BackwardInPlace {
        logits: TensorMut<'a>,
        lse: TensorRef<'a>,
        grad_output: GradOutput<'a>,
    },
    /// In one pass, from logits that are kept, or else over them.
    ForwardBackward {
        from: Option<TensorRef<'a>>,
        grad_logits: TensorMut<'a>,
        upstream: CrossEntropyUpstream<'a>,
        out: CrossEntropyOut<'a>,
    },
}

/// The same against probabilities or a teacher's logits.
#[derive(Debug)]
#[expect(clippy::large_enum_variant)] // One a call, on its stack.
pub(crate) enum SoftCall<'a> {
    Forward {
        logits: TensorRef<'a>,
        out: CrossEntropyOut<'a>,
    },
    /// From logits that are kept, or else over them; with a loss, in one pass.
    Backward {
        from: Option<TensorRef<'a>>,
        gradients: CrossEntropyGradients<'a>,
        grad_output: GradOutput<'a>,
        out: Option<CrossEntropyOut<'a>>,
    },
}
