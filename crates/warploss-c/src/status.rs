//! How a call ended, and the words for it.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a call ended.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum warploss_status {
    /// Done; on a CUDA device: begun.
    Ok = 0,
    /// An argument is not what it has to be; nothing was written to any of the caller's buffers.
    BadArgument = 1,
    /// The device failed, or memory ran out, before anything was written.
    Failed = 2,
    /// A fault of the library itself, which was caught; what was to be written may be, in part.
    Fault = 3,
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::new(CString::default());
}

/// What was wrong with this thread's last call that was not done; empty before one. Valid until the thread's next call that
/// is not done.
#[unsafe(no_mangle)]
pub extern "C" fn warploss_last_error() -> *const c_char {
    LAST.with_borrow(|last| last.as_ptr())
}

/// The library's version.
#[unsafe(no_mangle)]
pub extern "C" fn warploss_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"unknown",
        };
    VERSION.as_ptr()
}

/// Why a call was not done.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: warploss_status,
    text: String,
}

pub(crate) type Result<T> = std::result::Result<T, Refusal>;

impl Refusal {
    pub(crate) fn argument(argument: &str, expected: &str, got: impl std::fmt::Display) -> Refusal {
        let text = format!("{argument}: expected {expected}, got {got}");
        Refusal { status: warploss_status::BadArgument, text }
    }
}

impl From<warploss::Error> for Refusal {
    fn from(error: warploss::Error) -> Refusal {
        let status = match error {
            warploss::Error::OutOfMemory { .. }
            | warploss::Error::Device { .. }
            | warploss::Error::Io { .. } => warploss_status::Failed,
            _ => warploss_status::BadArgument,
        };
        Refusal { status, text: error.to_string() }
    }
}

/// Runs a call, and keeps what it says.
pub(crate) fn call(work: impl FnOnce() -> Result<()>) -> warploss_status {
    let refusal = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return warploss_status::Ok,
        Ok(Err(refusal)) => refusal,
        Err(_) => {
            let text = "a fault of the library: please report what was called".to_owned();
            Refusal { status: warploss_status::Fault, text }
        }
    };
    let text = CString::new(refusal.text.replace('\0', " ")).unwrap_or_default();
    LAST.with_borrow_mut(|last| *last = text);
    refusal.status
}
