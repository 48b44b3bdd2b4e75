//! One file a loss: its options, its checks, its maths in words. No memory, no threads.

mod adaptive_embedding;
mod adaptive_log_softmax;
mod bce_with_logits;
pub(crate) mod broadcast;
pub(crate) mod check;
mod class_indices;
mod counting;
mod cross_entropy;
pub(crate) mod elementwise;
mod grad_output;
mod huber;
pub mod information;
mod js_div;
mod js_div_logits;
mod kl_div;
mod l1;
mod log_softmax;
mod logprob_entropy;
mod logsumexp;
mod mse;
mod nll;
mod output_layer;
mod ranks;
mod sampled_softmax;
mod smooth_l1;
mod soft_cap;

pub use adaptive_embedding::{AdaptiveEmbedding, AdaptiveEmbeddingParameters};
pub use adaptive_log_softmax::{AdaptiveLogSoftmax, AdaptiveParameters, AdaptiveTail, ClassOrder};
pub use bce_with_logits::{BceWithLogits, BceWithLogitsLoss};
pub use cross_entropy::{
    CrossEntropy, CrossEntropyGrad, CrossEntropyGradients, CrossEntropyOut, CrossEntropyOutput,
};
pub use elementwise::{Elementwise, ElementwiseGrad, ElementwiseGradOut, Wrt};
pub use grad_output::GradOutput;
pub use huber::{Huber, HuberLoss};
pub use js_div::{JsDiv, JsDivLoss};
pub use js_div_logits::{JsDivLogits, JsDivLogitsGrad, JsDivLogitsGradOut};
pub use kl_div::{KlDiv, KlDivLoss};
pub use l1::{L1, L1Loss};
pub use log_softmax::LogSoftmax;
pub use logprob_entropy::{
    LogprobEntropy, LogprobEntropyGrad, LogprobEntropyOut, LogprobEntropyOutput,
    LogprobEntropyUpstream,
};
pub use logsumexp::LogSumExp;
pub use mse::{Mse, MseLoss};
pub use nll::{Nll, NllGrad};
pub use output_layer::{LayerGrad, LayerGradOut, LayerOut, LayerOutput, OutputLayer};
pub use ranks::{Ranks, TopkAccuracy, topk_accuracy};
pub use sampled_softmax::{NegativeSampler, SampledParameters, SampledSoftmax};
pub use smooth_l1::{SmoothL1, SmoothL1Loss};

pub(crate) use adaptive_embedding::CheckedEmbedding;
pub(crate) use adaptive_log_softmax::CheckedAdaptive;
pub(crate) use class_indices::ClassIndices;
pub(crate) use counting::Counting;
pub(crate) use cross_entropy::{Checked, SoftTarget};
pub(crate) use information::{CheckedInformation, Information};
pub(crate) use js_div_logits::CheckedJsDiv;
pub(crate) use log_softmax::CheckedLines;
pub(crate) use nll::{CheckedNll, Positions};
pub(crate) use output_layer::{WORKSPACE, bad_target};
pub(crate) use sampled_softmax::{CheckedSampled, Negatives};
pub(crate) use soft_cap::CapFactors;
