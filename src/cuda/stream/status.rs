//! Errors that only a kernel can find: noted on the device, told where a result is next read.

use crate::base::error::{Count, Error, Result};
use crate::base::validate::Range;
use crate::code::args::Status;
use crate::cuda::driver::{Driver, not_captured};
use crate::spec::class_subset::CheckedSubset;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Bytes of a status word.
pub(crate) const BYTES: usize = size_of::<Status>();

/// Waits for the stream; the error that kernels noted in the word at `address`.
///
/// # Safety
/// A word is allocated there, and was zeroed.
pub(crate) unsafe fn read(driver: &dyn Driver, address: u64) -> Result<()> {
    not_captured(driver, "a wait for results")?;
    let mut bytes = [0u8; BYTES];
    // SAFETY: a word of that many bytes is allocated and was zeroed, so it is initialised: the
    // caller's promise.
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
        9 => {
            let (argument, range) = match field(3) {
                0 => ("variance", Range::NotNegative),
                _ => ("input", Range::Probability),
            };
            Err(range.error(argument, f32::from_bits(field(2) as u32), field(1) as usize))
        }
        kind @ (10 | 11) => Err(Error::Value {
            argument: if kind == 10 { "temperature" } else { "teacher_temperature" },
            expected: "finite numbers > 0".into(),
            got: format!("{} at row {}", f32::from_bits(field(2) as u32), field(1)),
        }),
        12 => {
            let at = (field(1) as usize, field(4) as usize);
            Err(CheckedSubset::bad_id(field(3) as usize, at, field(2)))
        }
        13 => Err(CheckedSubset::bad_count(field(3) as usize, field(1) as usize, field(2))),
        14 => Err(CheckedSubset::no_target(field(1) as usize, field(2))),
        15 => Err(CheckedSubset::no_class(field(1) as usize)),
        _ => Err(Error::Value {
            argument: "capacities",
            expected: format!("at most {} of cluster {}", Count(field(3), "row"), field(1)),
            got: Count(field(2), "row").to_string(),
        }),
    }
}

/// The status word of a stream, for calls whose results stay on the device. A stream that is captured
/// when it comes has it from its first call after that on: an allocation would go into the graph.
#[derive(Debug)]
pub(crate) struct StatusWord {
    driver: Arc<dyn Driver>,
    address: OnceLock<u64>,
    /// Held while the word is made, or read and zeroed, so that an error is told once.
    reading: Mutex<()>,
}

impl StatusWord {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Result<StatusWord> {
        let word = StatusWord { driver, address: OnceLock::new(), reading: Mutex::new(()) };
        if !word.driver.capturing()? {
            word.address()?;
        }
        Ok(word)
    }

    /// # Errors
    /// There is none yet, and the stream is captured or memory cannot be had.
    pub(crate) fn address(&self) -> Result<u64> {
        if let Some(&address) = self.address.get() {
            return Ok(address);
        }
        let _making = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&address) = self.address.get() {
            return Ok(address);
        }
        not_captured(&*self.driver, "a first call sets up its stream")?;
        let address = self.driver.allocate("status", BYTES)?;
        // SAFETY: allocated above, known to nobody else; where it cannot be zeroed, given back.
        unsafe {
            self.driver.clear(address, BYTES).inspect_err(|_| self.driver.free(address))?;
        }
        Ok(*self.address.get_or_init(|| address))
    }

    /// Waits for the stream; the first error since the last call, which is forgotten then.
    ///
    /// Until the word is zeroed again, kernels on other threads' behalf note nothing more in it:
    /// the first error stands, and what follows it is not kept.
    pub(crate) fn check(&self) -> Result<()> {
        let Some(&address) = self.address.get() else {
            // No call has noted anything.
            not_captured(&*self.driver, "a wait for results")?;
            return self.driver.synchronize();
        };
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the word is this object's own, and was zeroed.
        let noted = unsafe { read(&*self.driver, address) };
        if matches!(
            noted,
            Err(Error::Target { .. } | Error::NotFinite { .. } | Error::Value { .. })
        ) {
            // SAFETY: the word is this object's own, as long as that, and allocated until it is
            // dropped.
            unsafe { self.driver.clear(address, BYTES)? };
        }
        noted
    }
}

impl Drop for StatusWord {
    fn drop(&mut self) {
        if let Some(&address) = self.address.get() {
            // SAFETY: the word is this object's own and goes with it.
            unsafe { self.driver.free(address) };
        }
    }
}

#[cfg(all(test, feature = "emulator"))]
mod tests {
    use super::*;
    use crate::cuda::emulated::driver::Emulated;
    use crate::cuda::stream::Stream;
    use crate::emulator::Description;

    #[test]
    fn a_stream_that_comes_captured_allocates_nothing_until_it_is_free() {
        let driver = Arc::new(Emulated::new(Description::tiny(), None).unwrap());
        driver.begin_capture();
        let stream = Stream::new(driver.clone()).unwrap();
        assert!(stream.noted.address().unwrap_err().to_string().contains("captured"));
        assert_eq!(driver.calls().unwrap().allocations, 0);
        assert!(driver.end_capture().is_empty());
        stream.check().unwrap();
        let address = stream.noted.address().unwrap();
        assert_eq!(address, stream.noted.address().unwrap());
        assert_eq!(driver.calls().unwrap().allocations, 1);
        // Once it is there, a captured call may use it.
        driver.begin_capture();
        assert_eq!(address, stream.noted.address().unwrap());
        driver.end_capture();
        stream.check().unwrap();
    }
}
