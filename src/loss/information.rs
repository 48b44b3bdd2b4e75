//! The public calls of this loss; what it computes: `spec/information.rs`.

use crate::base::error::Result;
use crate::base::host::Element as _;
use crate::base::tensor::{Tensor, TensorRef};
use crate::base::validate;
use crate::device::Device;
use crate::spec::information::{Call, CheckedInformation, Information};

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

fn of(device: &Device, p: TensorRef<'_>, q: TensorRef<'_>, what: Information) -> Result<Tensor> {
    validate::float("p", &p)?;
    let (class_dim, rows) = validate::classes("p", p.shape())?;
    validate::shape("q", &q, p.shape(), "that of p")?;
    validate::dtype("q", &q, &[p.dtype()], "that of p")?;
    let checked = CheckedInformation { what, dtype: p.dtype(), class_dim, rows };
    let mut result = device.zeros("result", f32::DTYPE, rows, &p)?;
    let out = result.view_mut();
    device
        .backend("p", &[p.place(), q.place(), out.place()])?
        .information(checked, Call { p, q, output: out })?;
    Ok(result)
}
