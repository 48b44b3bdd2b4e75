//! What kernels call for memory: each access checked, each copy done.
//!
//! SAFETY, here and in `meeting.rs`: these functions run on a fiber of the scheduler, so the
//! current thread and its cluster are alive, and references into them end before the fiber is
//! suspended.

use super::cluster::{Cluster, Site, Thread, Transfer};
use super::fault::FaultKind;
use super::shared::Access;
use super::{abi, arena};
use std::ffi::{c_char, c_void};

/// The thread that runs, and its cluster.
pub(super) fn current() -> (*mut Thread, *mut Cluster) {
    // SAFETY: set before every turn; `shown` is the first field of both.
    unsafe {
        let thread = (*abi::wl_emu_self_slot()).cast::<Thread>();
        (thread, (*thread).shown.cluster.cast::<Cluster>())
    }
}

pub(super) unsafe fn suspend(thread: *mut Thread) {
    // SAFETY: the yielder lives on this fiber's stack.
    unsafe { (*(*thread).yielder).suspend(()) }
}

/// Notes a fault of the running thread, which does not run again.
pub(super) fn fail(site: Site, kind: FaultKind, detail: String) -> ! {
    let (thread, cluster) = current();
    // SAFETY: `current` gives the thread whose fiber this is and its cluster, both alive as long as
    // it runs; no reference into them is held while it is suspended.
    unsafe {
        (*cluster).note((*thread).index, site, kind, detail);
        loop {
            suspend(thread);
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_global(
    address: u64,
    size: u32,
    align: u32,
    write: u32,
    file: *const c_char,
    line: u32,
) {
    let (_, cluster) = current();
    let site = Site { file, line };
    let what = if write != 0 { "write" } else { "read" };
    if !address.is_multiple_of(u64::from(align)) {
        let detail = format!("{what} of {size} bytes at {address:#x}, needs a multiple of {align}");
        fail(site, FaultKind::GlobalMisaligned, detail);
    }
    // SAFETY: the cluster of the fiber that runs is alive (`current`), and the reference is used no
    // more when the fiber is suspended.
    let cluster = unsafe { &mut *cluster };
    let allocations = cluster.context().allocations;
    match arena::find(allocations, address, size.into()) {
        Some((lo, hi)) if write != 0 => {
            (cluster.shown.write_lo, cluster.shown.write_hi) = (lo, hi);
        }
        Some((lo, hi)) => (cluster.shown.read_lo, cluster.shown.read_hi) = (lo, hi),
        None => {
            let detail = format!("{what} of {}", arena::outside(allocations, address, size.into()));
            fail(site, FaultKind::GlobalOutOfBounds, detail)
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_global_uninitialised(
    address: u64,
    size: u32,
    file: *const c_char,
    line: u32,
) -> ! {
    let (_, cluster) = current();
    // SAFETY: the cluster of the fiber that runs is alive (`current`).
    let allocations = unsafe { (*cluster).context().allocations };
    let at = arena::find(allocations, address, 1).map_or(0, |(start, _)| address - start);
    let detail = format!("read of {size} bytes at byte {at} of an allocation, not all written");
    fail(Site { file, line }, FaultKind::GlobalUninitialised, detail)
}

/// Offset of a static shared array.
#[unsafe(no_mangle)]
extern "C" fn wl_emu_shared_site(
    site: *const c_void,
    bytes: u64,
    file: *const c_char,
    line: u32,
) -> u32 {
    let (_, cluster) = current();
    // SAFETY: the cluster of the fiber that runs is alive (`current`), and the reference is used no
    // more when the fiber is suspended.
    let cluster = unsafe { &mut *cluster };
    if let Some(&(_, offset)) = cluster.sites.iter().find(|known| known.0 == site) {
        return offset;
    }
    let offset = cluster.shared_used;
    let limit = cluster.context().shared_limit;
    let end = u64::from(offset).saturating_add(bytes).next_multiple_of(16);
    if end > limit.into() {
        let detail = format!("{bytes} bytes after {offset} others: a block has {limit}");
        fail(Site { file, line }, FaultKind::SharedOutOfBounds, detail);
    }
    cluster.shared_used = end as u32;
    cluster.sites.push((site, offset));
    offset
}

/// Offset of a part of the dynamic shared memory.
#[unsafe(no_mangle)]
extern "C" fn wl_emu_shared_dynamic(
    offset: u64,
    bytes: u64,
    align: u32,
    file: *const c_char,
    line: u32,
) -> u32 {
    let (_, cluster) = current();
    // SAFETY: the cluster of the fiber that runs is alive (`current`).
    let dynamic = unsafe { (*cluster).context().dynamic };
    if offset.checked_add(bytes).is_none_or(|end| end > dynamic.into()) {
        let detail = format!("{bytes} bytes from byte {offset} on: the launch gave {dynamic}");
        fail(Site { file, line }, FaultKind::SharedOutOfBounds, detail);
    }
    if !offset.is_multiple_of(u64::from(align)) {
        let detail = format!("an array at byte {offset}, needs a multiple of {align}");
        fail(Site { file, line }, FaultKind::SharedMisaligned, detail);
    }
    offset as u32
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_shared_outside(index: i64, count: u64, file: *const c_char, line: u32) -> ! {
    let detail = format!("element {index} of a shared array of {count}");
    fail(Site { file, line }, FaultKind::SharedOutOfBounds, detail)
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_shared(
    offset: u32,
    size: u32,
    align: u32,
    write: u32,
    file: *const c_char,
    line: u32,
) {
    let (thread, cluster) = current();
    let site = Site { file, line };
    if !offset.is_multiple_of(align) {
        let detail = format!("{size} bytes at byte {offset}, needs a multiple of {align}");
        fail(site, FaultKind::SharedMisaligned, detail);
    }
    // SAFETY: the thread whose fiber this is and its cluster are alive (`current`); no reference
    // into them is held while the fiber is suspended.
    unsafe {
        let (index, block) = ((*thread).index, (*thread).block as usize);
        let access = if write != 0 { Access::Write } else { Access::Read };
        let cluster = &mut *cluster;
        if let Some(banks) = &mut cluster.banks {
            let (warp, lane) = ((*thread).warp, (*thread).lane);
            let met = (cluster.blocks[block].barriers, cluster.warps[warp as usize].syncs);
            banks.ask((warp, lane), met, (offset, size, align), write != 0, (file.addr(), line));
        }
        access_or_end(thread, cluster, (index, block), (offset, size), access, site);
    }
}

/// An access of a thread to a block's shared memory; one that may not be is the thread's end.
///
/// # Safety
/// The thread is the one that runs; `cluster` is not used after a fault.
pub(super) unsafe fn access_or_end(
    thread: *mut Thread,
    cluster: &mut Cluster,
    (index, block): (u32, usize),
    range: (u32, u32),
    access: Access,
    site: Site,
) {
    if !cluster.shared(index, block, range, access, site) {
        loop {
            // SAFETY: the thread is the one that runs: the caller's promise.
            unsafe { suspend(thread) };
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_cp_async(
    offset: u32,
    address: u64,
    bytes: u32,
    file: *const c_char,
    line: u32,
) {
    let (thread, _) = current();
    if !offset.is_multiple_of(16) {
        let detail = format!("16 bytes at byte {offset}, needs a multiple of 16");
        fail(Site { file, line }, FaultKind::SharedMisaligned, detail);
    }
    // SAFETY: the thread whose fiber this is is alive (`current`), and nothing else refers into it
    // while it runs.
    let thread = unsafe { &mut *thread };
    let bytes = bytes.min(16) as usize;
    thread.copies.push_back(Transfer { to: offset, from: address, bytes });
    thread.open += 1;
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_cp_async_commit() {
    let (thread, _) = current();
    // SAFETY: the thread whose fiber this is is alive (`current`), and nothing else refers into it
    // while it runs.
    let thread = unsafe { &mut *thread };
    thread.groups.push_back(std::mem::take(&mut thread.open));
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_cp_async_wait(open: u32, file: *const c_char, line: u32) {
    let (thread, _) = current();
    // SAFETY: see above; the source was checked when the copy was asked for.
    unsafe {
        while (*thread).groups.len() > open as usize {
            let copies = (*thread).groups.pop_front().unwrap_or(0);
            for _ in 0..copies {
                let Some(copy) = (*thread).copies.pop_front() else { break };
                let Transfer { to, from, bytes } = copy;
                wl_emu_shared(to, 16, 16, 1, file, line);
                let to = (*thread).shown.shared.add(to as usize);
                std::ptr::write_bytes(to, 0, 16);
                std::ptr::copy_nonoverlapping(from as *const u8, to, bytes);
            }
        }
    }
}
