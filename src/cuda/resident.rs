//! Memory of owned tensors on a device: from its stream's pool, and back there when dropped.

use super::Stream;
use super::pool::Span;
use super::staging::HostRows;
use crate::{DType, Result, Shape, Tensor, TensorRef};
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
        let host = crate::tensor::on_host(argument, &tensor)?;
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

    /// Copies elements on the device; both have as many bytes.
    ///
    /// # Errors
    /// What the driver reports.
    #[cfg(feature = "cli")]
    pub(crate) fn copy(to: &mut Arc<Resident>, from: &Arc<Resident>) -> Result<()> {
        Resident::unshare(to, "tensor")?;
        let bytes = (to.len * to.dtype.size()).min(from.len * from.dtype.size());
        // SAFETY: two allocations of that size at least, and nobody else has `to`.
        unsafe { to.stream.driver.copy_within(to.address(), from.address(), bytes) }
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
