//! One file a loss: its options, its checks, its maths in words. No memory, no threads.

pub(crate) mod check;
mod cross_entropy;
mod grad_output;
mod labels;
mod log_softmax;
mod logsumexp;
mod nll;

pub use cross_entropy::{
    CrossEntropy, CrossEntropyGrad, CrossEntropyGradients, CrossEntropyOut, CrossEntropyOutput,
};
pub use grad_output::GradOutput;
pub use log_softmax::LogSoftmax;
pub use logsumexp::LogSumExp;
pub use nll::{Nll, NllGrad};

pub(crate) use cross_entropy::Checked;
pub(crate) use labels::Labels;
pub(crate) use log_softmax::CheckedLines;
pub(crate) use nll::{CheckedNll, Positions};
