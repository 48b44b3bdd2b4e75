//! What a launch waits for besides its own threads: the launch before it, and what other clusters write.
//!
//! SAFETY, here as in `calls.rs`: these functions run on a fiber of the scheduler.

use super::calls::{current, fail, suspend};
use super::cluster::Site;
use super::fault::FaultKind;
use std::ffi::c_char;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::SeqCst;

/// An access of a thread that has not waited for the launch before, in one that begins early.
#[unsafe(no_mangle)]
extern "C" fn wl_emu_early(address: u64, size: u32, write: u32, file: *const c_char, line: u32) {
    let (_, cluster) = current();
    let site = Site { file, line };
    if write != 0 {
        let detail = format!("write of {size} bytes at {address:#x}, and no wait yet");
        fail(site, FaultKind::BeforeWait, detail);
    }
    // SAFETY: the cluster of the fiber that runs is alive (`current`).
    let before = unsafe { (*cluster).context().before };
    let after = before.partition_point(|&(start, _)| start < address + u64::from(size));
    if after > 0 && before[..after].iter().any(|&(start, bytes)| start + bytes > address) {
        let detail = format!("{size} bytes at {address:#x}: the launch before has written them");
        fail(site, FaultKind::BeforeWait, detail);
    }
}

#[unsafe(no_mangle)]
extern "C" fn wl_emu_remember(address: u64, size: u32) {
    let (_, cluster) = current();
    // SAFETY: the cluster of the fiber that runs is alive (`current`).
    if let Some(written) = unsafe { (*cluster).context().written } {
        let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
        written.push((address, size.into()));
    }
}

/// Others have their turn. Where no other cluster runs, and none has ended since the thread last looked, nobody is
/// left who could write what it waits for.
#[unsafe(no_mangle)]
extern "C" fn wl_emu_pause(file: *const c_char, line: u32) {
    let (thread, cluster) = current();
    // SAFETY: the thread whose fiber this is and its cluster are alive (`current`); no reference into them is
    // held while the fiber is suspended.
    unsafe {
        let context = (*cluster).context();
        let ended = context.ended.load(SeqCst);
        let alone = (context.running.load(SeqCst) == 1).then_some(ended);
        if alone.is_some() && (*thread).alone == alone {
            let detail = "waits for what no block that runs will write".into();
            fail(Site { file, line }, FaultKind::Deadlock, detail);
        }
        (*thread).alone = alone;
        (*thread).shown.pauses += 1;
        suspend(thread);
    }
    std::thread::yield_now();
}
