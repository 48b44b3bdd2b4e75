//! Workspace: blocks of device memory that calls take and give back, reused in stream order.
//!
//! A block that a call gives back may be handed to the next call at once: both run on the same
//! stream, so the second's kernels start when the first's have ended.

use super::driver::Driver;
use crate::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};

/// Blocks are multiples of this, so that neighbouring sizes share them.
const GRAIN: usize = 512;
/// A block is reused for a request down to this fraction of it.
const WASTE: usize = 4;

/// Free blocks of one stream.
#[derive(Debug)]
pub(crate) struct Pool {
    driver: Arc<dyn Driver>,
    free: Mutex<Vec<(usize, u64)>>,
}

impl Pool {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Pool {
        Pool { driver, free: Mutex::new(Vec::new()) }
    }

    /// A block of at least `bytes` bytes, undefined.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] even after all free blocks have been given up.
    pub(crate) fn take(&self, argument: &'static str, bytes: usize) -> Result<Block<'_>> {
        let bytes = bytes
            .max(1)
            .checked_next_multiple_of(GRAIN)
            .ok_or(Error::OutOfMemory { argument, bytes })?;
        let found = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let fits =
                |&(_, &(size, _)): &(usize, &(usize, u64))| size >= bytes && size / WASTE <= bytes;
            let best = free.iter().enumerate().filter(fits).min_by_key(|(_, (size, _))| *size);
            best.map(|(i, _)| i).map(|i| free.swap_remove(i))
        };
        if let Some((bytes, address)) = found {
            let block = Block { pool: self, bytes, address };
            // SAFETY: the block was free.
            unsafe { self.driver.reused(address, bytes)? };
            return Ok(block);
        }
        let address = match self.driver.allocate(argument, bytes) {
            Err(Error::OutOfMemory { .. }) => {
                self.trim();
                self.driver.allocate(argument, bytes)?
            }
            other => other?,
        };
        Ok(Block { pool: self, bytes, address })
    }

    /// Gives all free blocks back to the device; returns their bytes.
    pub(crate) fn trim(&self) -> usize {
        let blocks = std::mem::take(&mut *self.free.lock().unwrap_or_else(PoisonError::into_inner));
        for &(_, address) in &blocks {
            // SAFETY: a free block is used by no call, and frees are stream-ordered.
            unsafe { self.driver.free(address) };
        }
        blocks.iter().map(|b| b.0).sum()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.trim();
    }
}

/// Memory that a call works in; it goes back to its pool when dropped.
#[derive(Debug)]
pub(crate) struct Block<'p> {
    pool: &'p Pool,
    bytes: usize,
    address: u64,
}

impl Block<'_> {
    pub(crate) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push((self.bytes, self.address));
    }
}
