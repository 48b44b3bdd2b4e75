//! Device memory in views: whose it is, and so who keeps it in order.

use crate::base::dtype::DType;
use std::sync::Arc;

#[cfg(feature = "cuda")]
pub(crate) use crate::cuda::real::slices::{SliceMut, SliceRef};
#[cfg(gpu)]
pub(crate) use crate::cuda::stream::resident::Resident;

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

/// Device memory, shared.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))] // A build without it has no such slice.
pub(crate) enum DeviceRef<'a> {
    /// The caller orders all use of it.
    Raw(DeviceMemory),
    /// A tensor's.
    Owned(&'a Resident),
    /// cudarc's, with its events.
    Slice(SliceRef<'a>),
}

/// Device memory, exclusive.
#[derive(Debug)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))] // As above.
pub(crate) enum DeviceMut<'a> {
    Raw(DeviceMemory),
    /// A tensor's, shared with its clones until it is written.
    Owned(&'a mut Arc<Resident>),
    Slice(SliceMut<'a>),
}

impl DeviceRef<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            DeviceRef::Raw(memory) => memory.len,
            DeviceRef::Owned(resident) => resident.len(),
            DeviceRef::Slice(slice) => slice.len(),
        }
    }

    pub(crate) fn dtype(&self) -> DType {
        match self {
            DeviceRef::Raw(memory) => memory.dtype,
            DeviceRef::Owned(resident) => resident.dtype(),
            DeviceRef::Slice(slice) => slice.dtype(),
        }
    }
}

/// The same memory, seen in the same way.
impl PartialEq for DeviceRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (DeviceRef::Raw(a), DeviceRef::Raw(b)) => a == b,
            (DeviceRef::Owned(a), DeviceRef::Owned(b)) => std::ptr::eq(*a, *b),
            (DeviceRef::Slice(a), DeviceRef::Slice(b)) => a == b,
            _ => false,
        }
    }
}

impl DeviceMut<'_> {
    pub(crate) fn as_ref(&self) -> DeviceRef<'_> {
        match self {
            DeviceMut::Raw(memory) => DeviceRef::Raw(*memory),
            DeviceMut::Owned(resident) => DeviceRef::Owned(resident),
            DeviceMut::Slice(slice) => DeviceRef::Slice(slice.as_ref()),
        }
    }

    pub(crate) fn reborrow(&mut self) -> DeviceMut<'_> {
        match self {
            DeviceMut::Raw(memory) => DeviceMut::Raw(*memory),
            DeviceMut::Owned(resident) => DeviceMut::Owned(resident),
            DeviceMut::Slice(slice) => DeviceMut::Slice(slice.reborrow()),
        }
    }
}

/// What a build without the device has in place of its memory: types without values.
#[cfg(not(gpu))]
mod none {
    use crate::base::dtype::DType;
    use crate::base::error::Result;
    use crate::base::shape::Shape;
    use crate::base::tensor::Tensor;

    #[derive(Debug)]
    pub(crate) enum Resident {}

    impl Resident {
        pub(crate) fn len(&self) -> usize {
            match *self {}
        }
        pub(crate) fn dtype(&self) -> DType {
            match *self {}
        }
        pub(crate) fn to_host(&self, _: Shape, _: usize) -> Result<Tensor> {
            match *self {}
        }
    }
}
#[cfg(not(gpu))]
pub(crate) use none::Resident;

#[cfg(not(feature = "cuda"))]
mod no_slices {
    use crate::base::dtype::DType;
    use std::convert::Infallible;
    use std::marker::PhantomData;

    #[derive(Debug, Clone, Copy, PartialEq)]
    pub(crate) struct SliceRef<'a>(Infallible, PhantomData<&'a ()>);

    #[derive(Debug)]
    pub(crate) struct SliceMut<'a>(Infallible, PhantomData<&'a mut ()>);

    impl SliceRef<'_> {
        pub(crate) fn len(&self) -> usize {
            match self.0 {}
        }
        pub(crate) fn dtype(&self) -> DType {
            match self.0 {}
        }
    }

    impl SliceMut<'_> {
        pub(crate) fn as_ref(&self) -> SliceRef<'_> {
            match self.0 {}
        }
        pub(crate) fn reborrow(&mut self) -> SliceMut<'_> {
            match self.0 {}
        }
    }
}
#[cfg(not(feature = "cuda"))]
pub(crate) use no_slices::{SliceMut, SliceRef};
