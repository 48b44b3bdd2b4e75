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

use super::check;
use crate::device::{Device, on_device};
use crate::dtype::{DType, Element as _};
use crate::error::Result;
use crate::shape::Shape;
use crate::tensor::{Tensor, TensorRef};

/// H(p), one a row.
///
/// # Errors
/// A shape or dtype that breaks the rules above; out of memory.
pub fn entropy(device: &Device, p: TensorRef<'_>) -> Result<Tensor> {
    of(device, p, p, Information { of_p: -1.0, of_q: 0.0 })
}

/// H(p, q), one a row.
///
/// # Errors
/// As [`entropy`]; a shape or dtype of `q` that is not that of `p`.
pub fn cross_entropy(device: &Device, p: TensorRef<'_>, q: TensorRef<'_>) -> Result<Tensor> {
    of(device, p, q, Information { of_p: 0.0, of_q: -1.0 })
}

/// KL(p‖q), one a row.
///
/// # Errors
/// As [`cross_entropy`].
pub fn kl_divergence(device: &Device, p: TensorRef<'_>, q: TensorRef<'_>) -> Result<Tensor> {
    of(device, p, q, Information { of_p: 1.0, of_q: -1.0 })
}

/// A sum of p·(of_p·ln p + of_q·ln q).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Information {
    pub(crate) of_p: f32,
    pub(crate) of_q: f32,
}

/// Inputs that have passed the checks: no other function makes one.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(any(feature = "cuda", feature = "emulator")), allow(dead_code))] // A device's.
pub(crate) struct CheckedInformation {
    pub(crate) what: Information,
    pub(crate) dtype: DType,
    /// The dimension of classes: 0 or 1.
    pub(crate) class_dim: usize,
    /// The shape of what has one value a row.
    pub(crate) rows: Shape,
}

fn of(device: &Device, p: TensorRef<'_>, q: TensorRef<'_>, what: Information) -> Result<Tensor> {
    check::float("p", &p)?;
    let (class_dim, rows) = check::classes("p", p.shape())?;
    check::shape("q", &q, p.shape(), "that of p")?;
    check::dtype("q", &q, &[p.dtype()], "that of p")?;
    let checked = CheckedInformation { what, dtype: p.dtype(), class_dim, rows };
    let mut result = device.zeros("result", f32::DTYPE, rows, &p)?;
    let out = result.view_mut();
    on_device!(device, "p", [p.place(), q.place(), out.place()], on => {
        on.information(checked, p, q, out)
    })?;
    Ok(result)
}
