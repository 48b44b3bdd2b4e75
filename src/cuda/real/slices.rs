//! cudarc's memory as views: safe, since cudarc's slices know their length, their context and, by
//! two events each, who used them last.
//!
//! What a slice's user owes it is cudarc's rule: wait for the event of the last write (a writer
//! also for that of the last read), and record an event of one's own when done. Where cudarc does
//! not keep events (one stream, or tracking switched off), a slice of another stream is ordered by
//! joining the two streams.

use crate::base::dtype::{DType, Element};
use crate::base::error::{Error, Result};
use crate::base::tensor::buffer::{DeviceMut, DeviceRef};
use crate::base::tensor::{Exclusive, Shared, TensorMut, TensorRef};
use crate::cuda::real::driver::Real;
use crate::cuda::real::gpu::device;
use crate::cuda::stream::memory::elsewhere;
use cudarc::driver::{
    CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DeviceSlice, SyncOnDrop,
};
use std::sync::Arc;

/// Memory of cudarc's that can be read.
trait Source: Sync {
    fn owner(&self) -> &Arc<CudaStream>;
    /// The address, once `stream` has been made to wait for the last write.
    fn pointer<'s>(&'s self, stream: &'s CudaStream) -> (u64, SyncOnDrop<'s>);
}

impl<T: Element> Source for CudaSlice<T> {
    fn owner(&self) -> &Arc<CudaStream> {
        self.stream()
    }
    fn pointer<'s>(&'s self, stream: &'s CudaStream) -> (u64, SyncOnDrop<'s>) {
        self.device_ptr(stream)
    }
}

impl<T: Element> Source for CudaView<'_, T> {
    fn owner(&self) -> &Arc<CudaStream> {
        DeviceSlice::stream(self)
    }
    fn pointer<'s>(&'s self, stream: &'s CudaStream) -> (u64, SyncOnDrop<'s>) {
        self.device_ptr(stream)
    }
}

impl<T: Element> Source for CudaViewMut<'_, T> {
    fn owner(&self) -> &Arc<CudaStream> {
        DeviceSlice::stream(self)
    }
    fn pointer<'s>(&'s self, stream: &'s CudaStream) -> (u64, SyncOnDrop<'s>) {
        self.device_ptr(stream)
    }
}

/// A slice or view of cudarc's, shared.
#[derive(Clone, Copy)]
pub(crate) struct SliceRef<'a> {
    source: &'a (dyn Source + 'a),
    len: usize,
    dtype: DType,
}

/// A slice or view of cudarc's, exclusive; as bytes, whatever its elements.
pub(crate) struct SliceMut<'a> {
    view: CudaViewMut<'a, u8>,
    len: usize,
    dtype: DType,
}

/// What is done once a call's launches are on the stream.
pub(crate) enum Events<'p> {
    /// cudarc's guard records its event.
    Guard {
        _guard: SyncOnDrop<'p>,
    },
    /// The owner's stream waits for the user's.
    Join {
        owner: Arc<CudaStream>,
        user: &'p CudaStream,
    },
    Nothing,
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        if let Events::Join { owner, user } = self {
            owner.context().record_err(owner.join(user));
        }
    }
}

impl std::fmt::Debug for Events<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Events::Guard { .. } => "Guard",
            Events::Join { .. } => "Join",
            Events::Nothing => "Nothing",
        })
    }
}

/// How a slice of stream `owner` is brought in order with the device's stream.
enum Way {
    /// cudarc's events are there.
    Events,
    /// Another stream without events.
    Join,
    /// The same stream without events.
    Nothing,
}

fn way(argument: &'static str, owner: &Arc<CudaStream>, real: &Real) -> Result<Way> {
    if owner.context() != real.stream().context() {
        return Err(elsewhere(argument));
    }
    let managed = owner.context().is_managing_stream_synchronization();
    let same = owner == real.stream();
    if real.captured()? && (managed || !same) {
        let reason = format!(
            "{argument}: while a stream is captured into a graph, slices must be of that stream and \
             cudarc's event tracking off (CudaContext::disable_event_tracking)"
        );
        return Err(Error::Device { reason });
    }
    Ok(match (managed, same) {
        (true, _) => Way::Events,
        (false, false) => Way::Join,
        (false, true) => Way::Nothing,
    })
}

fn joined(real: &Real, owner: &CudaStream) -> Result<()> {
    real.stream().join(owner).map_err(|e| device("waiting for a slice's stream", e))
}

impl<'a> SliceRef<'a> {
    fn new<T: Element>(source: &'a (dyn Source + 'a), len: usize) -> SliceRef<'a> {
        SliceRef { source, len, dtype: T::DTYPE }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// The address, to be read from now on by what comes on the device's stream.
    pub(crate) fn begin(
        self,
        argument: &'static str,
        real: Option<&'a Real>,
    ) -> Result<(u64, Events<'a>)> {
        let real = real.ok_or(elsewhere(argument))?;
        let owner = self.source.owner();
        let way = way(argument, owner, real)?;
        if matches!(way, Way::Join) {
            joined(real, owner)?;
        }
        let (address, guard) = self.source.pointer(real.stream());
        let events = match way {
            Way::Events => {
                // A slice has one event for all who read it: recording it anew would forget an
                // earlier reader on another stream, so this stream comes after that one.
                if let SyncOnDrop::Record(Some((event, _))) = &guard {
                    let waited = real.stream().wait(event);
                    waited.map_err(|e| device("waiting for a slice's readers", e))?;
                }
                Events::Guard { _guard: guard }
            }
            Way::Join => Events::Join { owner: owner.clone(), user: real.stream() },
            Way::Nothing => Events::Nothing,
        };
        Ok((address, events))
    }
}

impl PartialEq for SliceRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        let same = std::ptr::addr_eq(self.source, other.source);
        same && self.len == other.len && self.dtype == other.dtype
    }
}

impl std::fmt::Debug for SliceRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CudaSlice<{}>[{}]", self.dtype, self.len)
    }
}

impl<'a> SliceMut<'a> {
    pub(crate) fn as_ref(&self) -> SliceRef<'_> {
        SliceRef { source: &self.view, len: self.len, dtype: self.dtype }
    }

    pub(crate) fn reborrow(&mut self) -> SliceMut<'_> {
        SliceMut { view: self.view.slice_mut(..), len: self.len, dtype: self.dtype }
    }

    /// The address, to be read and written from now on by what comes on the device's stream.
    pub(crate) fn begin<'p: 'a>(
        self,
        argument: &'static str,
        real: Option<&'p Real>,
    ) -> Result<(u64, Events<'a>)> {
        let real = real.ok_or(elsewhere(argument))?;
        let owner = DeviceSlice::stream(&self.view).clone();
        let way = way(argument, &owner, real)?;
        if matches!(way, Way::Join) {
            joined(real, &owner)?;
        }
        let (address, guard) = self.view.view_ptr_mut(real.stream());
        let events = match way {
            Way::Events => Events::Guard { _guard: guard },
            Way::Join => Events::Join { owner, user: real.stream() },
            Way::Nothing => Events::Nothing,
        };
        Ok((address, events))
    }
}

impl std::fmt::Debug for SliceMut<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CudaSlice<{}>[{}], exclusive", self.dtype, self.len)
    }
}

fn shared<'a, T: Element>(source: &'a (dyn Source + 'a), len: usize) -> Shared<'a> {
    Shared::Device(DeviceRef::Slice(SliceRef::new::<T>(source, len)))
}

/// Memory that cudarc owns. A call on a [`crate::Device`] of the same context waits, on the
/// device, for what was done with the slice before, on whatever stream; what is done with it
/// afterwards through cudarc waits for the call. A slice of another context is [`Error::Place`]
/// when it comes to a call.
impl<'a> TensorRef<'a> {
    /// A contiguous view of `shape` over the beginning of a slice.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use cudarc::driver::CudaContext;
    /// use warploss::{CrossEntropy, Device, TensorRef};
    /// let stream = CudaContext::new(0)?.new_stream()?;
    /// let logits = stream.clone_htod(&[2.0f32, 1.0, 0.1, 0.5, 2.5, 0.0])?;
    /// let target = stream.clone_htod(&[0i64, 1])?;
    /// let device = Device::on_stream(stream)?;
    /// let logits = TensorRef::from_cuda_slice(&logits, &[2, 3])?;
    /// let target = TensorRef::from_cuda_slice(&target, &[2])?;
    /// let out = CrossEntropy::default().forward(&device, logits, target)?; // does not wait
    /// println!("{}", out.loss.item()?); // waits
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TensorRef::new`].
    pub fn from_cuda_slice<T: Element>(slice: &'a CudaSlice<T>, shape: &[usize]) -> Result<Self> {
        TensorRef::build(shared::<T>(slice, slice.len()), shape, None)
    }

    /// As [`TensorRef::from_cuda_slice`], rows `row_stride` elements apart.
    ///
    /// # Errors
    /// As [`TensorRef::with_row_stride`].
    pub fn from_cuda_slice_with_row_stride<T: Element>(
        slice: &'a CudaSlice<T>,
        shape: &[usize],
        row_stride: usize,
    ) -> Result<Self> {
        TensorRef::build(shared::<T>(slice, slice.len()), shape, Some(row_stride))
    }

    /// As [`TensorRef::from_cuda_slice`], over a part of a slice.
    ///
    /// # Errors
    /// As [`TensorRef::new`].
    pub fn from_cuda_view<T: Element>(view: &'a CudaView<'_, T>, shape: &[usize]) -> Result<Self> {
        TensorRef::build(shared::<T>(view, view.len()), shape, None)
    }

    /// As [`TensorRef::from_cuda_view`], rows `row_stride` elements apart.
    ///
    /// # Errors
    /// As [`TensorRef::with_row_stride`].
    pub fn from_cuda_view_with_row_stride<T: Element>(
        view: &'a CudaView<'_, T>,
        shape: &[usize],
        row_stride: usize,
    ) -> Result<Self> {
        TensorRef::build(shared::<T>(view, view.len()), shape, Some(row_stride))
    }
}

fn exclusive<'a, T: Element>(view: CudaViewMut<'a, u8>) -> Exclusive<'a> {
    let len = view.len() / size_of::<T>();
    Exclusive::Device(DeviceMut::Slice(SliceMut { view, len, dtype: T::DTYPE }))
}

fn slice_bytes<T: Element>(slice: &mut CudaSlice<T>) -> Exclusive<'_> {
    let bytes = slice.num_bytes();
    // SAFETY: an element type is plain numbers, of which any bytes make some; all bytes are the
    // slice's.
    let view = unsafe { slice.transmute_mut(bytes) };
    exclusive::<T>(view.expect("the slice's own number of bytes"))
}

fn view_bytes<'a, T: Element>(view: &'a mut CudaViewMut<'_, T>) -> Exclusive<'a> {
    let bytes = view.num_bytes();
    // SAFETY: as for a whole slice.
    let view = unsafe { view.transmute_mut(bytes) };
    exclusive::<T>(view.expect("the view's own number of bytes"))
}

/// Memory that cudarc owns, to be written; ordered as for [`TensorRef`].
impl<'a> TensorMut<'a> {
    /// A contiguous view of `shape` over the beginning of a slice.
    ///
    /// # Errors
    /// As [`TensorRef::new`].
    pub fn from_cuda_slice<T: Element>(
        slice: &'a mut CudaSlice<T>,
        shape: &[usize],
    ) -> Result<Self> {
        TensorMut::build(slice_bytes(slice), shape, None)
    }

    /// As [`TensorMut::from_cuda_slice`], rows `row_stride` elements apart; what lies between rows
    /// is never written.
    ///
    /// # Errors
    /// As [`TensorRef::with_row_stride`].
    pub fn from_cuda_slice_with_row_stride<T: Element>(
        slice: &'a mut CudaSlice<T>,
        shape: &[usize],
        row_stride: usize,
    ) -> Result<Self> {
        TensorMut::build(slice_bytes(slice), shape, Some(row_stride))
    }

    /// As [`TensorMut::from_cuda_slice`], over a part of a slice.
    ///
    /// # Errors
    /// As [`TensorRef::new`].
    pub fn from_cuda_view<T: Element>(
        view: &'a mut CudaViewMut<'_, T>,
        shape: &[usize],
    ) -> Result<Self> {
        TensorMut::build(view_bytes(view), shape, None)
    }

    /// As [`TensorMut::from_cuda_view`], rows `row_stride` elements apart.
    ///
    /// # Errors
    /// As [`TensorRef::with_row_stride`].
    pub fn from_cuda_view_with_row_stride<T: Element>(
        view: &'a mut CudaViewMut<'_, T>,
        shape: &[usize],
        row_stride: usize,
    ) -> Result<Self> {
        TensorMut::build(view_bytes(view), shape, Some(row_stride))
    }
}
