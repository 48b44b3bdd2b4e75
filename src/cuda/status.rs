//! Errors that only a kernel can find: noted on the device, told where a result is next read.

use super::args::Status;
use super::driver::Driver;
use crate::{Error, Result};
use std::sync::Arc;

/// The status word of a stream.
#[derive(Debug)]
pub(crate) struct StatusWord {
    driver: Arc<dyn Driver>,
    address: u64,
}

impl StatusWord {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Result<StatusWord> {
        let address = driver.allocate("status", size_of::<Status>())?;
        let word = StatusWord { driver, address };
        word.reset()?;
        Ok(word)
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    fn reset(&self) -> Result<()> {
        // SAFETY: the word is this object's own.
        unsafe { self.driver.clear(self.address, size_of::<Status>()) }
    }

    /// Waits for the stream; the first error since the last call, which is forgotten then.
    pub(crate) fn check(&self) -> Result<()> {
        let mut bytes = [0u8; size_of::<Status>()];
        // SAFETY: the word is this object's own, and was initialised.
        unsafe { self.driver.copy_out(&mut bytes, self.address)? };
        let field = |i: usize| {
            let mut number = [0u8; 8];
            number.copy_from_slice(&bytes[8 * i..8 * i + 8]);
            i64::from_ne_bytes(number)
        };
        let error = match field(0) {
            0 => return Ok(()),
            1 => Error::Target {
                row: field(1) as usize,
                value: field(2),
                classes: field(3) as usize,
                ignore_index: field(4),
            },
            _ => Error::NotFinite {
                argument: "weight",
                index: field(1) as usize,
                got: f32::from_bits(field(2) as u32),
            },
        };
        self.reset()?;
        Err(error)
    }
}

impl Drop for StatusWord {
    fn drop(&mut self) {
        // SAFETY: the word is this object's own and goes with it.
        unsafe { self.driver.free(self.address) };
    }
}
