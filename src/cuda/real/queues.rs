//! The queues of copies to and from a GPU, beside the stream of its kernels.

use crate::base::error::Result;
use crate::cuda::real::gpu::device;
use cudarc::driver::sys;
use cudarc::driver::{DriverError, result};

/// An event without a time, as a number.
pub(crate) fn event() -> Result<u64> {
    let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
    event.map(|e| e as u64).map_err(|e| device("an event", e))
}

/// What comes on `stream` from now on runs after the event.
///
/// # Safety
/// Both are of the context that is bound.
pub(crate) unsafe fn wait(
    stream: sys::CUstream,
    event: u64,
) -> std::result::Result<(), DriverError> {
    let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
    // SAFETY: stream and event are of the context that is bound: the caller's promise.
    unsafe { result::stream::wait_event(stream, event as sys::CUevent, flags) }
}

/// A stream with an event that is recorded where others wait for it. Not one of cudarc's streams,
/// so that a caller with a single stream stays one.
pub(crate) struct Queue {
    stream: usize,
    pub(crate) event: u64,
}

impl Queue {
    fn new() -> Result<Queue> {
        let event = event()?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking);
        let stream = stream.map_err(|e| {
            // SAFETY: made above, used by nothing.
            let _ = unsafe { result::event::destroy(event as sys::CUevent) };
            device("a stream for copies", e)
        })?;
        Ok(Queue { stream: stream as usize, event })
    }

    pub(crate) fn stream(&self) -> sys::CUstream {
        self.stream as sys::CUstream
    }

    /// Gives both back. The driver keeps what is still needed until its work is done.
    ///
    /// # Safety
    /// Nobody uses them any more; their context is bound.
    pub(crate) unsafe fn destroy(&self) {
        // SAFETY: nobody uses stream or event any more, and their context is bound: the caller's
        // promise.
        unsafe {
            let _ = result::stream::destroy(self.stream());
            let _ = result::event::destroy(self.event as sys::CUevent);
        }
    }
}

/// The queues of copies to the device and from it, and an event for the kernels' stream.
pub(crate) struct Copies {
    pub(crate) uploads: Queue,
    pub(crate) downloads: Queue,
    pub(crate) kernels: u64,
}

impl Copies {
    pub(crate) fn new() -> Result<Copies> {
        let uploads = Queue::new()?;
        let rest = Queue::new().and_then(|downloads| {
            // SAFETY: made just now, used by nothing.
            let kernels = event().inspect_err(|_| unsafe { downloads.destroy() })?;
            Ok((downloads, kernels))
        });
        // SAFETY: the queue was made in this function and is used by nothing.
        let (downloads, kernels) = rest.inspect_err(|_| unsafe { uploads.destroy() })?;
        Ok(Copies { uploads, downloads, kernels })
    }
}
