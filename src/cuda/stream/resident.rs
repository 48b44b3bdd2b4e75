//! Memory of owned tensors on a device: from its stream's pool, and back there when dropped.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::shape::Shape;
#[cfg(feature = "cli")]
use crate::base::tensor::not_so_many;
use crate::base::tensor::{Tensor, TensorRef};
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

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Waits for the stream and copies a view of the elements to the host, without padding.
    ///
    /// # Errors
    /// What kernels noted on the stream; out of memory.
    pub(crate) fn to_host(&self, shape: Shape, row_stride: usize) -> Result<Tensor> {
        self.stream.check()?;
        let size = self.dtype.size();
        let row: usize = shape.iter().skip(1).product();
        let mut host = Tensor::zeros("tensor", self.dtype, shape)?;
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
            // SAFETY: as above, row by row.
            unsafe { self.stream.staging.receive(to, from, one)? };
        }
        Ok(host)
    }

    /// Waits for the stream and copies some of the elements, and no others, to the host.
    ///
    /// # Errors
    /// As [`Resident::to_host`]; [`Error::Value`] where there are not so many.
    #[cfg(feature = "cli")]
    pub(crate) fn part(&self, part: std::ops::Range<usize>) -> Result<Tensor> {
        let argument = "tensor";
        if part.start > part.end || part.end > self.len {
            return Err(not_so_many(part.end, self.len));
        }
        self.stream.check()?;
        let (size, shape) = (self.dtype.size(), [part.len()]);
        let mut host =
            Tensor::zeros(argument, self.dtype, Shape::new(&shape).unwrap_or(Shape::SCALAR))?;
        let from = self.address() + (part.start * size) as u64;
        let rows = HostRows::new(&host.shape(), 1, size);
        // SAFETY: the part lies inside the memory, and what writes it is on the stream.
        unsafe { self.stream.staging.receive(host.bytes_mut(), from, rows)? };
        Ok(host)
    }

    /// Copies the first `elements` elements on the device, or as many as both have.
    ///
    /// # Errors
    /// What the driver reports.
    #[cfg(feature = "cli")]
    pub(crate) fn copy(
        to: &mut Arc<Resident>,
        from: &Arc<Resident>,
        elements: usize,
    ) -> Result<()> {
        Resident::unshare(to, "tensor")?;
        let bytes = |of: &Resident| of.len.min(elements) * of.dtype.size();
        let bytes = bytes(to).min(bytes(from));
        // SAFETY: two allocations of that size at least, and nobody else has `to`.
        unsafe { to.stream.driver.copy_within(to.address(), from.address(), bytes) }
    }

    /// Memory for `len` elements, that holds those of a tensor on the host again and again.
    ///
    /// # Errors
    /// As [`Resident::upload`].
    #[cfg(feature = "cli")]
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

    /// Memory that no other tensor shares, with the same elements.
    ///
    /// # Errors
    /// Out of memory, named for `argument`.
    pub(crate) fn unshare(this: &mut Arc<Resident>, argument: &'static str) -> Result<()> {
        if Arc::get_mut(this).is_some() {
            return Ok(());
        }
        let copy = Resident::new(argument, &this.stream, this.dtype, this.len)?;
        let bytes = this.len * this.dtype.size();
        // SAFETY: two allocations of that size.
        unsafe { this.stream.driver.copy_within(copy.address(), this.address(), bytes)? };
        *this = Arc::new(copy);
        Ok(())
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            self.stream.pool.give(span);
        }
    }
}
