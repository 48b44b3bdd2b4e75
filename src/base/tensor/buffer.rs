//! Device memory in views: whose it is, and so who keeps it in order.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::host::HostVec;
use crate::base::shape::Shape;
use std::any::Any;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

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

/// Whose stream is to use a buffer, in a form that the device knows (CUDA: an `Arc<dyn Driver>`).
pub(crate) type User<'p> = &'p (dyn Any + Send + Sync);

/// What is owed to others that use the same memory; dropping it pays.
pub(crate) trait Debt: Debug {}

/// Memory that a user's stream may use from now on.
#[derive(Debug)]
#[cfg_attr(not(gpu), allow(dead_code))] // A device asks for it.
pub(crate) struct Lease<'p> {
    pub(crate) address: u64,
    /// Dropped once the last launch that uses the memory is on the stream.
    pub(crate) debt: Option<Box<dyn Debt + 'p>>,
}

/// Memory on a device that knows who used it last: a tensor's own, or another library's.
///
/// Views hold buffers and nothing of a device; a device implements this for its own memory.
#[cfg_attr(not(all(gpu, feature = "cli")), allow(dead_code))] // What only a device, or `bench`, asks.
pub(crate) trait Buffer: Debug + Send + Sync {
    /// Number of elements.
    fn len(&self) -> usize;

    /// Type of the elements.
    fn dtype(&self) -> DType;

    /// Has the user's stream come after all that wrote the memory.
    ///
    /// # Errors
    /// [`Error::Place`] where it is not memory of the user's device; what a driver reports.
    fn read<'p>(&'p self, argument: &'static str, user: User<'p>) -> Result<Lease<'p>>;

    /// Has the user's stream come after all that used the memory.
    ///
    /// # Errors
    /// As [`Buffer::read`].
    fn write<'p>(&'p mut self, argument: &'static str, user: User<'p>) -> Result<Lease<'p>>;

    /// Waits, and copies a view of the elements to the host, without padding.
    ///
    /// # Errors
    /// What kernels noted on the owner's stream; memory that is not a tensor's own.
    fn to_host(&self, _shape: Shape, _row_stride: usize) -> Result<HostVec> {
        Err(not_on_host("tensor"))
    }

    /// As [`Buffer::to_host`], some of the elements and no others.
    ///
    /// # Errors
    /// As there; [`Error::Value`] where there are not so many.
    fn part(&self, _part: Range<usize>) -> Result<HostVec> {
        Err(not_on_host("tensor"))
    }

    /// Memory of its own with the same elements.
    ///
    /// # Errors
    /// Out of memory, named for `argument`; memory that is not a tensor's own.
    fn duplicate(&self, argument: &'static str) -> Result<Arc<dyn Buffer>> {
        Err(not_on_host(argument))
    }

    /// Copies the first `elements` of another buffer over its own, or as many as both have.
    ///
    /// # Errors
    /// What a driver reports; memory that is not a tensor's own.
    fn copy_from(&mut self, _from: &dyn Buffer, _elements: usize) -> Result<()> {
        Err(not_on_host("tensor"))
    }
}

/// Device memory, shared.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DeviceRef<'a> {
    /// The caller orders all use of it.
    Raw(DeviceMemory),
    /// It orders its use.
    Buffer(&'a dyn Buffer),
}

/// Device memory, exclusive.
#[derive(Debug)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))] // Borrowed buffers are cudarc's.
pub(crate) enum DeviceMut<'a> {
    Raw(DeviceMemory),
    /// A tensor's, shared with its clones until it is written.
    Owned(&'a mut Arc<dyn Buffer>),
    Borrowed(BufferMut<'a>),
}

/// An exclusive borrow of a buffer that can stand in for a shorter one, as views of slices can: a
/// `&'a mut (dyn Buffer + 'a)` in a view could not.
#[derive(Debug)]
pub(crate) struct BufferMut<'a> {
    buffer: NonNull<dyn Buffer + 'a>,
    _borrow: PhantomData<&'a mut ()>,
}

// SAFETY: it is used as the exclusive reference that it was made of, and a buffer is `Send`.
unsafe impl Send for BufferMut<'_> {}
// SAFETY: shared, it gives shared references alone, and a buffer is `Sync`.
unsafe impl Sync for BufferMut<'_> {}

#[cfg_attr(not(feature = "cuda"), allow(dead_code))] // Borrowed buffers are cudarc's.
impl<'a> BufferMut<'a> {
    pub(crate) fn new(buffer: &'a mut (dyn Buffer + 'a)) -> BufferMut<'a> {
        BufferMut { buffer: NonNull::from(buffer), _borrow: PhantomData }
    }

    pub(crate) fn get(&self) -> &dyn Buffer {
        // SAFETY: `new` was given the buffer exclusively, for as long as `self` can live.
        unsafe { self.buffer.as_ref() }
    }

    pub(crate) fn get_mut(&mut self) -> &mut dyn Buffer {
        // SAFETY: as `get` says, and `self` is exclusive. No method of a buffer stores what lives
        // shorter than it, so that the trait object's lifetime may be cut, as by a coercion.
        unsafe { self.buffer.as_mut() }
    }

    pub(crate) fn into_mut(mut self) -> &'a mut (dyn Buffer + 'a) {
        // SAFETY: as for `get_mut`; the borrow is handed on whole.
        unsafe { self.buffer.as_mut() }
    }
}

impl DeviceRef<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            DeviceRef::Raw(memory) => memory.len,
            DeviceRef::Buffer(buffer) => buffer.len(),
        }
    }

    pub(crate) fn dtype(&self) -> DType {
        match self {
            DeviceRef::Raw(memory) => memory.dtype,
            DeviceRef::Buffer(buffer) => buffer.dtype(),
        }
    }
}

/// The same memory, seen in the same way.
impl PartialEq for DeviceRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (DeviceRef::Raw(a), DeviceRef::Raw(b)) => a == b,
            (DeviceRef::Buffer(a), DeviceRef::Buffer(b)) => {
                let same = (a.len(), a.dtype()) == (b.len(), b.dtype());
                same && std::ptr::addr_eq(*a, *b)
            }
            _ => false,
        }
    }
}

impl DeviceMut<'_> {
    pub(crate) fn as_ref(&self) -> DeviceRef<'_> {
        match self {
            DeviceMut::Raw(memory) => DeviceRef::Raw(*memory),
            DeviceMut::Owned(buffer) => DeviceRef::Buffer(&***buffer),
            DeviceMut::Borrowed(buffer) => DeviceRef::Buffer(buffer.get()),
        }
    }

    pub(crate) fn reborrow(&mut self) -> DeviceMut<'_> {
        match self {
            DeviceMut::Raw(memory) => DeviceMut::Raw(*memory),
            DeviceMut::Owned(buffer) => DeviceMut::Owned(buffer),
            DeviceMut::Borrowed(buffer) => DeviceMut::Borrowed(BufferMut::new(buffer.get_mut())),
        }
    }
}

/// The buffer of a tensor that is about to be written: its own from now on, whoever shared it.
///
/// # Errors
/// Out of memory, named for `argument`.
#[cfg_attr(not(gpu), allow(dead_code))] // Never on a device.
pub(crate) fn unshared<'b>(
    buffer: &'b mut Arc<dyn Buffer>,
    argument: &'static str,
) -> Result<&'b mut dyn Buffer> {
    if Arc::get_mut(buffer).is_none() {
        *buffer = buffer.duplicate(argument)?;
    }
    // What was just made, or found, is nobody else's.
    Arc::get_mut(buffer).ok_or(not_on_host(argument)).map(|buffer| buffer as &mut dyn Buffer)
}

pub(crate) fn not_on_host(argument: &'static str) -> Error {
    Error::Place { argument, expected: "host", got: "device" }
}

/// What a part asks for that is not there.
#[cfg_attr(not(feature = "cli"), allow(dead_code))] // `bench` alone asks for parts.
pub(crate) fn not_so_many(needed: usize, got: usize) -> Error {
    Error::Value {
        argument: "tensor",
        expected: format!("{needed} elements"),
        got: got.to_string(),
    }
}
