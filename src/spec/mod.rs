//! What each loss computes, one file a loss: the formula in words, options, outputs, what is checked,
//! and the call as a value, which a device takes. No memory, no threads.

pub(crate) mod adaptive_embedding;
pub(crate) mod adaptive_log_softmax;
pub(crate) mod bce;
pub(crate) mod bce_with_logits;
pub(crate) mod broadcast;
pub(crate) mod class_indices;
pub(crate) mod counting;
pub(crate) mod cross_entropy;
pub(crate) mod elementwise;
pub(crate) mod gaussian_nll;
pub(crate) mod grad_output;
pub(crate) mod hinge_embedding;
pub(crate) mod huber;
pub(crate) mod information;
pub(crate) mod js_div;
pub(crate) mod js_div_logits;
pub(crate) mod kl_div;
pub(crate) mod l1;
pub(crate) mod linear_cross_entropy;
pub(crate) mod linear_logprob_entropy;
pub(crate) mod log_softmax;
pub(crate) mod logprob_entropy;
pub(crate) mod logsumexp;
pub(crate) mod mse;
pub(crate) mod multi_margin;
pub(crate) mod nll;
pub(crate) mod output_layer;
pub(crate) mod poisson_nll;
pub(crate) mod ranks;
pub(crate) mod row_state;
pub(crate) mod sampled_softmax;
pub(crate) mod sigmoid_focal;
pub(crate) mod smooth_l1;
pub(crate) mod soft_cap;
pub(crate) mod soft_margin;
