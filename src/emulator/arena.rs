//! Device memory: one reserved range of addresses, committed page by page as it is touched.
//!
//! Beside every byte lies a shadow byte that is 1 once the byte was written. Allocations are far
//! apart and an address is not soon used again, so that an access past the end, or after the free,
//! hits no neighbour. A sparse allocation of many gigabytes costs what is touched of it.

use super::fault::{Fault, FaultKind};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

const PAGE: u64 = 4096;
/// Allocations up to here are filled with NaN patterns, so that what nobody wrote is seen.
const POISON_BYTES: u64 = 1 << 20;

/// The addresses, shared by all emulated devices.
struct Range {
    base: u64,
    bytes: u64,
    /// From an address to its shadow.
    shadow: u64,
    free: Mutex<Free>,
}

struct Free {
    /// Never used from here on.
    next: u64,
    /// Given back, oldest first: address, length.
    returned: Vec<(u64, u64)>,
}

fn reserve(bytes: u64) -> Option<u64> {
    // SAFETY: an anonymous mapping at no address in particular.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    (at != libc::MAP_FAILED).then_some(at as u64)
}

/// The range; `None` where not even 1 GiB of addresses can be had, now or when first asked.
fn range() -> Option<&'static Range> {
    static RANGE: OnceLock<Option<Range>> = OnceLock::new();
    let range = RANGE.get_or_init(|| {
        // 8 TiB, or what there is, down to 1 GiB; half of it the shadow.
        let bytes = (30..=43).rev().map(|bits| 1u64 << bits);
        let (base, bytes) =
            bytes.filter_map(|bytes| reserve(bytes).map(|base| (base, bytes / 2))).next()?;
        let free = Mutex::new(Free { next: base + PAGE, returned: Vec::new() });
        Some(Range { base, bytes, shadow: bytes, free })
    });
    range.as_ref()
}

/// From an address to its shadow byte. Called where there is an arena, and so a range.
pub(super) fn shadow() -> u64 {
    range().map_or(0, |range| range.shadow)
}

impl Range {
    fn take(&self, len: u64) -> Option<(u64, u64)> {
        let gap = self.bytes >> 17;
        let reserved = len.checked_next_multiple_of(PAGE)?.checked_add(gap.max(PAGE))?;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let end = self.base + self.bytes;
        if free.next.checked_add(reserved).is_some_and(|next| next <= end) {
            let at = free.next;
            free.next += reserved;
            return Some((at, reserved));
        }
        let fit = free.returned.iter().position(|&(_, length)| length >= reserved)?;
        Some(free.returned.remove(fit))
    }

    fn give(&self, at: u64, len: u64, reserved: u64) {
        let touched = len.next_multiple_of(PAGE) as usize;
        for address in [at, at + self.shadow] {
            // SAFETY: pages of the reserved range, of an allocation that is no more; they read as
            // zero afterwards.
            unsafe { libc::madvise(address as *mut libc::c_void, touched, libc::MADV_DONTNEED) };
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.returned.push((at, reserved));
    }
}

#[derive(Clone, Copy)]
struct Allocation {
    len: u64,
    reserved: u64,
}

/// One device's memory.
pub(super) struct Arena {
    range: &'static Range,
    total: u64,
    state: Mutex<State>,
}

struct State {
    used: u64,
    live: BTreeMap<u64, Allocation>,
    /// `live` as sorted ranges, until it changes.
    snapshot: Option<Arc<[(u64, u64)]>>,
}

impl Arena {
    /// `None` where there are no addresses for it.
    pub(super) fn new(total: u64) -> Option<Arena> {
        let state = State { used: 0, live: BTreeMap::new(), snapshot: None };
        Some(Arena { range: range()?, total, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes free, bytes in all.
    pub(super) fn info(&self) -> (u64, u64) {
        (self.total - self.state().used, self.total)
    }

    /// An allocation's address, or the bytes free.
    pub(super) fn alloc(&self, len: u64) -> Result<u64, u64> {
        let mut state = self.state();
        let free = self.total - state.used;
        if len > free {
            return Err(free);
        }
        let (at, reserved) = self.range.take(len).ok_or(free)?;
        if len <= POISON_BYTES {
            // SAFETY: `take` hands out `len` bytes of the range to us alone.
            unsafe { std::ptr::write_bytes(at as *mut u8, 0xff, len as usize) };
        }
        state.used += len;
        state.live.insert(at, Allocation { len, reserved });
        state.snapshot = None;
        Ok(at)
    }

    pub(super) fn free(&self, at: u64) -> Result<(), Fault> {
        let mut state = self.state();
        let Some(allocation) = state.live.remove(&at) else {
            return Err(host_fault("free", format!("{at:#x} is no live allocation")));
        };
        state.used -= allocation.len;
        state.snapshot = None;
        drop(state);
        self.range.give(at, allocation.len, allocation.reserved);
        Ok(())
    }

    /// Live allocations as sorted [start, end).
    pub(super) fn snapshot(&self) -> Arc<[(u64, u64)]> {
        let mut state = self.state();
        let State { live, snapshot, .. } = &mut *state;
        let make = || live.iter().map(|(&at, allocation)| (at, at + allocation.len)).collect();
        snapshot.get_or_insert_with(make).clone()
    }

    /// Checks that bytes lie in one allocation.
    pub(super) fn check(&self, what: &'static str, at: u64, len: u64) -> Result<(), Fault> {
        if len == 0 {
            return Ok(());
        }
        let snapshot = self.snapshot();
        match find(&snapshot, at, len) {
            Some(_) => Ok(()),
            None => Err(host_fault(what, outside(&snapshot, at, len))),
        }
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.check("copy to device", at, bytes.len() as u64)?;
        // SAFETY: checked to lie in one allocation, which nothing else in this process uses while
        // the caller has the device write it.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len());
            std::ptr::write_bytes((at + shadow()) as *mut u8, 1, bytes.len());
        }
        Ok(())
    }

    pub(super) fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.check("copy to host", at, bytes.len() as u64)?;
        // SAFETY: `check` has found the range in one allocation, which nothing else in this process
        // writes while the caller has the device copy it.
        unsafe { std::ptr::copy_nonoverlapping(at as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    /// Copies bytes, and with them whether they were ever written.
    pub(super) fn copy(&self, to: u64, from: u64, len: u64) -> Result<(), Fault> {
        self.check("copy on device", from, len)?;
        self.check("copy on device", to, len)?;
        for delta in [0, shadow()] {
            // SAFETY: both ranges checked; `copy` allows them to overlap.
            unsafe {
                std::ptr::copy((from + delta) as *const u8, (to + delta) as *mut u8, len as usize)
            };
        }
        Ok(())
    }

    pub(super) fn set(&self, at: u64, value: u8, len: u64) -> Result<(), Fault> {
        self.check("set memory", at, len)?;
        // SAFETY: `check` has found the range in one allocation, which nothing else in this process
        // uses while it is set; its shadow is mapped as it is.
        unsafe {
            std::ptr::write_bytes(at as *mut u8, value, len as usize);
            std::ptr::write_bytes((at + shadow()) as *mut u8, 1, len as usize);
        }
        Ok(())
    }

    /// Makes bytes count as never written.
    pub(super) fn forget(&self, at: u64, len: u64) -> Result<(), Fault> {
        self.check("forget", at, len)?;
        let (start, end) = (at + shadow(), at + shadow() + len);
        let (first, last) = (start.next_multiple_of(PAGE).min(end), end - end % PAGE);
        let last = last.max(first);
        // SAFETY: as in `write`; whole pages of the shadow read as zero once they are given up,
        // and those of a sparse allocation that nobody touched cost nothing that way.
        unsafe {
            std::ptr::write_bytes(start as *mut u8, 0, (first - start) as usize);
            std::ptr::write_bytes(last as *mut u8, 0, (end - last) as usize);
            let pages = (last - first) as usize;
            if pages > 0 {
                libc::madvise(first as *mut libc::c_void, pages, libc::MADV_DONTNEED);
            }
        }
        Ok(())
    }

    /// Whether every byte was written.
    pub(super) fn written(&self, at: u64, len: u64) -> Result<bool, Fault> {
        self.check("look at", at, len)?;
        // SAFETY: `check` has found the range in one allocation, whose shadow is mapped as it is;
        // nobody writes it while the caller looks.
        let bytes =
            unsafe { std::slice::from_raw_parts((at + shadow()) as *const u8, len as usize) };
        Ok(bytes.iter().all(|&byte| byte == 1))
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (&at, allocation) in &state.live {
            self.range.give(at, allocation.len, allocation.reserved);
        }
    }
}

/// The allocation that holds all of [at, at + len).
pub(super) fn find(sorted: &[(u64, u64)], at: u64, len: u64) -> Option<(u64, u64)> {
    let after = sorted.partition_point(|&(start, _)| start <= at);
    let (start, end) = *sorted.get(after.checked_sub(1)?)?;
    (at.checked_add(len)? <= end).then_some((start, end))
}

/// Says where bytes lie that no allocation holds.
pub(super) fn outside(sorted: &[(u64, u64)], at: u64, len: u64) -> String {
    let distance = |&(start, end): &(u64, u64)| {
        if at >= start { at.saturating_sub(end) } else { start - at }
    };
    let Some(&(start, end)) = sorted.iter().min_by_key(|range| distance(range)) else {
        return format!("{len} bytes at {at:#x}: nothing is allocated");
    };
    let size = end - start;
    if at >= start {
        format!("{len} bytes at byte {} of an allocation of {size} bytes", at - start)
    } else {
        format!("{len} bytes at {} bytes before an allocation of {size} bytes", start - at)
    }
}

fn host_fault(what: &'static str, detail: String) -> Fault {
    Fault {
        kind: FaultKind::GlobalOutOfBounds,
        kernel: format!("({what})"),
        block: [0; 2],
        thread: 0,
        file: String::new(),
        line: 0,
        detail,
    }
}
