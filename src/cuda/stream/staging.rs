//! Host tensors on their way to the device and back, chunk by chunk through pinned buffers: while
//! the device copies one chunk, the host fills or empties the next. One way at a time here, by
//! whole tensors; `blocks.rs` goes both ways at once.
//!
//! On the device such a tensor lies without padding, whatever its row stride on the host.

use crate::base::error::Result;
use crate::base::shape::Shape;
use crate::cuda::driver::{Driver, Pinned, not_captured};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers of a stream that are made before one that is still being copied is waited for.
const BUFFERS: usize = 4;
/// Buffers of a transfer each way: one that the host works on, one that the device does.
const DEPTH: usize = 2;
/// Bytes of one thread's share when a chunk is filled.
const SHARE: usize = 256 << 10;

/// Rows of bytes in a host buffer; the same bytes without padding are numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostRows {
    rows: usize,
    row: usize,
    stride: usize,
}

impl HostRows {
    /// The rows of a tensor whose elements have `size` bytes.
    pub(crate) fn new(shape: &Shape, row_stride: usize, size: usize) -> HostRows {
        let row = size * shape.iter().skip(1).product::<usize>();
        let rows = shape.first().copied().unwrap_or(1);
        // A single row may have any stride, and no use for it.
        let stride = if rows > 1 { row_stride * size } else { row };
        HostRows { rows, row, stride }
    }

    /// Bytes without padding.
    pub(crate) fn bytes(&self) -> usize {
        self.rows * self.row
    }

    /// Where the bytes `range` lie in the buffer, piece by piece.
    fn pieces(self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= range.end {
                return None;
            }
            let (row, column) = (at / self.row, at % self.row);
            let len = match self.stride == self.row {
                true => range.end - at,
                false => (self.row - column).min(range.end - at),
            };
            let start = row * self.stride + column;
            at += len;
            Some(start..start + len)
        })
    }

    /// Copies the bytes from `start` on out of the buffer until `to` is full.
    fn gather(self, buffer: &[u8], start: usize, to: &mut [u8]) {
        to.par_chunks_mut(SHARE).enumerate().for_each(|(i, share)| {
            let begin = start + i * SHARE;
            let mut rest = &mut *share;
            for piece in self.pieces(begin..begin + rest.len()) {
                let (now, later) = rest.split_at_mut(piece.len());
                now.copy_from_slice(&buffer[piece]);
                rest = later;
            }
        });
    }

    /// Copies `from` into the buffer, as the bytes from `start` on.
    fn scatter(self, from: &[u8], start: usize, buffer: &mut [u8]) {
        let end = start + from.len();
        if self.stride == self.row || from.is_empty() {
            return copy(&mut buffer[start..end], from);
        }
        let (first, last) = (start / self.row, (end - 1) / self.row);
        buffer[first * self.stride..]
            .par_chunks_mut(self.stride)
            .take(last - first + 1)
            .with_min_len(SHARE.div_ceil(self.row))
            .enumerate()
            .for_each(|(i, to)| {
                let row = (first + i) * self.row;
                let (from_here, to_here) = (start.max(row), end.min(row + self.row));
                copy(
                    &mut to[from_here - row..to_here - row],
                    &from[from_here - start..to_here - start],
                );
            });
    }
}

/// Copies bytes, a thread's share at a time.
fn copy(to: &mut [u8], from: &[u8]) {
    let shares = to.par_chunks_mut(SHARE).zip(from.par_chunks(SHARE));
    shares.for_each(|(to, from)| to.copy_from_slice(from));
}

/// A range of bytes in chunks.
pub(crate) fn chunks(bytes: Range<usize>, chunk: usize) -> impl Iterator<Item = Range<usize>> {
    let Range { start, end } = bytes;
    (start..end).step_by(chunk).map(move |start| start..end.min(start + chunk))
}

#[derive(Debug, Default)]
struct Buffers {
    /// Buffers that nobody holds, the one that was given back first in front.
    idle: Vec<Pinned>,
    made: usize,
}

/// The pinned buffers of one stream.
#[derive(Debug)]
pub(crate) struct Staging {
    driver: Arc<dyn Driver>,
    buffers: Mutex<Buffers>,
}

/// A buffer that nobody else uses until it is dropped.
#[derive(Debug)]
struct Lease<'s> {
    staging: &'s Staging,
    /// `None` only while being dropped.
    buffer: Option<Pinned>,
}

impl Staging {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Staging {
        Staging { driver, buffers: Mutex::default() }
    }

    /// Puts a copy of host rows to `to` on the way; `from` may be reused when this returns, and
    /// what comes on the stream next finds the bytes there.
    ///
    /// # Safety
    /// [`HostRows::bytes`] bytes at `to` are allocated, and only the stream uses them.
    pub(crate) unsafe fn send(&self, to: u64, from: &[u8], rows: HostRows) -> Result<()> {
        // SAFETY: so many bytes at `to` are allocated, and only the stream uses them: the caller's
        // promise.
        unsafe { self.send_part(to, from, rows, 0..rows.bytes()) }
    }

    /// The same for the bytes `part` of the rows, without padding.
    ///
    /// # Safety
    /// As many bytes at `to` are allocated, and only the stream uses them.
    pub(crate) unsafe fn send_part(
        &self,
        to: u64,
        from: &[u8],
        rows: HostRows,
        part: Range<usize>,
    ) -> Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        let mut carrier = self.carrier([part.len(), 0])?;
        self.driver.meet()?;
        let mut chunks = chunks(part.clone(), self.driver.chunk());
        let sent = chunks.try_for_each(|range| {
            let to = to + (range.start - part.start) as u64;
            // SAFETY: the caller's contract; the stream meets the queue before and after.
            unsafe { carrier.send(to, from, rows, range) }
        });
        // Even after an error: the memory must not be used under a copy that is under way.
        self.driver.meet().and(sent)
    }

    /// Copies the bytes at `from` to host rows and waits for them.
    ///
    /// # Safety
    /// [`HostRows::bytes`] bytes at `from` are allocated, and initialised once the stream has come
    /// here.
    pub(crate) unsafe fn receive(&self, to: &mut [u8], from: u64, rows: HostRows) -> Result<()> {
        if rows.bytes() == 0 {
            return Ok(());
        }
        let mut carrier = self.carrier([0, rows.bytes()])?;
        self.driver.meet()?;
        let mut chunks = chunks(0..rows.bytes(), self.driver.chunk());
        let mut shore = Alone(to, rows);
        let fetched = chunks.try_for_each(|range| {
            // SAFETY: the caller's contract; the stream meets the queue before and after.
            unsafe { carrier.fetch(from + range.start as u64, 0, range, &mut shore) }
        });
        let fetched = fetched.and_then(|()| carrier.land(&mut shore));
        // Without an error, the last copy was waited for.
        if fetched.is_err() { self.driver.meet().and(fetched) } else { fetched }
    }

    /// Buffers for transfers of so many bytes to the device and from it, taken now, so that a
    /// transfer that has begun wants for nothing.
    ///
    /// # Errors
    /// The stream is being captured; no memory.
    pub(crate) fn carrier(&self, [up, down]: [usize; 2]) -> Result<Carrier<'_>> {
        not_captured(&*self.driver, "a host tensor")?;
        let turn = |bytes: usize| {
            let buffers = bytes.div_ceil(self.driver.chunk()).min(DEPTH);
            Ok(Turn { leases: (0..buffers).map(|_| self.lease()).collect::<Result<_>>()?, next: 0 })
        };
        Ok(Carrier { driver: &*self.driver, up: turn(up)?, down: turn(down)?, landing: None })
    }

    /// A buffer whose last copy is done.
    fn lease(&self) -> Result<Lease<'_>> {
        let idle = {
            let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
            let done = buffers.idle.iter().position(|buffer| self.driver.copied(buffer));
            match done {
                Some(i) => Some(buffers.idle.remove(i)),
                None if buffers.made >= BUFFERS && !buffers.idle.is_empty() => {
                    Some(buffers.idle.remove(0))
                }
                None => {
                    buffers.made += 1;
                    None
                }
            }
        };
        let buffer = match idle {
            Some(buffer) => buffer,
            None => self.driver.pinned(self.driver.chunk()).inspect_err(|_| {
                self.buffers.lock().unwrap_or_else(PoisonError::into_inner).made -= 1;
            })?,
        };
        let lease = Lease { staging: self, buffer: Some(buffer) };
        self.driver.await_copy(lease.pinned())?;
        Ok(lease)
    }
}

/// Buffers that are used in turn.
#[derive(Debug)]
struct Turn<'s> {
    leases: Vec<Lease<'s>>,
    next: usize,
}

impl<'s> Turn<'s> {
    fn next(&mut self) -> usize {
        self.next = (self.next + 1) % self.leases.len();
        self.next
    }
}

/// The buffers of one transfer, in the middle of it.
#[derive(Debug)]
pub(crate) struct Carrier<'s> {
    driver: &'s dyn Driver,
    up: Turn<'s>,
    down: Turn<'s>,
    /// What the last `fetch` has put on the way: the buffer, the output, its bytes.
    landing: Option<(usize, usize, Range<usize>)>,
}

impl Carrier<'_> {
    /// Puts a copy of the bytes `range` of host rows to `to` on the way: one chunk.
    ///
    /// # Safety
    /// As for [`Driver::upload`].
    pub(crate) unsafe fn send(
        &mut self,
        to: u64,
        from: &[u8],
        rows: HostRows,
        range: Range<usize>,
    ) -> Result<()> {
        let i = self.up.next();
        let lease = &mut self.up.leases[i];
        self.driver.await_copy(lease.pinned())?;
        rows.gather(from, range.start, &mut lease.bytes_mut()[..range.len()]);
        // SAFETY: the caller's contract; whoever writes the buffer next waits for this copy.
        unsafe { self.driver.upload(lease.pinned(), to, range.len()) }
    }

    /// Puts a copy of the bytes at `from` on the way, one chunk, the bytes `range` of an output's host
    /// rows. What the call before put on the way is brought to its own meanwhile.
    ///
    /// # Safety
    /// As for [`Driver::download`].
    pub(crate) unsafe fn fetch(
        &mut self,
        from: u64,
        output: usize,
        range: Range<usize>,
        shore: &mut dyn Shore,
    ) -> Result<()> {
        let i = self.down.next();
        if self.down.leases.len() < DEPTH {
            self.land(shore)?;
        }
        let lease = &self.down.leases[i];
        // SAFETY: the bytes are there to be read and nobody writes them (the caller's promise, as
        // for `download`); the buffer's last copy has landed, and this one is waited for before it
        // is read.
        unsafe { self.driver.download(lease.pinned(), from, range.len())? };
        self.land(shore)?;
        self.landing = Some((i, output, range));
        Ok(())
    }

    /// Brings to its host rows what the last `fetch` has put on the way.
    pub(crate) fn land(&mut self, shore: &mut dyn Shore) -> Result<()> {
        let Some((i, output, range)) = self.landing.take() else { return Ok(()) };
        let lease = &mut self.down.leases[i];
        self.driver.await_copy(lease.pinned())?;
        if let Some((to, rows)) = shore.rows(output) {
            rows.scatter(&lease.bytes_mut()[..range.len()], range.start, to);
        }
        Ok(())
    }
}

/// Host rows that are fetched, by the number of the output that they are.
pub(crate) trait Shore {
    fn rows(&mut self, output: usize) -> Option<(&mut [u8], HostRows)>;
}

/// One output alone.
struct Alone<'a>(&'a mut [u8], HostRows);

impl Shore for Alone<'_> {
    fn rows(&mut self, _output: usize) -> Option<(&mut [u8], HostRows)> {
        Some((self.0, self.1))
    }
}

impl Lease<'_> {
    fn pinned(&self) -> &Pinned {
        self.buffer.as_ref().expect("held until dropped")
    }

    /// The buffer, whose last copy is done.
    fn bytes_mut(&mut self) -> &mut [u8] {
        let Pinned { address, bytes, .. } = *self.pinned();
        // SAFETY: initialised memory of the buffer, which this lease alone holds; the copy that
        // last used it was waited for.
        unsafe { std::slice::from_raw_parts_mut(address, bytes) }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            let mut buffers = self.staging.buffers.lock().unwrap_or_else(PoisonError::into_inner);
            buffers.idle.push(buffer);
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let buffers = self.buffers.get_mut().unwrap_or_else(PoisonError::into_inner);
        for buffer in buffers.idle.drain(..) {
            // A copy that cannot be waited for is one that the device will not make any more.
            let _ = self.driver.await_copy(&buffer);
            // SAFETY: the driver made it, and its copies are done.
            unsafe { self.driver.free_pinned(buffer) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathered_rows_are_the_rows_without_their_padding_and_scatter_back() {
        for (rows, row, stride) in
            [(1, 7, 7), (3, 5, 8), (4, 3, 3), (5, 1, 4), (2, 700_001, 700_003)]
        {
            let host = HostRows { rows, row, stride };
            let buffer: Vec<u8> = (0..rows * stride).map(|i| (i * 31 % 251) as u8).collect();
            let plain: Vec<u8> =
                (0..rows * row).map(|i| buffer[i / row * stride + i % row]).collect();
            for chunk in
                [1, 2, 4, 7, 1000, 300_000, 1 << 20].into_iter().filter(|c| row / c < 10_000)
            {
                let mut back = vec![0xee; buffer.len()];
                let mut got = Vec::new();
                for range in chunks(0..host.bytes(), chunk) {
                    let mut part = vec![0; range.len()];
                    host.gather(&buffer, range.start, &mut part);
                    host.scatter(&part, range.start, &mut back);
                    got.extend(part);
                }
                assert!(got == plain, "{rows} × {row}, stride {stride}, chunks of {chunk}");
                for (i, (&b, &g)) in buffer.iter().zip(&back).enumerate() {
                    assert_eq!(g, if i % stride < row { b } else { 0xee }, "byte {i}");
                }
            }
        }
    }
}
