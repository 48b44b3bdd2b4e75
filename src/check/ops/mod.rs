//! One file a loss: how random cases and calls of it are drawn, what the reference says about them,
//! and every way to make them.

pub(super) mod adaptive_embedding;
pub(super) mod adaptive_log_softmax;
pub(super) mod bce;
pub(super) mod bce_with_logits;
pub(super) mod class_subset;
pub(super) mod cross_entropy;
pub(super) mod gaussian_nll;
pub(super) mod hinge_embedding;
pub(super) mod huber;
pub(super) mod information;
pub(super) mod js_div;
pub(super) mod js_div_logits;
pub(super) mod kl_div;
pub(super) mod l1;
pub(super) mod linear_cross_entropy;
pub(super) mod linear_distillation;
pub(super) mod linear_logprob_entropy;
pub(super) mod log_softmax;
pub(super) mod logprob_entropy;
pub(super) mod logsumexp;
pub(super) mod mse;
pub(super) mod multi_margin;
pub(super) mod nll;
pub(super) mod poisson_nll;
pub(super) mod sampled_softmax;
pub(super) mod sigmoid_focal;
pub(super) mod smooth_l1;
pub(super) mod soft_cross_entropy;
pub(super) mod soft_margin;
