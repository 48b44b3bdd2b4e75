//! Memory of owned tensors on a device: from its stream's pool, and back there when dropped.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::host::HostVec;
use crate::base::shape::Shape;
use crate::base::tensor::TensorRef;
use crate::base::tensor::buffer::{Buffer, Debt, Lease, User, not_so_many};
use crate::cuda::driver::{Driver, elsewhere};
use crate::cuda::stream::Stream;
use crate::cuda::stream::pool::Span;
use crate::cuda::stream::staging::HostRows;
use std::sync::Arc;

/// Elements on a device, owned.
///
/// Calls on the stream that it belongs to find it in order. A call on another stream of the device
/// waits for that stream first, and makes it wait afterwards (`memory.rs`), so that it may be
/// dropped, or written, at any time.
#[derive(Debug)]
pub(crate) struct Resident {
    stream: Arc<Stream>,
    /// `None` only while being dropped.
    span: Option<Span>,
    len: usize,
    dtype: DType,
}

impl Resident {
    /// Memory for `len` elements, which a call is to write.
    ///
    /// # Errors
    /// Out of memory, named for `argument`.
    pub(crate) fn new(
        argument: &'static str,
        stream: &Arc<Stream>,
        dtype: DType,
        len: usize,
    ) -> Result<Resident> {
        let span = stream.pool.span(argument, len.saturating_mul(dtype.size()))?;
        Ok(Resident { stream: stream.clone(), span: Some(span), len, dtype })
    }

    /// A copy of host memory, without padding.
    ///
    /// # Errors
    /// As [`Resident::new`]; `tensor` is not on the host.
    pub(crate) fn upload(stream: &Arc<Stream>, tensor: TensorRef<'_>) -> Result<Resident> {
        let argument = "tensor";
        let host = crate::base::tensor::on_host(argument, &tensor)?;
        let resident = Resident::new(argument, stream, tensor.dtype(), tensor.elements())?;
        let rows = HostRows::new(&tensor.shape(), tensor.row_stride(), tensor.dtype().size());
        // SAFETY: the memory holds the tensor's elements, and is nobody else's yet.
        unsafe { stream.staging.send(resident.address(), host.bytes(), rows)? };
        Ok(resident)
    }

    pub(crate) fn address(&self) -> u64 {
        self.span.as_ref().map_or(0, |span| span.address)
    }

    /// Memory for `len` elements, that holds those of a tensor on the host again and again.
    ///
    /// # Errors
    /// As [`Resident::upload`].
    pub(crate) fn repeated(
        stream: &Arc<Stream>,
        tensor: TensorRef<'_>,
        len: usize,
    ) -> Result<Resident> {
        let argument = "tensor";
        let host = crate::base::tensor::on_host(argument, &tensor)?;
        let (size, elements) = (tensor.dtype().size(), tensor.elements());
        let len = len.max(elements);
        let resident = Resident::new(argument, stream, tensor.dtype(), len)?;
        let rows = HostRows::new(&tensor.shape(), tensor.row_stride(), size);
        // SAFETY: the memory has room for more, and is nobody else's yet.
        unsafe { stream.staging.send(resident.address(), host.bytes(), rows)? };
        let mut done = elements;
        while done > 0 && done < len {
            let more = done.min(len - done);
            let (from, to) = (resident.address(), resident.address() + (done * size) as u64);
            // SAFETY: both parts lie inside the memory and do not meet.
            unsafe { stream.driver.copy_within(to, from, more * size)? };
            done += more;
        }
        Ok(resident)
    }
}

impl Buffer for Resident {
    fn len(&self) -> usize {
        self.len
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn read<'p>(&'p self, argument: &'static str, user: User<'p>) -> Result<Lease<'p>> {
        let user = user.downcast_ref::<Arc<dyn Driver>>().ok_or(elsewhere(argument))?;
        let (owner, user) = (&*self.stream.driver, &**user);
        let address = self.address();
        if std::ptr::addr_eq(owner, user) {
            return Ok(Lease { address, debt: None });
        }
        if owner.space() != user.space() {
            return Err(elsewhere(argument));
        }
        if owner.capturing()? || user.capturing()? {
            let reason = format!(
                "{argument}: memory of another stream, while a stream is captured into a graph"
            );
            return Err(Error::Device { reason });
        }
        user.after(owner)?;
        Ok(Lease { address, debt: Some(Box::new(Streams { owner, user })) })
    }

    fn write<'p>(&'p mut self, argument: &'static str, user: User<'p>) -> Result<Lease<'p>> {
        self.read(argument, user)
    }

    fn to_host(&self, shape: Shape, row_stride: usize) -> Result<HostVec> {
        self.stream.check()?;
        let size = self.dtype.size();
        let row: usize = shape.iter().skip(1).product();
        let mut host = HostVec::zeros("tensor", self.dtype, shape.iter().product())?;
        let to = host.bytes_mut();
        if row_stride == row || shape.first().is_none_or(|&rows| rows == 1) {
            let rows = HostRows::new(&shape, row, size);
            // SAFETY: views lie inside their memory, and what writes it is on the stream.
            unsafe { self.stream.staging.receive(to, self.address(), rows)? };
            return Ok(host);
        }
        let one = HostRows::new(&Shape::SCALAR, 1, row * size);
        for (i, to) in to.chunks_exact_mut((row * size).max(1)).enumerate() {
            let from = self.address() + (i * row_stride * size) as u64;
            // SAFETY: each row of the view lies inside the memory, and what writes it is on the
            // stream.
            unsafe { self.stream.staging.receive(to, from, one)? };
        }
        Ok(host)
    }

    fn part(&self, part: std::ops::Range<usize>) -> Result<HostVec> {
        let argument = "tensor";
        if part.start > part.end || part.end > self.len {
            return Err(not_so_many(part.end, self.len));
        }
        self.stream.check()?;
        let size = self.dtype.size();
        let mut host = HostVec::zeros(argument, self.dtype, part.len())?;
        let from = self.address() + (part.start * size) as u64;
        let rows = HostRows::new(&Shape::new(&[part.len()]).unwrap_or(Shape::SCALAR), 1, size);
        // SAFETY: the part lies inside the memory, and what writes it is on the stream.
        unsafe { self.stream.staging.receive(host.bytes_mut(), from, rows)? };
        Ok(host)
    }

    fn duplicate(&self, argument: &'static str) -> Result<Arc<dyn Buffer>> {
        let copy = Resident::new(argument, &self.stream, self.dtype, self.len)?;
        let bytes = self.len * self.dtype.size();
        // SAFETY: two allocations of that size.
        unsafe { self.stream.driver.copy_within(copy.address(), self.address(), bytes)? };
        Ok(Arc::new(copy))
    }

    fn copy_from(&mut self, from: &dyn Buffer, elements: usize) -> Result<()> {
        let bytes = |of: &dyn Buffer| of.len().min(elements) * of.dtype().size();
        let bytes = bytes(self).min(bytes(from));
        let lease = from.read("tensor", &self.stream.driver)?;
        // SAFETY: both hold at least so many bytes, as their lengths say, and `self` is exclusive.
        unsafe { self.stream.driver.copy_within(self.address(), lease.address, bytes) }
    }
}

/// The owner's stream waits for the user's.
#[derive(Debug)]
struct Streams<'p> {
    owner: &'p dyn Driver,
    user: &'p dyn Driver,
}

impl Debt for Streams<'_> {}

impl Drop for Streams<'_> {
    fn drop(&mut self) {
        // A stream that cannot be made to wait has failed; its next call says so.
        let _ = self.owner.after(self.user);
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            self.stream.pool.give(span);
        }
    }
}
