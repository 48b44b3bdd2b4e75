//! Whether what is about to be allocated fits, asked before the first byte is.

use super::failure::Failure;
use std::fs;

/// An error where `bytes` more are known not to fit; `what` says what they are for.
///
/// Linux hands out memory that it does not have and ends the process that touches it; so ask.
/// Where there is nobody to ask, the allocation itself is the test.
pub(super) fn require(bytes: u128, what: &str) -> Result<(), Failure> {
    match available() {
        Some(free) if bytes > u128::from(free) => Err(Failure::failed(format!(
            "memory: expected at least {} for {what}, got {} available",
            in_words(bytes),
            in_words(free.into())
        ))),
        _ => Ok(()),
    }
}

/// Bytes that this process can still use: the system's, and within its control group.
fn available() -> Option<u64> {
    let system = fs::read_to_string("/proc/meminfo").ok().and_then(|s| mem_available(&s));
    let group = group_available();
    match (system, group) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The line `MemAvailable:  123 kB`, in bytes.
fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Limit less use of the control group (version 2) that containers see at its root; file pages
/// count as free, for they can be dropped.
fn group_available() -> Option<u64> {
    let read = |name: &str| fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok();
    let limit: u64 = read("memory.max")?.trim().parse().ok()?; // "max" where there is no limit
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    let pages = read("memory.stat")
        .and_then(|s| s.lines().find_map(|l| l.strip_prefix("file ")?.trim().parse().ok()))
        .unwrap_or(0u64);
    Some(limit.saturating_sub(used.saturating_sub(pages)))
}

/// A size with a unit that a person can read.
pub(super) fn in_words(bytes: u128) -> String {
    match bytes {
        b if b < 10_240 => format!("{b} bytes"),
        b if b < 10 << 20 => format!("{:.1} KiB", b as f64 / 1024.0),
        b if b < 10 << 30 => format!("{:.1} MiB", b as f64 / (1024.0 * 1024.0)),
        b => format!("{:.1} GiB", b as f64 / (1024.0 * 1024.0 * 1024.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_bytes() {
        let text = "MemTotal: 100 kB\nMemAvailable:   24000 kB\nBuffers: 1 kB\n";
        assert_eq!(mem_available(text), Some(24_576_000));
        assert_eq!(mem_available("MemTotal: 100 kB\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_cannot_fit_is_refused() {
        assert!(require(1, "a test").is_ok());
        let failure = require(1 << 80, "a test").unwrap_err();
        assert_eq!(failure.status, super::super::failure::FAILED);
    }
}
