//! One file a loss: its launches.

pub(crate) mod adaptive_embedding;
pub(crate) mod adaptive_log_softmax;
pub(crate) mod class_subset;
pub(crate) mod cross_entropy;
pub(crate) mod elementwise;
pub(crate) mod information;
pub(crate) mod js_div_logits;
pub(crate) mod linear_cross_entropy;
mod linear_distillation;
pub(crate) mod log_softmax;
pub(crate) mod logprob_entropy;
pub(crate) mod logsumexp;
pub(crate) mod multi_margin;
pub(crate) mod nll;
pub(crate) mod ranks;
pub(crate) mod sampled_softmax;
pub(crate) mod soft_cross_entropy;
