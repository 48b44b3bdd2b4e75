//! Workspace: blocks of device memory that calls take and give back, reused in stream order.
//!
//! A block that a call gives back may be handed to the next call at once, on whatever thread: both
//! run on the same stream, and a block is given back only when all that uses it is on the stream,
//! so that the second call's kernels start when the first's have ended.
//!
//! A block that was used while the stream was captured into a graph is *kept*: the graph names its
//! address for good, so it is never given back to the device while the pool lives.

use crate::base::error::{Error, Result};
use crate::cuda::driver::Driver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Blocks are multiples of this, so that neighbouring sizes share them.
const GRAIN: usize = 512;
/// A block is reused for a request down to this fraction of it.
const WASTE: usize = 4;

/// Device memory of a pool, as a plain value: whoever holds it gives it back once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) address: u64,
    bytes: usize,
    /// Whether a graph names it.
    kept: bool,
}

/// Free blocks of one stream.
#[derive(Debug)]
pub(crate) struct Pool {
    driver: Arc<dyn Driver>,
    free: Mutex<Vec<Span>>,
}

impl Pool {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Pool {
        Pool { driver, free: Mutex::new(Vec::new()) }
    }

    /// A block of at least `bytes` bytes, undefined, for as long as the value lives.
    ///
    /// # Errors
    /// As [`Pool::span`].
    pub(crate) fn take(&self, argument: &'static str, bytes: usize) -> Result<Block<'_>> {
        Ok(Block { pool: self, span: Some(self.span(argument, bytes)?) })
    }

    /// A block of at least `bytes` bytes, undefined, until [`Pool::give`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] even after all free blocks have been given up; none free while the
    /// stream is captured.
    pub(crate) fn span(&self, argument: &'static str, bytes: usize) -> Result<Span> {
        let bytes = bytes.max(1).checked_next_multiple_of(GRAIN).ok_or(Error::OutOfMemory {
            argument,
            bytes,
            free: None,
        })?;
        let capturing = self.driver.capturing()?;
        if let Some(mut span) = self.reuse(bytes) {
            span.kept |= capturing;
            // SAFETY: the block was free.
            let told = unsafe { self.driver.reused(span.address, span.bytes) };
            if let Err(error) = told {
                self.give(span);
                return Err(error);
            }
            return Ok(span);
        }
        if capturing {
            let reason = format!(
                "no workspace of {bytes} bytes for {argument} while the stream is captured into a \
                 graph; make the same call once before"
            );
            return Err(Error::Device { reason });
        }
        let address = match self.driver.allocate(argument, bytes) {
            Err(Error::OutOfMemory { .. }) => {
                self.trim();
                // Memory that was given back is there once the stream has come to it.
                self.driver.synchronize()?;
                self.driver.allocate(argument, bytes)?
            }
            other => other?,
        };
        Ok(Span { address, bytes, kept: false })
    }

    /// The smallest free block that fits.
    fn reuse(&self, bytes: usize) -> Option<Span> {
        let mut free = self.free();
        let fits = |&(_, span): &(usize, &Span)| span.bytes >= bytes && span.bytes / WASTE <= bytes;
        let best = free.iter().enumerate().filter(fits).min_by_key(|(_, span)| span.bytes);
        best.map(|(i, _)| i).map(|i| free.swap_remove(i))
    }

    /// Takes a block back. All that uses it is on the stream.
    pub(crate) fn give(&self, span: Span) {
        self.free().push(span);
    }

    /// Gives all free blocks back to the device, but for those that a graph names; returns their
    /// bytes. None while the stream is captured.
    pub(crate) fn trim(&self) -> usize {
        if !matches!(self.driver.capturing(), Ok(false)) {
            return 0;
        }
        let mut free = self.free();
        let (kept, blocks): (Vec<_>, Vec<_>) = free.drain(..).partition(|span| span.kept);
        *free = kept;
        drop(free);
        self.release(&blocks)
    }

    fn release(&self, blocks: &[Span]) -> usize {
        for span in blocks {
            // SAFETY: a free block is used by no call, and frees are stream-ordered.
            unsafe { self.driver.free(span.address) };
        }
        blocks.iter().map(|span| span.bytes).sum()
    }

    fn free(&self) -> MutexGuard<'_, Vec<Span>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let blocks = std::mem::take(&mut *self.free());
        self.release(&blocks);
    }
}

/// Memory that a call works in; it goes back to its pool when dropped.
#[derive(Debug)]
pub(crate) struct Block<'p> {
    pool: &'p Pool,
    /// `None` only while being dropped.
    span: Option<Span>,
}

impl Block<'_> {
    pub(crate) fn address(&self) -> u64 {
        self.span.as_ref().map_or(0, |span| span.address)
    }
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            self.pool.give(span);
        }
    }
}

#[cfg(all(test, feature = "emulator"))]
mod tests {
    use super::*;
    use crate::cuda::emulated::driver::Emulated;
    use crate::emulator::Description;

    #[test]
    fn what_was_given_up_for_room_is_waited_for() {
        let card = Description { memory: 1 << 20, ..Description::tiny() };
        let driver = Arc::new(Emulated::new(card, None).unwrap());
        let pool = Pool::new(driver.clone());
        drop(pool.take("a", 600 << 10).unwrap());
        let waits = driver.calls().unwrap().waits;
        // Too large beside the free block, and larger than it.
        drop(pool.take("b", 700 << 10).unwrap());
        assert_eq!(driver.calls().unwrap().waits, waits + 1);
        assert!(matches!(pool.take("c", 2 << 20), Err(Error::OutOfMemory { argument: "c", .. })));
    }
}
