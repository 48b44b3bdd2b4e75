//! cudarc's memory as views: safe, since cudarc's slices know their length, their context and, by
//! two events each, who used them last.
//!
//! What a slice's user owes it is cudarc's rule: wait for the event of the last write (a writer
//! also for that of the last read), and record an event of one's own when done. Where cudarc does
//! not keep events (one stream, or tracking switched off), a slice of another stream is ordered by
//! joining the two streams.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::host::Element;
use crate::base::tensor::buffer::{Buffer, BufferMut, Debt, DeviceMut, DeviceRef, Lease, User};
use crate::base::tensor::{Exclusive, Shared, TensorMut, TensorRef};
use crate::cuda::driver::{Driver, elsewhere};
use crate::cuda::real::driver::Real;
use crate::cuda::real::gpu::device;
use cudarc::driver::{
    CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DevicePtrMut, DeviceSlice, SyncOnDrop,
};
use std::sync::Arc;

/// Memory of cudarc's: whose it is, and its address for a reader.
trait Source: Sync {
    fn owner(&self) -> &Arc<CudaStream>;
    /// The address, once `stream` has been made to wait for the last write.
    fn pointer<'s>(&'s self, stream: &'s CudaStream) -> (u64, SyncOnDrop<'s>);
}

/// A slice or view of cudarc's, as [`Source`] and [`Buffer`]; `write` by what it can be written by.
macro_rules! buffer {
    ($memory:ty, $self:ident, $argument:ident, $user:ident => $write:expr) => {
        impl<T: Element> Source for $memory {
            fn owner(&self) -> &Arc<CudaStream> {
                DeviceSlice::stream(self)
            }
            fn pointer<'s>(&'s self, stream: &'s CudaStream) -> (u64, SyncOnDrop<'s>) {
                self.device_ptr(stream)
            }
        }

        impl<T: Element> Buffer for $memory {
            fn len(&self) -> usize {
                DeviceSlice::len(self)
            }
            fn dtype(&self) -> DType {
                T::DTYPE
            }
            fn read<'p>(&'p self, argument: &'static str, user: User<'p>) -> Result<Lease<'p>> {
                read(self, argument, user)
            }
            fn write<'p>(
                &'p mut $self,
                $argument: &'static str,
                $user: User<'p>,
            ) -> Result<Lease<'p>> {
                $write
            }
        }
    };
}

buffer!(CudaSlice<T>, self, argument, user => write(self, argument, user));
buffer!(CudaViewMut<'_, T>, self, argument, user => write(self, argument, user));
// Nobody has a view to be written of one that is shared.
buffer!(CudaView<'_, T>, self, argument, _user => Err(elsewhere(argument)));

/// What is done once a call's launches are on the stream.
enum Events<'p> {
    /// cudarc's guard records its event.
    Guard { _guard: SyncOnDrop<'p> },
    /// The owner's stream waits for the user's.
    Join { owner: Arc<CudaStream>, user: &'p CudaStream },
}

impl Debt for Events<'_> {}

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

/// The driver of the stream that is to use a slice.
fn driver<'p>(argument: &'static str, user: User<'p>) -> Result<&'p Real> {
    let driver = user.downcast_ref::<Arc<dyn Driver>>();
    let real = driver.and_then(|driver| driver.as_any().downcast_ref());
    real.ok_or(elsewhere(argument))
}

/// The address, to be read from now on by what comes on the user's stream.
fn read<'p>(source: &'p dyn Source, argument: &'static str, user: User<'p>) -> Result<Lease<'p>> {
    let real = driver(argument, user)?;
    let owner = source.owner();
    let way = way(argument, owner, real)?;
    if matches!(way, Way::Join) {
        joined(real, owner)?;
    }
    let (address, guard) = source.pointer(real.stream());
    let events = match way {
        Way::Events => {
            // A slice has one event for all who read it: recording it anew would forget an
            // earlier reader on another stream, so this stream comes after that one.
            if let SyncOnDrop::Record(Some((event, _))) = &guard {
                let waited = real.stream().wait(event);
                waited.map_err(|e| device("waiting for a slice's readers", e))?;
            }
            Some(Events::Guard { _guard: guard })
        }
        Way::Join => Some(Events::Join { owner: owner.clone(), user: real.stream() }),
        Way::Nothing => None,
    };
    Ok(lease(address, events))
}

/// The address, to be read and written from now on by what comes on the user's stream.
fn write<'p, T, S>(slice: &'p mut S, argument: &'static str, user: User<'p>) -> Result<Lease<'p>>
where
    T: Element,
    S: DevicePtrMut<T> + DeviceSlice<T>,
{
    let real = driver(argument, user)?;
    let owner = slice.stream().clone();
    let way = way(argument, &owner, real)?;
    if matches!(way, Way::Join) {
        joined(real, &owner)?;
    }
    let (address, guard) = slice.device_ptr_mut(real.stream());
    let events = match way {
        Way::Events => Some(Events::Guard { _guard: guard }),
        Way::Join => Some(Events::Join { owner, user: real.stream() }),
        Way::Nothing => None,
    };
    Ok(lease(address, events))
}

fn lease<'p>(address: u64, events: Option<Events<'p>>) -> Lease<'p> {
    Lease { address, debt: events.map(|events| Box::new(events) as Box<dyn Debt + 'p>) }
}

fn shared<'a>(buffer: &'a dyn Buffer) -> Shared<'a> {
    Shared::Device(DeviceRef::Buffer(buffer))
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
        TensorRef::build(shared(slice), shape, None)
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
        TensorRef::build(shared(slice), shape, Some(row_stride))
    }

    /// As [`TensorRef::from_cuda_slice`], over a part of a slice.
    ///
    /// # Errors
    /// As [`TensorRef::new`].
    pub fn from_cuda_view<T: Element>(view: &'a CudaView<'_, T>, shape: &[usize]) -> Result<Self> {
        TensorRef::build(shared(view), shape, None)
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
        TensorRef::build(shared(view), shape, Some(row_stride))
    }
}

fn exclusive<'a>(buffer: &'a mut (dyn Buffer + 'a)) -> Exclusive<'a> {
    Exclusive::Device(DeviceMut::Borrowed(BufferMut::new(buffer)))
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
        TensorMut::build(exclusive(slice), shape, None)
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
        TensorMut::build(exclusive(slice), shape, Some(row_stride))
    }

    /// As [`TensorMut::from_cuda_slice`], over a part of a slice.
    ///
    /// # Errors
    /// As [`TensorRef::new`].
    pub fn from_cuda_view<T: Element>(
        view: &'a mut CudaViewMut<'_, T>,
        shape: &[usize],
    ) -> Result<Self> {
        TensorMut::build(exclusive(view), shape, None)
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
        TensorMut::build(exclusive(view), shape, Some(row_stride))
    }
}
