//! Views of the caller's memory, and the owned results of allocating calls.
//!
//! A view is a shape, a row stride and memory that is checked to hold them, here and nowhere else:
//! once a [`TensorRef`] or [`TensorMut`] exists, every element it names lies inside its buffer.
//! "Row" means an index of dimension 0: all other dimensions are contiguous, and rows begin
//! `row_stride` elements apart, so that a padded vocabulary needs no copy.

use crate::dtype::Element;
use crate::memory::{HostMut, HostRef, HostVec};
use crate::{DType, Error, Result, Shape};
use half::{bf16, f16};

/// Memory of a CUDA device: an address, a length in elements and the device it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Device address of the first element.
    pub address: u64,
    /// Number of elements.
    pub len: usize,
    /// Type of the elements.
    pub dtype: DType,
    /// Which CUDA device.
    pub ordinal: usize,
}

#[derive(Debug, Clone, Copy)]
enum Shared<'a> {
    Host(HostRef<'a>),
    Device(DeviceMemory),
}

#[derive(Debug)]
enum Exclusive<'a> {
    Host(HostMut<'a>),
    Device(DeviceMemory),
}

impl Shared<'_> {
    fn len(&self) -> usize {
        match self {
            Shared::Host(host) => host.len(),
            Shared::Device(span) => span.len,
        }
    }
    fn dtype(&self) -> DType {
        match self {
            Shared::Host(host) => host.dtype(),
            Shared::Device(span) => span.dtype,
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

    /// A view of CUDA device memory that the caller owns.
    ///
    /// # Safety
    /// The memory is allocated there, holds initialised elements of `dtype`, and outlives `'a`.
    ///
    /// # Errors
    /// As [`TensorRef::with_row_stride`].
    pub unsafe fn from_device(
        memory: DeviceMemory,
        shape: &[usize],
        row_stride: usize,
    ) -> Result<Self> {
        Self::build(Shared::Device(memory), shape, Some(row_stride))
    }

    fn build(memory: Shared<'a>, shape: &[usize], row_stride: Option<usize>) -> Result<Self> {
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

    /// The device memory that holds it; `None` for host memory.
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    pub(crate) fn device(&self) -> Option<DeviceMemory> {
        match self.memory {
            Shared::Host(_) => None,
            Shared::Device(span) => Some(span),
        }
    }

    /// The elements in order, without padding, widened to f64 (an i64 beyond 2^53 is rounded).
    ///
    /// # Errors
    /// [`Error::Place`] for device memory.
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        let Shared::Host(host) = self.memory else {
            return Err(self.not_on_host());
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

    fn not_on_host(&self) -> Error {
        Error::Place { argument: "tensor", expected: "host", got: self.place() }
    }
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
        Ok(TensorMut { memory: Exclusive::Device(memory), layout })
    }

    fn memory_ref(&self) -> Shared<'_> {
        match &self.memory {
            Exclusive::Host(host) => Shared::Host(host.as_ref()),
            Exclusive::Device(span) => Shared::Device(*span),
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
                Exclusive::Device(span) => Exclusive::Device(*span),
            },
            layout: self.layout,
        }
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

/// An owned, contiguous tensor: what an allocating call returns, on the device of its inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    memory: HostVec,
    shape: Shape,
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
        Ok(Tensor { memory: T::host_vec(data), shape: layout.shape })
    }

    /// Zeros of `shape`; memory that cannot be had is an error, not an abort.
    pub(crate) fn zeros(argument: &'static str, dtype: DType, shape: Shape) -> Result<Tensor> {
        fn zeros<T: Element>(argument: &'static str, n: usize) -> Result<HostVec> {
            let mut data: Vec<T> = Vec::new();
            data.try_reserve_exact(n).map_err(|_| Error::OutOfMemory {
                argument,
                bytes: n.saturating_mul(T::DTYPE.size()),
            })?;
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
        Ok(Tensor { memory, shape })
    }

    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        self.memory.as_ref().dtype()
    }

    /// Sizes of the dimensions.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// A shared view.
    pub fn view(&self) -> TensorRef<'_> {
        TensorRef { memory: Shared::Host(self.memory.as_ref()), layout: self.layout() }
    }

    /// An exclusive view.
    pub fn view_mut(&mut self) -> TensorMut<'_> {
        let layout = self.layout();
        TensorMut { memory: Exclusive::Host(self.memory.as_mut()), layout }
    }

    fn layout(&self) -> Layout {
        Layout { shape: self.shape, row_stride: self.shape.iter().skip(1).product() }
    }

    /// The elements, or `None` where they are of another type.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        T::from_host(self.memory.as_ref())
    }

    /// The single number of a one-element f32 tensor.
    ///
    /// # Errors
    /// [`Error::Dtype`] or [`Error::Shape`] where it is not one f32.
    pub fn item(&self) -> Result<f32> {
        let values = self.as_slice::<f32>().ok_or_else(|| Error::Dtype {
            argument: "tensor",
            expected: "f32".into(),
            got: self.dtype(),
        })?;
        match values {
            [value] => Ok(*value),
            _ => Err(Error::Shape {
                argument: "tensor",
                expected: "of one element".into(),
                got: self.shape,
            }),
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
