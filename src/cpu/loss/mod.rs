//! One file a loss: what is done with one line.

pub(crate) mod adaptive_embedding;
pub(crate) mod adaptive_log_softmax;
pub(crate) mod bce;
pub(crate) mod bce_with_logits;
mod class_subset;
pub(crate) mod cross_entropy;
mod elementwise;
pub(crate) mod gaussian_nll;
pub(crate) mod hinge_embedding;
pub(crate) mod huber;
pub(crate) mod information;
pub(crate) mod js_div;
pub(crate) mod js_div_logits;
pub(crate) mod kl_div;
pub(crate) mod l1;
mod linear_cross_entropy;
pub(crate) mod log_softmax;
pub(crate) mod logprob_entropy;
pub(crate) mod logsumexp;
pub(crate) mod mse;
pub(crate) mod multi_margin;
pub(crate) mod nll;
pub(crate) mod poisson_nll;
pub(crate) mod sampled_softmax;
pub(crate) mod sigmoid_focal;
pub(crate) mod soft_cross_entropy;
pub(crate) mod soft_margin;
