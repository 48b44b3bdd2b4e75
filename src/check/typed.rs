//! Tensors whose dtype is known only at run time: strided views of them, and their making.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::host::{HostMut, HostRef};
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use half::{bf16, f16};

/// A view of host data; see [`TensorRef::with_row_stride`].
pub(crate) fn view<'a>(host: HostRef<'a>, shape: &[usize], stride: usize) -> Result<TensorRef<'a>> {
    match host {
        HostRef::F32(s) => TensorRef::with_row_stride(s, shape, stride),
        HostRef::F16(s) => TensorRef::with_row_stride(s, shape, stride),
        HostRef::BF16(s) => TensorRef::with_row_stride(s, shape, stride),
        HostRef::I64(s) => TensorRef::with_row_stride(s, shape, stride),
        HostRef::I32(s) => TensorRef::with_row_stride(s, shape, stride),
        HostRef::U32(s) => TensorRef::with_row_stride(s, shape, stride),
        HostRef::U8(s) => TensorRef::with_row_stride(s, shape, stride),
    }
}

/// A view of an owned tensor's elements in another shape and stride.
pub(crate) fn strided<'a>(
    tensor: &'a Tensor,
    shape: &[usize],
    stride: usize,
) -> Result<TensorRef<'a>> {
    let host = tensor.view().host_data().ok_or(not_on_host())?;
    view(host, shape, stride)
}

/// As [`strided`], to be written.
pub(crate) fn strided_mut<'a>(
    tensor: &'a mut Tensor,
    shape: &[usize],
    stride: usize,
) -> Result<TensorMut<'a>> {
    match tensor.view_mut().into_host_data().ok_or(not_on_host())? {
        HostMut::F32(s) => TensorMut::with_row_stride(s, shape, stride),
        HostMut::F16(s) => TensorMut::with_row_stride(s, shape, stride),
        HostMut::BF16(s) => TensorMut::with_row_stride(s, shape, stride),
        HostMut::I64(s) => TensorMut::with_row_stride(s, shape, stride),
        HostMut::I32(s) => TensorMut::with_row_stride(s, shape, stride),
        HostMut::U32(s) => TensorMut::with_row_stride(s, shape, stride),
        HostMut::U8(s) => TensorMut::with_row_stride(s, shape, stride),
    }
}

/// A contiguous tensor of the values, each rounded to `dtype`.
pub(crate) fn tensor(dtype: DType, shape: &[usize], values: &[f64]) -> Result<Tensor> {
    macro_rules! make {
        ($convert:expr) => {
            Tensor::from_vec(values.iter().map($convert).collect(), shape)
        };
    }
    match dtype {
        DType::F32 => make!(|&v| v as f32),
        DType::F16 => make!(|&v| f16::from_f64(v)),
        DType::BF16 => make!(|&v| bf16::from_f64(v)),
        DType::I64 => make!(|&v| v as i64),
        DType::I32 => make!(|&v| v as i32),
        DType::U32 => make!(|&v| v as u32),
        DType::U8 => make!(|&v| v as u8),
    }
}

fn not_on_host() -> Error {
    Error::Place { argument: "tensor", expected: "host", got: "device" }
}
