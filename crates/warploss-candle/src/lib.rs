//! The losses of [`warploss`] over candle's tensors, with candle's backward.
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//! let logits = Var::new(&[[2.0f32, 1.0, 0.1], [0.5, 2.5, 0.0]], &Device::Cpu)?;
//! let target = Tensor::new(&[0u32, 1], &Device::Cpu)?;
//! // In place of candle_nn::loss::cross_entropy.
//! let loss = warploss_candle::loss::cross_entropy(&logits, &target)?;
//! loss.backward()?;
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! Tensors are taken where they lie: host memory of CPU tensors, and device memory of CUDA tensors on their own stream
//! (feature `cuda`). What is neither contiguous nor rows at a distance is copied first, by candle and in its graph.
//!
//! What candle does with gradients costs more than making them, where they are as large as logits: its `backward` adds
//! each to zeros. [`LinearCrossEntropyLoss`] has no gradient as large as the logits, and is the one to choose.
#![warn(missing_docs)]

mod adaptive;
mod cross_entropy;
#[cfg(feature = "cuda")]
mod cuda;
mod graph;
mod linear;
mod linear_cross_entropy;
mod linear_distillation;
mod linear_logprob_entropy;
pub mod loss;
mod memory;
pub mod nn;

pub use cross_entropy::CrossEntropyLoss;
pub use linear::{LinearArgs, LinearSide};
pub use linear_cross_entropy::LinearCrossEntropyLoss;
pub use linear_distillation::LinearDistillationLoss;
pub use linear_logprob_entropy::LinearLogprobEntropyOp;
pub use warploss;

/// The README's example, compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
