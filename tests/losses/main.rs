//! Every loss against PyTorch's answers, a plain f64 reference, and the behaviours promised.
//!
//! | file | holds |
//! |---|---|
//! | `harness` | devices, comparison: a loss is a [`harness::Case`], and every test takes cases |
//! | `data` | typed buffers with poisoned padding, random numbers, adversarial logits |
//! | `cross_entropy`, `soft_cross_entropy`, `nll`, `multi_margin`, `log_softmax`, `logsumexp`, `logprob_entropy`, `ranks`, `tokens`, `elementwise`, `js_div_logits`, `information` | a loss: its case, its calls, random cases |
//! | `partial` | a vocabulary in shards |
//! | `catalogue` | every loss of the catalogue, whichever it is |
//! | `adaptive_embedding`, `adaptive_log_softmax`, `sampled_softmax`, `linear_cross_entropy` | layers: parameters and a loss |
//! | `golden`, `properties`, `gradients` | one table each, a loss is a row |
//! | `numerics…`, `elementwise_numerics`, `ends`, `near_zero`, `empty`, `determinism`, `errors…`, `targets`, `views` | behaviours, a test is named for each |
//! | `schedules`, `soft_schedules`, `elementwise_cuda`, `blocks` | how a device goes through rows, elements and host tensors, on emulated cards |
//! | `linear_golden`, `linear_logprob_entropy`, `linear_distillation` | PyTorch's answers as files have them; losses of hidden states |
//! | `class_subset` | lists of classes that rows bring |
//! | `linear_device` | cross entropy of hidden states: chunks and budgets on emulated cards |
//! | `softcap` | the approximate one |
//! | `short`, `lanes` | short rows on the CPU; long sums at every instruction set |
//! | `balance`, `planner` | what a loss is given: class weights, batches, cutoffs |

mod adaptive_embedding;
mod adaptive_log_softmax;
mod balance;
mod bce;
#[cfg(feature = "emulator")]
mod blocks;
mod catalogue;
mod class_subset;
mod cross_entropy;
mod data;
mod determinism;
mod elementwise;
#[cfg(feature = "emulator")]
mod elementwise_cuda;
mod elementwise_numerics;
mod empty;
mod ends;
mod errors;
mod errors_cross_entropy;
mod errors_elementwise;
mod errors_logprob_entropy;
#[cfg(feature = "emulator")]
mod gaussian_nll;
mod golden;
mod gradients;
mod harness;
mod information;
mod js_div_logits;
mod kept;
mod lanes;
mod linear_cross_entropy;
#[cfg(feature = "emulator")]
mod linear_device;
mod linear_distillation;
mod linear_golden;
mod linear_logprob_entropy;
mod log_softmax;
mod logprob_entropy;
mod logsumexp;
mod multi_margin;
mod near_zero;
mod nll;
mod numerics;
mod numerics_lines;
mod numerics_soft;
mod partial;
mod planner;
mod properties;
mod ranks;
mod raw_views;
mod sampled_softmax;
#[cfg(feature = "emulator")]
mod schedules;
#[cfg(feature = "emulator")]
mod schedules_tokens;
mod short;
mod soft_cross_entropy;
#[cfg(feature = "emulator")]
mod soft_schedules;
mod softcap;
mod targets;
mod tokens;
mod views;
