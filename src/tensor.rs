//! Views of the caller's memory, and the owned results of allocating calls.
//!
//! A view is a shape, a row stride and memory that is checked to hold them, here and nowhere else:
//! once a [`TensorRef`] or [`TensorMut`] exists, every element it names lies inside its buffer.
//! "Row" means an index of dimension 0: all other dimensions are contiguous, and rows begin
//! `row_stride` elements apart, so that a padded vocabulary needs no copy.

use crate::dtype::Element;
use crate::memory::{HostMut, HostRef, HostVec};
use crate::place::{DeviceMemory, DeviceMut, DeviceRef, Resident};
use crate::{DType, Error, Result, Shape};
use half::{bf16, f16};
use std::sync::Arc;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Shared<'a> {
    Host(HostRef<'a>),
    Device(DeviceRef<'a>),
}

#[derive(Debug)]
pub(crate) enum Exclusive<'a> {
    Host(HostMut<'a>),
    Device(DeviceMut<'a>),
}

impl Shared<'_> {
    fn len(&self) -> usize {
        match self {
            Shared::Host(host) => host.len(),
            Shared::Device(device) => device.len(),
        }
    }
    fn dtype(&self) -> DType {
        match self {
            Shared::Host(host) => host.dtype(),
            Shared::Device(device) => device.dtype(),
        }
    }
}

/// Shape and row stride of a view, known to fit its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    shape: Shape,
    row_stride: usize,
}

impl Layout {
    /// Elements of a row.
    fn row(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// The one place where a shape and a stride meet a length.
    fn check(sizes: &[usize], row_stride: Option<usize>, len: usize) -> Result<Layout> {
        let argument = "shape";
        let shape = Shape::new(sizes).ok_or_else(|| Error::Rank {
            argument,
            expected: format!("at most {}", crate::shape::MAX_RANK),
            got: sizes.len(),
        })?;
        let too_large = |got| Error::Stride {
            argument: "row_stride",
            expected: format!("a size of shape {shape} that fits the address space"),
            got,
        };
        let elements = shape.elements().ok_or_else(|| too_large(row_stride.unwrap_or(0)))?;
        let rows = shape.first().copied().unwrap_or(1);
        let row = match shape.get(1..) {
            Some(inner) => inner.iter().product(),
            None => 1,
        };
        let row_stride = row_stride.unwrap_or(row);
        if row_stride < row {
            return Err(Error::Stride {
                argument: "row_stride",
                expected: format!("at least {row}, a row of shape {shape}"),
                got: row_stride,
            });
        }
        let reach = match elements {
            0 => 0,
            _ => (rows - 1)
                .checked_mul(row_stride)
                .and_then(|n| n.checked_add(row))
                .ok_or_else(|| too_large(row_stride))?,
        };
        if reach > len {
            return Err(Error::Length { argument, shape, row_stride, expected: reach, got: len });
        }
        Ok(Layout { shape, row_stride })
    }
}

/// A shared view of a tensor in the caller's memory.
#[derive(Debug, Clone, Copy)]
pub struct TensorRef<'a> {
    memory: Shared<'a>,
    layout: Layout,
}

/// An exclusive view of a tensor in the caller's memory.
#[derive(Debug)]
pub struct TensorMut<'a> {
    memory: Exclusive<'a>,
    layout: Layout,
}

macro_rules! metadata {
    () => {
        /// Type of the elements.
        pub fn dtype(&self) -> DType {
            self.memory_ref().dtype()
        }
        /// Sizes of the dimensions.
        pub fn shape(&self) -> Shape {
            self.layout.shape
        }
        /// Distance between neighbours along dimension 0, in elements.
        pub fn row_stride(&self) -> usize {
            self.layout.row_stride
        }
        /// Number of dimensions.
        pub fn rank(&self) -> usize {
            self.layout.shape.len()
        }
        /// Number of elements, padding not counted.
        pub fn elements(&self) -> usize {
            self.layout.shape.iter().product()
        }
        /// Where the memory lies: `"host"` or `"device"`.
        pub(crate) fn place(&self) -> &'static str {
            match self.memory_ref() {
                Shared::Host(_) => "host",
                Shared::Device(_) => "device",
            }
        }
    };
}

impl<'a> TensorRef<'a> {
    /// A contiguous view of `shape` over the beginning of `data`.
    ///
    /// # Errors
    /// [`Error::Length`] where `data` is too short, [`Error::Rank`] past 8 dimensions.
    pub fn new<T: Element>(data: &'a [T], shape: &[usize]) -> Result<Self> {
        Self::build(Shared::Host(T::host_ref(data)), shape, None)
    }

    /// A view whose rows (indices of dimension 0) begin `row_stride` elements apart.
    ///
    /// # Errors
    /// [`Error::Stride`] where rows would overlap, [`Error::Length`] where `data` is too short.
    pub fn with_row_stride<T: Element>(
        data: &'a [T],
        shape: &[usize],
        row_stride: usize,
    ) -> Result<Self> {
        Self::build(Shared::Host(T::host_ref(data)), shape, Some(row_stride))
    }

    /// A view of CUDA device memory that the caller owns, and orders.
    ///
    /// # Safety
    /// The memory is allocated on that device, holds initialised elements of `dtype` and outlives
    /// `'a`. Work that writes it comes earlier on the stream of the [`crate::Device`] that is
    /// called, or that stream was made to wait for it; and what writes or frees it later waits for
    /// that stream.
    ///
    /// # Errors
    /// As [`TensorRef::with_row_stride`].
    pub unsafe fn from_device(
        memory: DeviceMemory,
        shape: &[usize],
        row_stride: usize,
    ) -> Result<Self> {
        Self::build(Shared::Device(DeviceRef::Raw(memory)), shape, Some(row_stride))
    }

    pub(crate) fn build(
        memory: Shared<'a>,
        shape: &[usize],
        row_stride: Option<usize>,
    ) -> Result<Self> {
        let layout = Layout::check(shape, row_stride, memory.len())?;
        Ok(TensorRef { memory, layout })
    }

    fn memory_ref(&self) -> Shared<'_> {
        self.memory
    }

    metadata!();

    /// The whole host buffer, padding included; `None` for device memory or another type.
    pub fn host<T: Element>(&self) -> Option<&'a [T]> {
        match self.memory {
            Shared::Host(host) => T::from_host(host),
            Shared::Device(_) => None,
        }
    }

    pub(crate) fn host_data(&self) -> Option<HostRef<'a>> {
        match self.memory {
            Shared::Host(host) => Some(host),
            Shared::Device(_) => None,
        }
    }

    #[cfg(any(feature = "cuda", feature = "emulator"))]
    pub(crate) fn memory(&self) -> Shared<'a> {
        self.memory
    }

    /// A copy of host memory, without padding.
    pub(crate) fn to_owned_host(self) -> Result<Tensor> {
        fn copy<T: Element>(tensor: &TensorRef<'_>, from: &[T]) -> Result<Tensor> {
            let (shape, row) = (tensor.shape(), tensor.layout.row());
            let mut copy = Tensor::zeros("tensor", T::DTYPE, shape)?;
            let to = copy.view_mut().into_host::<T>().unwrap_or_default();
            if row > 0 {
                for (i, to) in to.chunks_exact_mut(row).enumerate() {
                    to.copy_from_slice(&from[i * tensor.row_stride()..][..row]);
                }
            }
            Ok(copy)
        }
        let Shared::Host(host) = self.memory else {
            return Err(not_on_host("tensor"));
        };
        crate::memory::each_dtype!(HostRef, host, s => copy(&self, s))
    }

    /// The elements in order, without padding, widened to f64 (an i64 beyond 2^53 is rounded).
    /// Waits for the memory of a tensor on a device.
    ///
    /// # Errors
    /// [`Error::Place`] for other device memory; as [`Tensor::to_host`].
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        let host = match self.memory {
            Shared::Host(host) => host,
            Shared::Device(DeviceRef::Owned(resident)) => {
                return resident.to_host(self.shape(), self.row_stride())?.view().to_f64();
            }
            Shared::Device(DeviceRef::Raw(_) | DeviceRef::Slice(_)) => {
                return Err(not_on_host("tensor"));
            }
        };
        let row = self.elements() / self.shape().first().map_or(1, |&n| n.max(1));
        let rows = self.elements().checked_div(row).unwrap_or(0);
        let at = |i: usize| (i / row) * self.row_stride() + i % row;
        let n = rows * row;
        Ok(match host {
            HostRef::F32(s) => (0..n).map(|i| f64::from(s[at(i)])).collect(),
            HostRef::F16(s) => (0..n).map(|i| s[at(i)].to_f64()).collect(),
            HostRef::BF16(s) => (0..n).map(|i| s[at(i)].to_f64()).collect(),
            HostRef::I64(s) => (0..n).map(|i| s[at(i)] as f64).collect(),
            HostRef::I32(s) => (0..n).map(|i| f64::from(s[at(i)])).collect(),
            HostRef::U32(s) => (0..n).map(|i| f64::from(s[at(i)])).collect(),
            HostRef::U8(s) => (0..n).map(|i| f64::from(s[at(i)])).collect(),
        })
    }
}

fn not_on_host(argument: &'static str) -> Error {
    Error::Place { argument, expected: "host", got: "device" }
}

/// The host memory of a tensor that must lie there.
#[cfg(any(feature = "cuda", feature = "emulator"))]
pub(crate) fn on_host<'a>(argument: &'static str, tensor: &TensorRef<'a>) -> Result<HostRef<'a>> {
    tensor.host_data().ok_or(not_on_host(argument))
}

/// Equal where they name the same memory in the same way; contents are not compared.
impl PartialEq for TensorRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        let same_memory = match (&self.memory, &other.memory) {
            (Shared::Host(a), Shared::Host(b)) => {
                a.address() == b.address() && a.len() == b.len() && a.dtype() == b.dtype()
            }
            (Shared::Device(a), Shared::Device(b)) => a == b,
            _ => false,
        };
        same_memory && self.layout == other.layout
    }
}

impl<'a> TensorMut<'a> {
    /// A contiguous view of `shape` over the beginning of `data`.
    ///
    /// # Errors
    /// As [`TensorRef::new`].
    pub fn new<T: Element>(data: &'a mut [T], shape: &[usize]) -> Result<Self> {
        let layout = Layout::check(shape, None, data.len())?;
        Ok(TensorMut { memory: Exclusive::Host(T::host_mut(data)), layout })
    }

    /// A view whose rows (indices of dimension 0) begin `row_stride` elements apart; what lies
    /// between rows is never written.
    ///
    /// # Errors
    /// As [`TensorRef::with_row_stride`].
    pub fn with_row_stride<T: Element>(
        data: &'a mut [T],
        shape: &[usize],
        row_stride: usize,
    ) -> Result<Self> {
        let layout = Layout::check(shape, Some(row_stride), data.len())?;
        Ok(TensorMut { memory: Exclusive::Host(T::host_mut(data)), layout })
    }

    /// A view of CUDA device memory, as [`TensorRef::from_device`], to be written.
    ///
    /// # Safety
    /// As there, and nobody else touches the memory during `'a`.
    ///
    /// # Errors
    /// As [`TensorRef::with_row_stride`].
    pub unsafe fn from_device(
        memory: DeviceMemory,
        shape: &[usize],
        row_stride: usize,
    ) -> Result<Self> {
        let layout = Layout::check(shape, Some(row_stride), memory.len)?;
        Ok(TensorMut { memory: Exclusive::Device(DeviceMut::Raw(memory)), layout })
    }

    fn memory_ref(&self) -> Shared<'_> {
        match &self.memory {
            Exclusive::Host(host) => Shared::Host(host.as_ref()),
            Exclusive::Device(device) => Shared::Device(device.as_ref()),
        }
    }

    metadata!();

    /// The same view, shared.
    pub fn as_ref(&self) -> TensorRef<'_> {
        TensorRef { memory: self.memory_ref(), layout: self.layout }
    }

    /// The same view for a shorter time.
    pub fn reborrow(&mut self) -> TensorMut<'_> {
        TensorMut {
            memory: match &mut self.memory {
                Exclusive::Host(host) => Exclusive::Host(host.reborrow()),
                Exclusive::Device(device) => Exclusive::Device(device.reborrow()),
            },
            layout: self.layout,
        }
    }

    /// As [`TensorMut::with_row_stride`], over memory of any kind.
    #[cfg(feature = "cuda")]
    pub(crate) fn build(
        memory: Exclusive<'a>,
        shape: &[usize],
        row_stride: Option<usize>,
    ) -> Result<Self> {
        let len = match &memory {
            Exclusive::Host(host) => host.as_ref().len(),
            Exclusive::Device(device) => device.as_ref().len(),
        };
        Ok(TensorMut { layout: Layout::check(shape, row_stride, len)?, memory })
    }

    #[cfg(any(feature = "cuda", feature = "emulator"))]
    pub(crate) fn into_memory(self) -> Exclusive<'a> {
        self.memory
    }

    /// The whole host buffer, padding included; `None` for device memory or another type.
    pub fn into_host<T: Element>(self) -> Option<&'a mut [T]> {
        T::from_host_mut(self.into_host_data()?)
    }

    pub(crate) fn into_host_data(self) -> Option<HostMut<'a>> {
        match self.memory {
            Exclusive::Host(host) => Some(host),
            Exclusive::Device(_) => None,
        }
    }
}

#[derive(Debug, Clone)]
#[cfg_attr(not(any(feature = "cuda", feature = "emulator")), allow(dead_code))] // Never on a device.
enum Owned {
    Host(HostVec),
    /// Shared by clones until one of them is written.
    Device(Arc<Resident>),
}

/// An owned, contiguous tensor: what an allocating call returns, in the memory of its inputs'
/// kind, host or device.
///
/// A tensor on a device is written in the order of the device's stream: the call that returns it
/// does not wait. [`Tensor::to_host`] and [`Tensor::item`] do, and tell errors that kernels found
/// (a bad target) up to there. A clone shares device memory until one of the two is written.
///
/// Tensors on the host are equal where their elements are; on a device, where they share memory.
#[derive(Debug, Clone)]
pub struct Tensor {
    memory: Owned,
    shape: Shape,
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.memory, &other.memory) {
            (Owned::Host(a), Owned::Host(b)) => a == b,
            (Owned::Device(a), Owned::Device(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        same && self.shape == other.shape
    }
}

impl Tensor {
    /// Takes `data` as a contiguous tensor of `shape`.
    ///
    /// # Errors
    /// [`Error::Shape`] where `data` has not exactly the elements of `shape`.
    pub fn from_vec<T: Element>(data: Vec<T>, shape: &[usize]) -> Result<Tensor> {
        let layout = Layout::check(shape, None, data.len())?;
        if layout.shape.elements() != Some(data.len()) {
            return Err(Error::Shape {
                argument: "shape",
                expected: format!("of the {} elements given", data.len()),
                got: layout.shape,
            });
        }
        Ok(Tensor { memory: Owned::Host(T::host_vec(data)), shape: layout.shape })
    }

    /// Zeros of `shape`; memory that cannot be had is an error, not an abort.
    pub(crate) fn zeros(argument: &'static str, dtype: DType, shape: Shape) -> Result<Tensor> {
        fn zeros<T: Element>(argument: &'static str, n: usize) -> Result<HostVec> {
            let mut data: Vec<T> = Vec::new();
            data.try_reserve_exact(n)
                .map_err(|_| Error::no_memory(argument, n.saturating_mul(T::DTYPE.size())))?;
            data.resize(n, T::default());
            Ok(T::host_vec(data))
        }
        let n = shape.elements().unwrap_or(usize::MAX);
        let memory = match dtype {
            DType::F32 => zeros::<f32>(argument, n)?,
            DType::F16 => zeros::<f16>(argument, n)?,
            DType::BF16 => zeros::<bf16>(argument, n)?,
            DType::I64 => zeros::<i64>(argument, n)?,
            DType::I32 => zeros::<i32>(argument, n)?,
            DType::U32 => zeros::<u32>(argument, n)?,
            DType::U8 => zeros::<u8>(argument, n)?,
        };
        Ok(Tensor { memory: Owned::Host(memory), shape })
    }

    /// A tensor on a device.
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    pub(crate) fn resident(memory: Resident, shape: Shape) -> Tensor {
        Tensor { memory: Owned::Device(Arc::new(memory)), shape }
    }

    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        self.shared().dtype()
    }

    /// Sizes of the dimensions.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Whether the elements lie on a device, in its order.
    pub fn is_on_device(&self) -> bool {
        matches!(self.memory, Owned::Device(_))
    }

    fn shared(&self) -> Shared<'_> {
        match &self.memory {
            Owned::Host(host) => Shared::Host(host.as_ref()),
            Owned::Device(resident) => Shared::Device(DeviceRef::Owned(resident)),
        }
    }

    fn exclusive(&mut self) -> Exclusive<'_> {
        match &mut self.memory {
            Owned::Host(host) => Exclusive::Host(host.as_mut()),
            Owned::Device(resident) => Exclusive::Device(DeviceMut::Owned(resident)),
        }
    }

    /// A shared view.
    pub fn view(&self) -> TensorRef<'_> {
        TensorRef { memory: self.shared(), layout: self.layout() }
    }

    /// An exclusive view.
    pub fn view_mut(&mut self) -> TensorMut<'_> {
        let layout = self.layout();
        TensorMut { memory: self.exclusive(), layout }
    }

    /// A shared view of the elements as another shape, rows (indices of dimension 0) beginning
    /// `row_stride` elements apart.
    ///
    /// # Errors
    /// As [`TensorRef::with_row_stride`].
    pub fn view_as(&self, shape: &[usize], row_stride: usize) -> Result<TensorRef<'_>> {
        TensorRef::build(self.shared(), shape, Some(row_stride))
    }

    /// As [`Tensor::view_as`], exclusive; what lies between rows is never written.
    ///
    /// # Errors
    /// As [`TensorRef::with_row_stride`].
    pub fn view_as_mut(&mut self, shape: &[usize], row_stride: usize) -> Result<TensorMut<'_>> {
        let layout = Layout::check(shape, Some(row_stride), self.shared().len())?;
        Ok(TensorMut { memory: self.exclusive(), layout })
    }

    fn layout(&self) -> Layout {
        Layout { shape: self.shape, row_stride: self.shape.iter().skip(1).product() }
    }

    /// The elements, or `None` where they are of another type, or on a device.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        match &self.memory {
            Owned::Host(host) => T::from_host(host.as_ref()),
            Owned::Device(_) => None,
        }
    }

    /// The same elements on the host. Waits for the device that they lie on.
    ///
    /// # Errors
    /// The first error that kernels found on the device's stream since the last such call or
    /// [`crate::Device::check`]: a target out of range, a class weight that is not finite. What
    /// the driver reports; out of memory.
    pub fn to_host(&self) -> Result<Tensor> {
        match &self.memory {
            Owned::Host(_) => Ok(self.clone()),
            Owned::Device(resident) => resident.to_host(self.shape, self.layout().row_stride),
        }
    }

    /// The single number of a one-element f32 tensor. Waits for the device that it lies on.
    ///
    /// # Errors
    /// [`Error::Dtype`] or [`Error::Shape`] where it is not one f32; as [`Tensor::to_host`].
    pub fn item(&self) -> Result<f32> {
        if self.dtype() != DType::F32 {
            return Err(Error::Dtype {
                argument: "tensor",
                expected: "f32".into(),
                got: self.dtype(),
            });
        }
        if self.shape.elements() != Some(1) {
            return Err(Error::Shape {
                argument: "tensor",
                expected: "of one element".into(),
                got: self.shape,
            });
        }
        match &self.memory {
            Owned::Host(host) => Ok(host.as_ref().float(0)),
            Owned::Device(_) => self.to_host()?.item(),
        }
    }

    /// Copies another tensor of the same dtype and shape over this one where both lie on a device;
    /// whether they do.
    ///
    /// # Errors
    /// What the driver reports.
    #[cfg(feature = "cli")]
    pub(crate) fn copy_on_device(&mut self, from: &Tensor) -> Result<bool> {
        let same = (self.dtype(), self.shape) == (from.dtype(), from.shape);
        match (&mut self.memory, &from.memory) {
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            (Owned::Device(to), Owned::Device(from)) if same => {
                Resident::copy(to, from)?;
                Ok(true)
            }
            _ => {
                let _ = same;
                Ok(false)
            }
        }
    }

    /// The bytes of all elements; none on a device.
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Owned::Host(host) => host.bytes_mut(),
            Owned::Device(_) => &mut [],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_reaches_no_further_than_its_buffer() {
        let data = [0f32; 11];
        assert!(TensorRef::with_row_stride(&data, &[3, 3], 4).is_ok());
        assert!(matches!(
            TensorRef::with_row_stride(&data[..10], &[3, 3], 4),
            Err(Error::Length { expected: 11, got: 10, .. })
        ));
        assert!(matches!(
            TensorRef::with_row_stride(&data, &[3, 3], 2),
            Err(Error::Stride { got: 2, .. })
        ));
    }

    #[test]
    fn sizes_beyond_the_address_space_are_refused() {
        let data = [0f32; 4];
        for shape in [[usize::MAX, 2], [2, usize::MAX]] {
            assert!(TensorRef::new(&data, &shape).is_err());
        }
        assert!(TensorRef::new(&data, &[0, 1 << 40, 1 << 40]).is_err());
        assert!(TensorRef::with_row_stride(&data, &[3, 1], usize::MAX).is_err());
        assert!(TensorRef::new(&data, &[1; 9]).is_err());
    }

    #[test]
    fn empty_views_need_no_memory() {
        let data: [f32; 0] = [];
        assert_eq!(TensorRef::new(&data, &[0, 7]).unwrap().elements(), 0);
        assert_eq!(TensorRef::new(&data, &[7, 0]).unwrap().elements(), 0);
    }

    #[test]
    fn padding_is_left_out_when_reading() {
        let data = [1f32, 2.0, f32::NAN, 3.0, 4.0];
        let view = TensorRef::with_row_stride(&data, &[2, 2], 3).unwrap();
        assert_eq!(view.to_f64().unwrap(), [1.0, 2.0, 3.0, 4.0]);
    }
}
