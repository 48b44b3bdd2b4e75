//! The public calls, one file a loss: arguments are checked (`spec/`), and the call is handed to the
//! device. Nothing else; `io/` has parameters from and to files.

mod adaptive_embedding;
mod adaptive_log_softmax;
mod cross_entropy;
mod elementwise;
pub mod information;
pub(crate) mod io;
mod js_div_logits;
mod linear_cross_entropy;
mod linear_distillation;
mod linear_gradients;
mod linear_logprob_entropy;
mod log_softmax;
mod logprob_entropy;
mod logsumexp;
mod multi_margin;
mod nll;
pub(crate) mod output_layer;
pub(crate) mod ranks;
mod row_state;
mod sampled_softmax;
mod subset_cross_entropy;
