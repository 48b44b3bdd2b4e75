//! Errors that only a kernel can find: noted on the device, told where a result is next read.

use super::args::Status;
use super::driver::{Driver, not_captured};
use crate::error::Count;
use crate::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a status word.
pub(crate) const BYTES: usize = size_of::<Status>();

/// Waits for the stream; the error that kernels noted in the word at `address`.
///
/// # Safety
/// A word is allocated there, and was zeroed.
pub(crate) unsafe fn read(driver: &dyn Driver, address: u64) -> Result<()> {
    not_captured(driver, "a wait for results")?;
    let mut bytes = [0u8; BYTES];
    // SAFETY: the caller's contract.
    unsafe { driver.copy_out(&mut bytes, address)? };
    let field = |i: usize| {
        let mut number = [0u8; 8];
        number.copy_from_slice(&bytes[8 * i..8 * i + 8]);
        i64::from_ne_bytes(number)
    };
    match field(0) {
        0 => Ok(()),
        kind @ (1 | 8) => Err(Error::Target {
            argument: if kind == 1 { "target" } else { "labels" },
            row: field(1) as usize,
            value: field(2),
            classes: field(3) as usize,
            ignore_index: field(4),
        }),
        2 => Err(Error::NotFinite {
            argument: "weight",
            index: field(1) as usize,
            got: f32::from_bits(field(2) as u32),
        }),
        3 => Err(Error::Value {
            argument: "row_weight",
            expected: "finite numbers ≥ 0".into(),
            got: format!("{} at row {}", f32::from_bits(field(2) as u32), field(1)),
        }),
        4 => Err(Error::Value {
            argument: "target",
            expected: format!("a class in [0, {})", field(3)),
            got: format!("{} at row {}", field(2), field(1)),
        }),
        6 => Err(Error::Value {
            argument: "index",
            expected: format!("a class in [0, {})", field(3)),
            got: format!("{} at {}", field(2), field(1)),
        }),
        7 => Err(Error::Value {
            argument: "target",
            expected: "a class that the sampler can draw".into(),
            got: format!("{}, of count 0, at row {}", field(2), field(1)),
        }),
        _ => Err(Error::Value {
            argument: "capacities",
            expected: format!("at most {} of cluster {}", Count(field(3), "row"), field(1)),
            got: Count(field(2), "row").to_string(),
        }),
    }
}

/// The status word of a stream, for calls whose results stay on the device.
#[derive(Debug)]
pub(crate) struct StatusWord {
    driver: Arc<dyn Driver>,
    address: u64,
    /// Held while the word is read and zeroed, so that an error is told once.
    reading: Mutex<()>,
}

impl StatusWord {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Result<StatusWord> {
        let address = driver.allocate("status", BYTES)?;
        let word = StatusWord { driver, address, reading: Mutex::new(()) };
        word.reset()?;
        Ok(word)
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    fn reset(&self) -> Result<()> {
        // SAFETY: the word is this object's own.
        unsafe { self.driver.clear(self.address, BYTES) }
    }

    /// Waits for the stream; the first error since the last call, which is forgotten then.
    ///
    /// Until the word is zeroed again, kernels on other threads' behalf note nothing more in it:
    /// the first error stands, and what follows it is not kept.
    pub(crate) fn check(&self) -> Result<()> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the word is this object's own, and was zeroed.
        let noted = unsafe { read(&*self.driver, self.address) };
        if matches!(
            noted,
            Err(Error::Target { .. } | Error::NotFinite { .. } | Error::Value { .. })
        ) {
            self.reset()?;
        }
        noted
    }
}

impl Drop for StatusWord {
    fn drop(&mut self) {
        // SAFETY: the word is this object's own and goes with it.
        unsafe { self.driver.free(self.address) };
    }
}
