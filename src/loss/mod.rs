//! One file a loss: its options, its checks, its maths in words. No memory, no threads.

pub(crate) mod check;
mod cross_entropy;
mod grad_output;
mod labels;
mod log_softmax;
mod logprob_entropy;
mod logsumexp;
mod nll;
mod ranks;

pub use cross_entropy::{
    CrossEntropy, CrossEntropyGrad, CrossEntropyGradients, CrossEntropyOut, CrossEntropyOutput,
};
pub use grad_output::GradOutput;
pub use log_softmax::LogSoftmax;
pub use logprob_entropy::{
    LogprobEntropy, LogprobEntropyGrad, LogprobEntropyOut, LogprobEntropyOutput,
    LogprobEntropyUpstream,
};
pub use logsumexp::LogSumExp;
pub use nll::{Nll, NllGrad};
pub use ranks::{Ranks, TopkAccuracy, topk_accuracy};

pub(crate) use cross_entropy::Checked;
pub(crate) use labels::Labels;
pub(crate) use log_softmax::CheckedLines;
pub(crate) use nll::{CheckedNll, Positions};
