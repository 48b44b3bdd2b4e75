//! Losses for training with large vocabularies: exact, fused and fast.
//!
//! A trainer owns its memory. It hands in views ([`TensorRef`], [`TensorMut`]) with a shape and a
//! row stride, picks a [`Device`], and calls a loss in one of two forms: into buffers of its own
//! (`*_into`, `*_in_place`, no allocation) or allocating. Every call checks its arguments before
//! it touches memory; when it returns an [`Error`], nothing has been written.
//!
//! ```
//! use warploss::{CrossEntropy, Device, Tensor, TensorRef};
//!
//! let device = Device::best();
//! let logits = Tensor::from_vec(vec![2.0f32, 1.0, 0.1, 0.5, 2.5, 0.0], &[2, 3])?;
//! let target = TensorRef::new(&[0i64, 1], &[2])?;
//! let loss = CrossEntropy::default().label_smoothing(0.1);
//! let result = loss.forward_backward(&device, logits, target, 1.0)?; // consumes the logits
//! println!("{} {:?}", result.output.loss.item()?, result.grad_logits.as_slice::<f32>());
//! # Ok::<(), warploss::Error>(())
//! ```
//!
//! | a trainer has | and calls |
//! |---|---|
//! | a `Vec` that it lends for good | [`Tensor::from_vec`]; [`Tensor::into_vec`] gives it back, uncopied |
//! | a slice, rows padded or not | [`TensorRef::new`], [`TensorRef::with_row_stride`], [`TensorRef::with_strides`] |
//! | one number | [`TensorRef::scalar`], [`TensorMut::scalar`] |
//! | another library's tensor: dtype, address, shape, strides | [`TensorRef::from_raw_parts`], [`TensorMut::from_raw_parts`] |
//! | bytes, as of a file | [`TensorRef::from_bytes`]; [`Tensor::copy_bytes`] at any address |
//! | elements that lie apart | [`Tensor::copy_strided`], [`Tensor::copy_raw_parts`] |
//! | an array of `ndarray`, a view of safetensors (features of those names) | `TensorRef::try_from`; `Tensor::try_from` copies |
//! | memory of a CUDA device | [`TensorRef::from_device`], [`Device::upload`] |

pub mod balance;
mod base;
mod best;
pub mod check;
#[cfg(gpu)]
mod code;
mod cpu;
#[cfg(gpu)]
mod cuda;
mod device;
#[cfg(feature = "emulator")]
pub mod emulator;
mod loss;
pub mod measure;
pub mod planner;
mod spec;

#[cfg(feature = "cli")]
pub mod cli;

pub use base::dtype::DType;
pub use base::error::{Error, IoError, Result};
pub use base::host::{Element, Float, Index};
pub use base::reduction::Reduction;
pub use base::shape::{MAX_RANK, Shape};
pub use base::tensor::buffer::DeviceMemory;
pub use base::tensor::{Tensor, TensorMut, TensorRef};
#[cfg(feature = "emulator")]
#[doc(hidden)]
pub use cuda::emulated::graph::Graph;
pub use device::Device;
pub use device::facts::{CpuInfo, DriverCalls};
pub use half::{bf16, f16};
pub use loss::information;
pub use loss::output_layer::OutputLayer;
pub use loss::ranks::topk_accuracy;
pub use spec::adaptive_embedding::{AdaptiveEmbedding, AdaptiveEmbeddingParameters};
pub use spec::adaptive_log_softmax::{
    AdaptiveLogSoftmax, AdaptiveParameters, AdaptiveTail, ClassOrder,
};
pub use spec::bce::{Bce, BceLoss};
pub use spec::bce_with_logits::{BceWithLogits, BceWithLogitsLoss};
pub use spec::class_subset::{ClassSubset, MissingTarget, Rest};
pub use spec::cross_entropy::{
    CrossEntropy, CrossEntropyGrad, CrossEntropyGradients, CrossEntropyOut, CrossEntropyOutput,
    CrossEntropyUpstream, TopKOut,
};
pub use spec::divergence::Divergence;
pub use spec::elementwise::{Elementwise, ElementwiseGrad, ElementwiseGradOut, Wrt};
pub use spec::gaussian_nll::{GaussianNll, GaussianNllLoss};
pub use spec::grad_output::GradOutput;
pub use spec::hinge_embedding::{HingeEmbedding, HingeEmbeddingLoss};
pub use spec::huber::{Huber, HuberLoss};
pub use spec::js_div::{JsDiv, JsDivLoss};
pub use spec::js_div_logits::{JsDivLogits, JsDivLogitsGrad, JsDivLogitsGradOut};
pub use spec::kl_div::{KlDiv, KlDivLoss};
pub use spec::l1::{L1, L1Loss};
pub use spec::linear_cross_entropy::{
    LinearCrossEntropy, LinearGrad, LinearGradOut, LinearInput, LinearOutputs, LinearPath,
    LinearPlan,
};
pub use spec::linear_distillation::{
    DistillationGrad, DistillationGradOut, DistillationInput, LinearDistillation, LinearHead,
};
pub use spec::linear_logprob_entropy::{LinearLogprobEntropy, LinearLogprobEntropyGrad};
pub use spec::log_softmax::LogSoftmax;
pub use spec::logprob_entropy::{
    LogprobEntropy, LogprobEntropyGrad, LogprobEntropyOut, LogprobEntropyOutput,
    LogprobEntropyUpstream,
};
pub use spec::logsumexp::LogSumExp;
pub use spec::mse::{Mse, MseLoss};
pub use spec::multi_margin::{MultiMargin, MultiMarginGrad};
pub use spec::nll::{Nll, NllGrad};
pub use spec::output_layer::{LayerGrad, LayerGradOut, LayerOut, LayerOutput};
pub use spec::poisson_nll::{PoissonNll, PoissonNllLoss};
pub use spec::ranks::{Ranks, TopkAccuracy};
pub use spec::row_state::{RowState, Vocabulary};
pub use spec::sampled_softmax::{NegativeSampler, SampledParameters, SampledSoftmax};
pub use spec::sigmoid_focal::{SigmoidFocal, SigmoidFocalLoss};
pub use spec::smooth_l1::{SmoothL1, SmoothL1Loss};
pub use spec::soft_margin::{SoftMargin, SoftMarginLoss};
pub use spec::subset_cross_entropy::{SubsetCrossEntropy, SubsetGrad, SubsetGradOut, SubsetInput};
pub use spec::weight::Weight;

/// The README's example, compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
