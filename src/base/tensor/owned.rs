//! Owned tensors: what allocating calls return.

use crate::base::dtype::DType;
use crate::base::error::{Count, Error, Result};
use crate::base::host::{Element, HostRef, HostVec};
use crate::base::shape::Shape;
use crate::base::tensor::buffer::{Buffer, DeviceMut, DeviceRef, not_on_host};
use crate::base::tensor::buffer::{not_so_many, unshared};
use crate::base::tensor::layout::{self, Layout};
use crate::base::tensor::memory::{Exclusive, Shared};
use crate::base::tensor::view::{TensorMut, TensorRef};
use std::sync::Arc;

#[derive(Clone)]
#[cfg_attr(not(gpu), allow(dead_code))] // Never on a device.
enum Owned {
    Host(HostVec),
    /// Shared by clones until one of them is written.
    Device(Arc<dyn Buffer>),
}

/// An owned, contiguous tensor: what an allocating call returns, in the memory of its inputs'
/// kind, host or device.
///
/// A tensor on a device is written in the order of the device's stream: the call that returns it
/// does not wait. [`Tensor::to_host`] and [`Tensor::item`] do, and tell errors that kernels found
/// (a bad target) up to there. A clone shares device memory until one of the two is written.
///
/// A trainer's own memory becomes a tensor by [`Tensor::from_vec`] and comes back by
/// [`Tensor::into_vec`], neither of which copies. What is formatted (`{:?}`) is dtype, shape and the first values.
///
/// Tensors on the host are equal where their elements are; on a device, where they share memory.
#[derive(Clone)]
#[must_use]
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
    /// ```
    /// use warploss::Tensor;
    ///
    /// let tensor = Tensor::from_vec(vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
    /// assert_eq!(*tensor.shape(), [2, 3]);
    /// # Ok::<(), warploss::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where `data` has not exactly the elements of `shape`.
    pub fn from_vec<T: Element>(data: Vec<T>, shape: &[usize]) -> Result<Tensor> {
        let layout = Layout::check(shape, None, data.len())?;
        if layout.shape.elements() != Some(data.len()) {
            return Err(Error::Shape {
                argument: "shape",
                expected: format!("of the {} given", Count(data.len(), "element")),
                got: layout.shape,
            });
        }
        Ok(Tensor { memory: Owned::Host(T::host_vec(data)), shape: layout.shape })
    }

    /// Zeros on the host.
    ///
    /// ```
    /// use warploss::{DType, Tensor};
    ///
    /// let tensor = Tensor::zeros(DType::F32, &[2, 3])?;
    /// assert_eq!(tensor.as_slice::<f32>(), Some(&[0.0; 6][..]));
    /// # Ok::<(), warploss::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the memory cannot be had, [`Error::Rank`] past 8 dimensions.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Tensor> {
        Tensor::zeros_for("tensor", dtype, layout::shape(shape)?)
    }

    /// Zeros of `shape`; memory that cannot be had is an error that says what it was for, not an
    /// abort.
    pub(crate) fn zeros_for(argument: &'static str, dtype: DType, shape: Shape) -> Result<Tensor> {
        let memory = HostVec::zeros(argument, dtype, shape.elements().unwrap_or(usize::MAX))?;
        Ok(Tensor { memory: Owned::Host(memory), shape })
    }

    /// A tensor on a device.
    #[cfg(gpu)]
    pub(crate) fn on_device(memory: impl Buffer + 'static, shape: Shape) -> Tensor {
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
            Owned::Device(buffer) => Shared::Device(DeviceRef::Buffer(&**buffer)),
        }
    }

    fn exclusive(&mut self) -> Exclusive<'_> {
        match &mut self.memory {
            Owned::Host(host) => Exclusive::Host(host.as_mut()),
            Owned::Device(buffer) => Exclusive::Device(DeviceMut::Owned(buffer)),
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
        let elements = self.shape.elements()?;
        match &self.memory {
            Owned::Host(host) => T::from_host(host.as_ref())?.get(..elements),
            Owned::Device(_) => None,
        }
    }

    /// The elements to be written, or `None` where they are of another type, or on a device.
    ///
    /// ```
    /// use warploss::{DType, Tensor};
    ///
    /// let mut bias = Tensor::zeros(DType::F32, &[3])?;
    /// if let Some(bias) = bias.as_mut_slice::<f32>() {
    ///     bias[1] = 0.5;
    /// }
    /// assert_eq!(bias.as_slice(), Some(&[0.0f32, 0.5, 0.0][..]));
    /// # Ok::<(), warploss::Error>(())
    /// ```
    pub fn as_mut_slice<T: Element>(&mut self) -> Option<&mut [T]> {
        let elements = self.shape.elements()?;
        match &mut self.memory {
            Owned::Host(host) => T::from_host_mut(host.as_mut())?.get_mut(..elements),
            Owned::Device(_) => None,
        }
    }

    /// The vector that holds the elements, or the tensor as it was.
    pub(super) fn into_host<T: Element>(self) -> Result<Vec<T>, Tensor> {
        let shape = self.shape;
        let refuse = |memory| Tensor { memory, shape };
        let host = match self.memory {
            Owned::Host(host) => host,
            device @ Owned::Device(_) => return Err(refuse(device)),
        };
        let mut data = T::from_host_vec(host).map_err(|host| refuse(Owned::Host(host)))?;
        // Memory that was taken as a smaller shape holds more.
        data.truncate(shape.elements().unwrap_or(usize::MAX));
        Ok(data)
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
            Owned::Device(buffer) => {
                let memory = buffer.to_host(self.shape, self.layout().row_stride)?;
                Ok(Tensor { memory: Owned::Host(memory), shape: self.shape })
            }
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
    pub(crate) fn copy_on_device(&mut self, from: &Tensor) -> Result<bool> {
        let same = (self.dtype(), self.shape) == (from.dtype(), from.shape);
        match (&mut self.memory, &from.memory) {
            (Owned::Device(to), Owned::Device(from)) if same => {
                let elements = self.shape.elements().unwrap_or(usize::MAX);
                unshared(to, "tensor")?.copy_from(&**from, elements)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Some of the elements, one after another, on the host. Waits for the device that they lie on,
    /// and copies nothing else from there.
    ///
    /// # Errors
    /// [`Error::Value`] where there are not so many; as [`Tensor::to_host`].
    pub(crate) fn part(&self, part: std::ops::Range<usize>) -> Result<Tensor> {
        fn of<T: Element>(all: Option<&[T]>, part: std::ops::Range<usize>) -> Option<Tensor> {
            let part = all?.get(part)?;
            Tensor::from_vec(part.to_vec(), &[part.len()]).ok()
        }
        let needed = part.end;
        if let Owned::Device(buffer) = &self.memory {
            let shape = Shape::new(&[part.len()]).unwrap_or(Shape::SCALAR);
            return Ok(Tensor { memory: Owned::Host(buffer.part(part)?), shape });
        }
        of(self.as_slice::<f32>(), part.clone())
            .or_else(|| of(self.as_slice::<half::f16>(), part.clone()))
            .or_else(|| of(self.as_slice::<half::bf16>(), part))
            .ok_or_else(|| not_so_many(needed, self.shared().len()))
    }

    /// Takes the first elements of the memory as another shape; whether there are so many.
    pub(crate) fn reshape(&mut self, shape: Shape) -> bool {
        let fits = shape.elements().is_some_and(|elements| elements <= self.shared().len());
        if fits {
            self.shape = shape;
        }
        fits
    }
}

/// [`Tensor::view`].
impl<'a> From<&'a Tensor> for TensorRef<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        tensor.view()
    }
}

/// [`Tensor::view_mut`].
impl<'a> From<&'a mut Tensor> for TensorMut<'a> {
    fn from(tensor: &'a mut Tensor) -> Self {
        tensor.view_mut()
    }
}

impl TensorRef<'_> {
    /// A copy of host memory, without padding.
    pub(crate) fn to_owned_host(self) -> Result<Tensor> {
        fn copy<T: Element>(tensor: &TensorRef<'_>, from: &[T]) -> Result<Tensor> {
            let (shape, row) = (tensor.shape(), tensor.layout.row());
            let mut copy = Tensor::zeros_for("tensor", T::DTYPE, shape)?;
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
        crate::base::host::each_dtype!(HostRef, host, s => copy(&self, s))
    }
}
