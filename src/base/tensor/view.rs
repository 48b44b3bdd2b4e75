//! Views of the caller's memory.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::host::{Element, HostMut, HostRef};
use crate::base::shape::Shape;
use crate::base::tensor::buffer::{DeviceMemory, DeviceMut, DeviceRef, not_on_host};
use crate::base::tensor::layout::Layout;
use crate::base::tensor::memory::{Exclusive, Shared};

/// A shared view of a tensor in the caller's memory.
#[derive(Clone, Copy)]
#[must_use]
pub struct TensorRef<'a> {
    pub(crate) memory: Shared<'a>,
    pub(crate) layout: Layout,
}

/// An exclusive view of a tensor in the caller's memory.
#[must_use]
pub struct TensorMut<'a> {
    pub(crate) memory: Exclusive<'a>,
    pub(crate) layout: Layout,
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
        /// The first `rows` along dimension 0; `None` where there are not so many.
        pub fn first_rows(self, rows: usize) -> Option<Self> {
            Some(Self { layout: self.layout.first_rows(rows)?, ..self })
        }
        /// The same elements in another shape; `None` where padding lies between them, or there are not as many.
        pub(crate) fn viewed(self, shape: Shape) -> Option<Self> {
            Some(Self { layout: self.layout.viewed(shape)?, ..self })
        }
        /// The dimensions after the first as one.
        pub(crate) fn flat(self) -> Self {
            Self { layout: self.layout.flat(), ..self }
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
    /// [`Error::Length`](crate::Error::Length) where `data` is too short, [`Error::Rank`](crate::Error::Rank) past 8 dimensions.
    pub fn new<T: Element>(data: &'a [T], shape: &[usize]) -> Result<Self> {
        Self::build(Shared::Host(T::host_ref(data)), shape, None)
    }

    /// A view whose rows (indices of dimension 0) begin `row_stride` elements apart.
    ///
    /// # Errors
    /// [`Error::Stride`](crate::Error::Stride) where rows would overlap, [`Error::Length`](crate::Error::Length) where `data` is too short.
    pub fn with_row_stride<T: Element>(
        data: &'a [T],
        shape: &[usize],
        row_stride: usize,
    ) -> Result<Self> {
        Self::build(Shared::Host(T::host_ref(data)), shape, Some(row_stride))
    }

    /// A view of one number, of shape `[]`.
    ///
    /// ```
    /// use warploss::TensorRef;
    ///
    /// let scale = TensorRef::scalar(&0.5f32);
    /// assert_eq!((scale.rank(), scale.elements()), (0, 1));
    /// ```
    pub fn scalar<T: Element>(number: &'a T) -> Self {
        let data = T::host_ref(std::slice::from_ref(number));
        TensorRef { memory: Shared::Host(data), layout: Layout::SCALAR }
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

    #[cfg(gpu)]
    pub(crate) fn memory(&self) -> Shared<'a> {
        self.memory
    }

    /// The elements in order, without padding, widened to f64 (an i64 beyond 2^53 is rounded).
    /// Waits for the memory of a tensor on a device.
    ///
    /// # Errors
    /// [`Error::Place`](crate::Error::Place) for other device memory; as [`Tensor::to_host`](crate::Tensor::to_host).
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        let host = match self.memory {
            Shared::Host(host) => host,
            Shared::Device(DeviceRef::Buffer(buffer)) => {
                let packed = self.shape().iter().skip(1).product();
                let host = buffer.to_host(self.shape(), self.row_stride())?;
                return Ok(widened(host.as_ref(), &self.shape(), packed));
            }
            Shared::Device(DeviceRef::Raw(_)) => return Err(not_on_host("tensor")),
        };
        Ok(widened(host, &self.shape(), self.row_stride()))
    }
}

/// The elements of rows in order, without padding.
fn widened(host: HostRef<'_>, shape: &Shape, row_stride: usize) -> Vec<f64> {
    let elements: usize = shape.iter().product();
    let row = elements / shape.first().map_or(1, |&n| n.max(1));
    let rows = elements.checked_div(row).unwrap_or(0);
    let at = |i: usize| (i / row) * row_stride + i % row;
    let n = rows * row;
    match host {
        HostRef::F32(s) => (0..n).map(|i| f64::from(s[at(i)])).collect(),
        HostRef::F16(s) => (0..n).map(|i| s[at(i)].to_f64()).collect(),
        HostRef::BF16(s) => (0..n).map(|i| s[at(i)].to_f64()).collect(),
        HostRef::I64(s) => (0..n).map(|i| s[at(i)] as f64).collect(),
        HostRef::I32(s) => (0..n).map(|i| f64::from(s[at(i)])).collect(),
        HostRef::U32(s) => (0..n).map(|i| f64::from(s[at(i)])).collect(),
        HostRef::U8(s) => (0..n).map(|i| f64::from(s[at(i)])).collect(),
    }
}

/// The host memory of a tensor that must lie there.
#[cfg(gpu)]
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

    /// A view of one number, of shape `[]`: a loss, where the reduction leaves one.
    ///
    /// ```
    /// use warploss::{CrossEntropy, CrossEntropyOut, Device, TensorMut, TensorRef};
    ///
    /// let logits = TensorRef::new(&[2.0f32, 1.0, 0.1, 0.5, 2.5, 0.0], &[2, 3])?;
    /// let target = TensorRef::new(&[0i64, 1], &[2])?;
    /// let mut loss = 0f32;
    /// let out = CrossEntropyOut::loss(TensorMut::scalar(&mut loss));
    /// CrossEntropy::default().forward_into(&Device::cpu(), logits, target, out)?;
    /// assert!(loss > 0.0);
    /// # Ok::<(), warploss::Error>(())
    /// ```
    pub fn scalar<T: Element>(number: &'a mut T) -> Self {
        let data = T::host_mut(std::slice::from_mut(number));
        TensorMut { memory: Exclusive::Host(data), layout: Layout::SCALAR }
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

    #[cfg(gpu)]
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

/// [`TensorMut::as_ref`].
impl<'a> From<&'a TensorMut<'_>> for TensorRef<'a> {
    fn from(tensor: &'a TensorMut<'_>) -> Self {
        tensor.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_left_out_when_reading() {
        let data = [1f32, 2.0, f32::NAN, 3.0, 4.0];
        let view = TensorRef::with_row_stride(&data, &[2, 2], 3).unwrap();
        assert_eq!(view.to_f64().unwrap(), [1.0, 2.0, 3.0, 4.0]);
    }
}
