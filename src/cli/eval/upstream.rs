//! The upstream gradient of an op whose result has a shape: a tensor, or one number spread out.

use super::call::zeros;
use crate::base::dtype::DType;
use crate::base::host::{Float, HostMut};
use crate::base::tensor::{Tensor, TensorRef};
use crate::cli::failure::Failure;
use crate::cli::file::Input;

/// The result that the upstream gradient belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Like<'a> {
    /// The shape that a tensor of the file must have.
    pub(super) stored: &'a [usize],
    /// Its part without padding.
    pub(super) used: &'a [usize],
    /// Dtype to spread a 1 in, where the file has nothing.
    pub(super) dtype: DType,
}

impl Like<'_> {
    /// A view of `grad_output`, or of `filled`, which then holds one number everywhere.
    pub(super) fn upstream<'a>(
        &self,
        grad_output: Option<&'a Input<'_>>,
        filled: &'a mut Option<Tensor>,
    ) -> Result<TensorRef<'a>, Failure> {
        let (value, dtype) = match grad_output {
            None => (1.0, self.dtype),
            Some(tensor) if tensor.shape() == self.stored => return tensor.view_as(self.used),
            Some(tensor) if tensor.elements() == 1 && tensor.dtype().is_float() => {
                (tensor.host().float(0), tensor.dtype())
            }
            Some(tensor) => {
                return Err(Failure::input(format!(
                    "{}: expected {:?} (the result's shape) or one number, got {} {:?}",
                    tensor.name(),
                    self.stored,
                    tensor.dtype(),
                    tensor.shape()
                )));
            }
        };
        let tensor = filled.insert(zeros("grad_output", dtype, self.used)?);
        fill(tensor, value);
        Ok(tensor.view())
    }
}

/// Sets every element of a float tensor.
pub(super) fn fill(tensor: &mut Tensor, value: f32) {
    fill_by(tensor, |_| value);
}

/// Sets the elements of a float tensor, each by its number.
pub(super) fn fill_by(tensor: &mut Tensor, value: impl Fn(usize) -> f32) {
    fn each<T: Float>(elements: &mut [T], value: impl Fn(usize) -> f32) {
        elements.iter_mut().enumerate().for_each(|(i, x)| *x = T::from_f32(value(i)));
    }
    match tensor.view_mut().into_host_data() {
        Some(HostMut::F32(s)) => each(s, value),
        Some(HostMut::F16(s)) => each(s, value),
        Some(HostMut::BF16(s)) => each(s, value),
        // Gradients and log-probabilities are floats.
        Some(HostMut::I64(_) | HostMut::I32(_) | HostMut::U32(_) | HostMut::U8(_)) | None => {}
    }
}
