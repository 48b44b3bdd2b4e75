//! Host tensors on their way to the device and back, chunk by chunk through pinned buffers: while
//! the device copies one chunk, the host fills or empties the next.
//!
//! On the device such a tensor lies without padding, whatever its row stride on the host.

use super::driver::{Driver, Pinned, not_captured};
use crate::{Result, Shape};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers of a stream that are made before one that is still being copied is waited for.
const BUFFERS: usize = 4;
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
        HostRows { rows: shape.first().copied().unwrap_or(1), row, stride: row_stride * size }
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
        let mut rest = from;
        for piece in self.pieces(start..start + from.len()) {
            let (now, later) = rest.split_at(piece.len());
            buffer[piece].copy_from_slice(now);
            rest = later;
        }
    }
}

/// `0..bytes` in chunks.
fn chunks(bytes: usize, chunk: usize) -> impl Iterator<Item = Range<usize>> {
    (0..bytes).step_by(chunk).map(move |start| start..bytes.min(start + chunk))
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
        if rows.bytes() == 0 {
            return Ok(());
        }
        not_captured(&*self.driver, "a host tensor")?;
        self.driver.copies_after_kernels()?;
        let chunks = chunks(rows.bytes(), self.driver.chunk());
        let sent: Result<()> = chunks.into_iter().try_for_each(|range| {
            let mut lease = self.lease()?;
            rows.gather(from, range.start, &mut lease.bytes_mut()[..range.len()]);
            // SAFETY: the caller's contract; the lease's next holder waits for this copy.
            unsafe { self.driver.upload(lease.pinned(), to + range.start as u64, range.len()) }
        });
        // Even after an error: the memory must not be used under a copy that is under way.
        self.driver.kernels_after_copies().and(sent)
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
        not_captured(&*self.driver, "a host tensor")?;
        self.driver.copies_after_kernels()?;
        let mut under_way: Option<(Lease<'_>, usize, usize)> = None;
        let chunks = chunks(rows.bytes(), self.driver.chunk());
        for range in chunks.map(Some).chain([None]) {
            let next = match range {
                Some(range) => {
                    let lease = self.lease()?;
                    let at = from + range.start as u64;
                    // SAFETY: the caller's contract; the buffer is waited for before it is read.
                    unsafe { self.driver.download(lease.pinned(), at, range.len())? };
                    Some((lease, range.start, range.len()))
                }
                None => None,
            };
            if let Some((mut lease, start, len)) = std::mem::replace(&mut under_way, next) {
                self.driver.await_copy(lease.pinned())?;
                rows.scatter(&lease.bytes_mut()[..len], start, to);
            }
        }
        Ok(())
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
                for range in chunks(host.bytes(), chunk) {
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
