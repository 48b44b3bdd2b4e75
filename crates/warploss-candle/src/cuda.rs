//! Candle's CUDA memory as the library sees it, on the tensor's own stream.

use crate::memory::{foreign, row_stride, told};
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::cuda_backend::{CudaDType, CudaStorageSlice};
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result};
use half::{bf16, f16};
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};
use warploss::{TensorMut, TensorRef};

/// Rows of a storage.
pub(crate) struct Part<'s> {
    memory: Views<'s>,
    shape: Vec<usize>,
    row_stride: usize,
}

enum Views<'s> {
    F32(CudaView<'s, f32>),
    F16(CudaView<'s, f16>),
    BF16(CudaView<'s, bf16>),
    I64(CudaView<'s, i64>),
    I32(CudaView<'s, i32>),
    U32(CudaView<'s, u32>),
    U8(CudaView<'s, u8>),
}

pub(crate) fn part<'s>(
    storage: &'s CudaStorage,
    layout: &Layout,
    argument: &'static str,
) -> Result<Part<'s>> {
    let from = layout.start_offset()..;
    let memory = match &storage.slice {
        CudaStorageSlice::F32(slice) => Views::F32(slice.slice(from)),
        CudaStorageSlice::F16(slice) => Views::F16(slice.slice(from)),
        CudaStorageSlice::BF16(slice) => Views::BF16(slice.slice(from)),
        CudaStorageSlice::I64(slice) => Views::I64(slice.slice(from)),
        CudaStorageSlice::I32(slice) => Views::I32(slice.slice(from)),
        CudaStorageSlice::U32(slice) => Views::U32(slice.slice(from)),
        CudaStorageSlice::U8(slice) => Views::U8(slice.slice(from)),
        _ => return foreign(argument, storage.dtype()),
    };
    Ok(Part { memory, shape: layout.dims().to_vec(), row_stride: row_stride(layout) })
}

impl Part<'_> {
    pub(crate) fn view(&self) -> Result<TensorRef<'_>> {
        let (shape, stride) = (&self.shape[..], self.row_stride);
        match &self.memory {
            Views::F32(view) => TensorRef::from_cuda_view_with_row_stride(view, shape, stride),
            Views::F16(view) => TensorRef::from_cuda_view_with_row_stride(view, shape, stride),
            Views::BF16(view) => TensorRef::from_cuda_view_with_row_stride(view, shape, stride),
            Views::I64(view) => TensorRef::from_cuda_view_with_row_stride(view, shape, stride),
            Views::I32(view) => TensorRef::from_cuda_view_with_row_stride(view, shape, stride),
            Views::U32(view) => TensorRef::from_cuda_view_with_row_stride(view, shape, stride),
            Views::U8(view) => TensorRef::from_cuda_view_with_row_stride(view, shape, stride),
        }
        .map_err(told)
    }
}

/// Calls `work` with rows that are written in place.
pub(crate) fn with_mut(
    storage: &mut CudaStorage,
    layout: &Layout,
    argument: &'static str,
    work: impl FnOnce(TensorMut<'_>) -> Result<()>,
) -> Result<()> {
    fn rows<T: warploss::Element>(
        slice: &mut CudaSlice<T>,
        layout: &Layout,
        work: impl FnOnce(TensorMut<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut view = slice.slice_mut(layout.start_offset()..);
        let stride = row_stride(layout);
        let rows = TensorMut::from_cuda_view_with_row_stride(&mut view, layout.dims(), stride);
        work(rows.map_err(told)?)
    }
    let dtype = storage.dtype();
    match &mut storage.slice {
        CudaStorageSlice::F32(slice) => rows(slice, layout, work),
        CudaStorageSlice::F16(slice) => rows(slice, layout, work),
        CudaStorageSlice::BF16(slice) => rows(slice, layout, work),
        _ => foreign(argument, dtype),
    }
}

/// Memory for a result.
pub(crate) struct Made {
    device: CudaDevice,
    memory: Slices,
}

enum Slices {
    F32(CudaSlice<f32>),
    F16(CudaSlice<f16>),
    BF16(CudaSlice<bf16>),
    I64(CudaSlice<i64>),
}

impl Made {
    pub(crate) fn new(device: &CudaDevice, dtype: DType, n: usize) -> Result<Made> {
        // An allocation of nothing is an error of the driver.
        let n = n.max(1);
        let memory = match dtype {
            DType::F32 => Slices::F32(device.alloc_zeros(n)?),
            DType::F16 => Slices::F16(device.alloc_zeros(n)?),
            DType::BF16 => Slices::BF16(device.alloc_zeros(n)?),
            DType::I64 => Slices::I64(device.alloc_zeros(n)?),
            dtype => return foreign("result", dtype),
        };
        Ok(Made { device: device.clone(), memory })
    }

    pub(crate) fn view_mut(&mut self, shape: &[usize]) -> warploss::Result<TensorMut<'_>> {
        match &mut self.memory {
            Slices::F32(slice) => TensorMut::from_cuda_slice(slice, shape),
            Slices::F16(slice) => TensorMut::from_cuda_slice(slice, shape),
            Slices::BF16(slice) => TensorMut::from_cuda_slice(slice, shape),
            Slices::I64(slice) => TensorMut::from_cuda_slice(slice, shape),
        }
    }

    pub(crate) fn storage(self) -> CudaStorage {
        match self.memory {
            Slices::F32(slice) => f32::wrap_cuda_slice(slice, self.device),
            Slices::F16(slice) => f16::wrap_cuda_slice(slice, self.device),
            Slices::BF16(slice) => bf16::wrap_cuda_slice(slice, self.device),
            Slices::I64(slice) => i64::wrap_cuda_slice(slice, self.device),
        }
    }
}

/// The library's device on a candle device's stream: one for each stream, made at the first call.
pub(crate) fn device(of: &CudaDevice) -> Result<warploss::Device> {
    static DEVICES: OnceLock<Mutex<HashMap<usize, warploss::Device>>> = OnceLock::new();
    let stream = of.cuda_stream();
    // A device holds its stream, so that no other can come to be at its address.
    let key = std::sync::Arc::as_ptr(&stream).addr();
    let Ok(mut devices) = DEVICES.get_or_init(Mutex::default).lock() else {
        candle_core::bail!("device: making another one panicked")
    };
    if let Some(device) = devices.get(&key) {
        return Ok(device.clone());
    }
    let device = warploss::Device::on_stream(stream).map_err(told)?;
    devices.insert(key, device.clone());
    Ok(device)
}
