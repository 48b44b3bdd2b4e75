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

pub mod balance;
mod cpu;
#[cfg(any(feature = "cuda", feature = "emulator"))]
mod cuda;
mod device;
mod dtype;
#[cfg(feature = "emulator")]
pub mod emulator;
mod error;
#[cfg(feature = "safetensors")]
mod file;
mod loss;
pub mod measure;
mod memory;
mod place;
pub mod planner;
mod random;
mod reduction;
mod shape;
#[cfg(feature = "safetensors")]
mod sniff;
mod tensor;

#[cfg(feature = "cli")]
pub mod check;
#[cfg(feature = "cli")]
pub mod cli;

pub use device::{CpuInfo, Device, DriverCalls};
pub use dtype::{DType, Element, Float, Index};
pub use error::{Error, Result};
pub use half::{bf16, f16};
pub use loss::information;
pub use loss::{
    AdaptiveEmbedding, AdaptiveEmbeddingParameters, AdaptiveLogSoftmax, AdaptiveParameters,
    AdaptiveTail, ClassOrder, LayerGrad, LayerGradOut, LayerOut, LayerOutput, NegativeSampler,
    OutputLayer, SampledParameters, SampledSoftmax,
};
pub use loss::{
    BceWithLogits, BceWithLogitsLoss, Elementwise, ElementwiseGrad, ElementwiseGradOut, Huber,
    HuberLoss, JsDiv, JsDivLoss, KlDiv, KlDivLoss, L1, L1Loss, Mse, MseLoss, SmoothL1,
    SmoothL1Loss, Wrt,
};
pub use loss::{
    CrossEntropy, CrossEntropyGrad, CrossEntropyGradients, CrossEntropyOut, CrossEntropyOutput,
    GradOutput, JsDivLogits, JsDivLogitsGrad, JsDivLogitsGradOut, LogSoftmax, LogSumExp, Nll,
    NllGrad,
};
pub use loss::{
    LogprobEntropy, LogprobEntropyGrad, LogprobEntropyOut, LogprobEntropyOutput,
    LogprobEntropyUpstream, Ranks, TopkAccuracy, topk_accuracy,
};
pub use place::DeviceMemory;
pub use reduction::Reduction;
pub use shape::{MAX_RANK, Shape};
pub use tensor::{Tensor, TensorMut, TensorRef};

/// The README's example, compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
