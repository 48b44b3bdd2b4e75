//! The call as a value: what a device is handed.

use crate::spec::cross_entropy::{CrossEntropyOut, CrossEntropyUpstream};
use crate::spec::linear_cross_entropy::outputs::LinearGradOut;

/// A call that has passed the checks, with everything that it writes.
#[derive(Debug)]
#[expect(clippy::large_enum_variant)] // One a call, on its stack.
pub(crate) enum Call<'a> {
    Forward {
        out: CrossEntropyOut<'a>,
    },
    /// Gradients, and results where there is room for them.
    Backward {
        upstream: CrossEntropyUpstream<'a>,
        gradients: LinearGradOut<'a>,
        out: Option<CrossEntropyOut<'a>>,
    },
}
