//! Candle's memory as the library sees it: lent where it lies, and made anew for results.

use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, DType, Device, Layout, Result, Shape, Storage, StorageRef, Tensor};
use half::{bf16, f16};
use warploss::{TensorMut, TensorRef};

/// The library's errors in candle's type, with the library's words.
pub(crate) fn told(error: warploss::Error) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

/// A tensor's storage, locked for reading.
pub(crate) struct Lent<'t> {
    storage: StorageRef<'t>,
    layout: &'t Layout,
}

/// A tensor that is as views have it: its rows in one piece each. A copy, which candle's graph knows of, of any other.
pub(crate) fn in_rows(tensor: &Tensor) -> Result<Tensor> {
    let (shape, strides) = (tensor.dims(), tensor.stride());
    let mut inner = 1;
    for (&size, &stride) in shape.iter().zip(strides).skip(1).rev() {
        if size > 1 && stride != inner {
            return tensor.contiguous();
        }
        inner *= size;
    }
    match (shape.first(), strides.first()) {
        (Some(&rows), Some(&stride)) if rows > 1 && stride < inner => tensor.contiguous(),
        _ => Ok(tensor.clone()),
    }
}

impl<'t> Lent<'t> {
    pub(crate) fn new(tensor: &'t Tensor) -> Lent<'t> {
        let (storage, layout) = tensor.storage_and_layout();
        Lent { storage, layout }
    }

    /// The part of the storage that is the tensor's.
    pub(crate) fn part(&self, argument: &'static str) -> Result<Part<'_>> {
        part(&self.storage, self.layout, argument)
    }
}

/// Rows of a storage.
pub(crate) enum Part<'s> {
    Host(TensorRef<'s>),
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::Part<'s>),
}

impl Part<'_> {
    pub(crate) fn view(&self) -> Result<TensorRef<'_>> {
        match self {
            Part::Host(view) => Ok(*view),
            #[cfg(feature = "cuda")]
            Part::Cuda(part) => part.view(),
        }
    }
}

fn part<'s>(storage: &'s Storage, layout: &Layout, argument: &'static str) -> Result<Part<'s>> {
    match storage {
        Storage::Cpu(storage) => host(storage, layout, argument).map(Part::Host),
        #[cfg(feature = "cuda")]
        Storage::Cuda(storage) => crate::cuda::part(storage, layout, argument).map(Part::Cuda),
        #[cfg(not(feature = "cuda"))]
        Storage::Cuda(_) => candle_core::bail!("{argument}: this build has no feature `cuda`"),
        Storage::Metal(_) => candle_core::bail!("{argument}: expected cpu or cuda, got metal"),
    }
}

/// The distance of rows, of a layout whose rows are in one piece each ([`in_rows`]).
pub(crate) fn row_stride(layout: &Layout) -> usize {
    let inner = layout.dims().iter().skip(1).product();
    match (layout.dims(), layout.stride()) {
        ([rows, ..], [stride, ..]) if *rows > 1 => *stride,
        _ => inner,
    }
}

/// A dtype that the library has no elements of.
pub(crate) fn foreign<T>(argument: &'static str, dtype: DType) -> Result<T> {
    candle_core::bail!(
        "{argument}: expected dtype f32, f16 or bf16 (classes: i64, i32, u32 or u8), got {dtype:?}"
    )
}

fn host<'s>(
    storage: &'s CpuStorage,
    layout: &Layout,
    argument: &'static str,
) -> Result<TensorRef<'s>> {
    fn view<'s, T: warploss::Element>(data: &'s [T], layout: &Layout) -> Result<TensorRef<'s>> {
        let data = data.get(layout.start_offset()..).unwrap_or(&[]);
        TensorRef::with_row_stride(data, layout.dims(), row_stride(layout)).map_err(told)
    }
    match storage {
        CpuStorage::F32(data) => view(data, layout),
        CpuStorage::F16(data) => view(data, layout),
        CpuStorage::BF16(data) => view(data, layout),
        CpuStorage::I64(data) => view(data, layout),
        CpuStorage::I32(data) => view(data, layout),
        CpuStorage::U32(data) => view(data, layout),
        CpuStorage::U8(data) => view(data, layout),
        _ => foreign(argument, dtype_of(storage)),
    }
}

fn dtype_of(storage: &CpuStorage) -> DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}

/// Host memory to be written in place.
pub(crate) fn host_mut<'s>(
    storage: &'s mut CpuStorage,
    layout: &Layout,
    argument: &'static str,
) -> Result<TensorMut<'s>> {
    fn view<'s, T: warploss::Element>(data: &'s mut [T], layout: &Layout) -> Result<TensorMut<'s>> {
        let data = data.get_mut(layout.start_offset()..).unwrap_or(&mut []);
        TensorMut::with_row_stride(data, layout.dims(), row_stride(layout)).map_err(told)
    }
    match storage {
        CpuStorage::F32(data) => view(data, layout),
        CpuStorage::F16(data) => view(data, layout),
        CpuStorage::BF16(data) => view(data, layout),
        other => foreign(argument, dtype_of(other)),
    }
}

/// Memory for a result, on the device of what it comes from.
pub(crate) struct Made {
    shape: Vec<usize>,
    memory: Memory,
}

enum Memory {
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    I64(Vec<i64>),
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::Made),
}

impl Made {
    pub(crate) fn new(device: &Device, dtype: DType, shape: &[usize]) -> Result<Made> {
        let n = shape.iter().product();
        let memory = match (device, dtype) {
            (Device::Cpu, DType::F32) => Memory::F32(vec![0.0; n]),
            (Device::Cpu, DType::F16) => Memory::F16(vec![f16::ZERO; n]),
            (Device::Cpu, DType::BF16) => Memory::BF16(vec![bf16::ZERO; n]),
            (Device::Cpu, DType::I64) => Memory::I64(vec![0; n]),
            #[cfg(feature = "cuda")]
            (Device::Cuda(device), dtype) => {
                Memory::Cuda(crate::cuda::Made::new(device, dtype, n)?)
            }
            (Device::Cpu, dtype) => return foreign("result", dtype),
            (device, _) => {
                candle_core::bail!(
                    "result: expected a cpu or cuda device, got {:?}",
                    device.location()
                )
            }
        };
        Ok(Made { shape: shape.to_vec(), memory })
    }

    /// A result that is shaped as the tensor, of its dtype and on its device.
    pub(crate) fn like(tensor: &Tensor) -> Result<Made> {
        Made::new(tensor.device(), tensor.dtype(), tensor.dims())
    }

    pub(crate) fn view_mut(&mut self) -> Result<TensorMut<'_>> {
        let shape = &self.shape[..];
        match &mut self.memory {
            Memory::F32(data) => TensorMut::new(data, shape),
            Memory::F16(data) => TensorMut::new(data, shape),
            Memory::BF16(data) => TensorMut::new(data, shape),
            Memory::I64(data) => TensorMut::new(data, shape),
            #[cfg(feature = "cuda")]
            Memory::Cuda(made) => made.view_mut(shape),
        }
        .map_err(told)
    }

    fn storage(self) -> (Storage, Shape) {
        let storage = match self.memory {
            Memory::F32(data) => Storage::Cpu(CpuStorage::F32(data)),
            Memory::F16(data) => Storage::Cpu(CpuStorage::F16(data)),
            Memory::BF16(data) => Storage::Cpu(CpuStorage::BF16(data)),
            Memory::I64(data) => Storage::Cpu(CpuStorage::I64(data)),
            #[cfg(feature = "cuda")]
            Memory::Cuda(made) => Storage::Cuda(made.storage()),
        };
        (storage, Shape::from(self.shape))
    }

    /// The result as a tensor that no graph knows of.
    pub(crate) fn tensor(self) -> Tensor {
        let (storage, shape) = self.storage();
        Tensor::from_storage(storage, shape, BackpropOp::none(), false)
    }
}

/// The library's device for candle's: its own stream, on a GPU.
pub(crate) fn device(of: &Device) -> Result<warploss::Device> {
    match of {
        Device::Cpu => Ok(warploss::Device::cpu()),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => crate::cuda::device(device),
        other => candle_core::bail!("device: expected cpu or cuda, got {:?}", other.location()),
    }
}

/// Binds a view of a tensor's memory, which is locked for reading from here to the end of the block.
macro_rules! lend {
    ($view:ident = $tensor:expr, $argument:expr) => {
        let lent = $crate::memory::Lent::new($tensor);
        let part = lent.part($argument)?;
        let $view = part.view()?;
    };
}

/// The same of a tensor that there may be.
macro_rules! lend_some {
    ($view:ident = $tensor:expr, $argument:expr) => {
        let lent = $tensor.as_ref().map($crate::memory::Lent::new);
        let part = lent.as_ref().map(|lent| lent.part($argument)).transpose()?;
        let $view = part.as_ref().map($crate::memory::Part::view).transpose()?;
    };
}

pub(crate) use {lend, lend_some};
