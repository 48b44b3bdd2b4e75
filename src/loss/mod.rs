//! One file a loss: its options, its checks, its maths in words. No memory, no threads.

pub(crate) mod check;
mod cross_entropy;
mod grad_output;
mod log_softmax;
mod logsumexp;

pub use cross_entropy::{CrossEntropy, CrossEntropyGrad, CrossEntropyOut, CrossEntropyOutput};
pub use grad_output::GradOutput;
pub use log_softmax::LogSoftmax;
pub use logsumexp::LogSumExp;

pub(crate) use cross_entropy::Checked;
pub(crate) use log_softmax::CheckedLines;
