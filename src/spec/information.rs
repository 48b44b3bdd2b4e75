//! Entropy, cross entropy and Kullback–Leibler divergence of distributions that are given as
//! probabilities: numbers to look at, one a row, in nats.
//!
//! ```text
//! H(p) = −Σ p·ln p     H(p, q) = −Σ p·ln q     KL(p‖q) = Σ p·(ln p − ln q)
//! ```
//!
//! so that H(p, q) = H(p) + KL(p‖q). A class with p = 0 adds 0, whatever q is; one with p > 0 = q
//! makes the result +∞. Nothing is normalised, and what is below 0 or NaN gives NaN.
//!
//! | tensor | shape | dtype |
//! |---|---|---|
//! | p, q | `[C]`, `[N, C]` or `[N, C, d1, …]`, both the same, row strides free | f32, f16, bf16, both the same |
//! | result | `[]`, `[N]`, `[N, d1, …]` | f32 |
//!
//! These are functions, not losses: for gradients see [`CrossEntropy`](crate::CrossEntropy) (from
//! logits) and [`KlDiv`](crate::KlDiv) (from log-probabilities).
//!
//! ```
//! use warploss::{Device, TensorRef, information};
//! let device = Device::best();
//! let (p, q) = ([0.5f32, 0.5, 0.0], [0.25f32, 0.25, 0.5]);
//! let (p, q) = (TensorRef::new(&p, &[3])?, TensorRef::new(&q, &[3])?);
//! let h = information::entropy(&device, p)?.item()?;
//! let kl = information::kl_divergence(&device, p, q)?.item()?;
//! let cross = information::cross_entropy(&device, p, q)?.item()?;
//! assert!((h - 2f32.ln()).abs() < 1e-6 && (cross - (h + kl)).abs() < 1e-6);
//! # Ok::<(), warploss::Error>(())
//! ```

use crate::base::dtype::DType;
use crate::base::shape::Shape;
use crate::base::tensor::{TensorMut, TensorRef};

/// A sum of p·(of_p·ln p + of_q·ln q).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Information {
    pub(crate) of_p: f32,
    pub(crate) of_q: f32,
}

/// Inputs that have passed the checks: no other function makes one.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(gpu), allow(dead_code))] // A device's.
pub(crate) struct CheckedInformation {
    pub(crate) what: Information,
    pub(crate) dtype: DType,
    /// The dimension of classes: 0 or 1.
    pub(crate) class_dim: usize,
    /// The shape of what has one value a row.
    pub(crate) rows: Shape,
}

/// A call that has passed the checks, with everything that it reads and writes.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) p: TensorRef<'a>,
    pub(crate) q: TensorRef<'a>,
    /// One number a row, f32.
    pub(crate) output: TensorMut<'a>,
}
