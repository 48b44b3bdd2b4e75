//! Where calls compute.

use crate::status::{Refusal, Result, call, warploss_status};
use warploss::Device;

/// A device: the CPU's threads, or a stream of a CUDA device. It may be called from several threads.
#[derive(Debug)]
pub struct warploss_device(Device);

/// # Safety
/// Null, or a device that was opened and not closed.
pub(crate) unsafe fn device<'d>(device: *const warploss_device) -> Result<&'d Device> {
    // SAFETY: the caller's promise.
    match unsafe { device.as_ref() } {
        Some(device) => Ok(&device.0),
        None => Err(Refusal::argument("device", "a device that was opened", "NULL")),
    }
}

/// # Safety
/// `to` is null, or good for a pointer.
unsafe fn open(
    to: *mut *mut warploss_device,
    open: impl FnOnce() -> Result<Device>,
) -> warploss_status {
    call(|| {
        if to.is_null() {
            return Err(Refusal::argument("device", "a place for a device", "NULL"));
        }
        let device = Box::new(warploss_device(open()?));
        // SAFETY: it is not null: the caller's promise.
        unsafe { to.write(Box::into_raw(device)) };
        Ok(())
    })
}

/// Opens the CPU: so many threads, or (0) as many as there are cores.
///
/// # Safety
/// `device` is null, or good for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn warploss_device_open_cpu(
    threads: usize,
    device: *mut *mut warploss_device,
) -> warploss_status {
    let opened = || match threads {
        0 => Ok(Device::cpu()),
        threads => Ok(Device::cpu_with_threads(threads)?),
    };
    // SAFETY: the caller's promise.
    unsafe { open(device, opened) }
}

/// Opens a CUDA device, with a stream of its own.
///
/// # Safety
/// `device` is null, or good for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn warploss_device_open_cuda(
    ordinal: usize,
    device: *mut *mut warploss_device,
) -> warploss_status {
    #[cfg(feature = "cuda")]
    let opened = || Ok(Device::cuda(ordinal)?);
    #[cfg(not(feature = "cuda"))]
    let opened = || Err(Refusal::argument("device", "the CPU (a build without cuda)", ordinal));
    // SAFETY: the caller's promise.
    unsafe { open(device, opened) }
}

/// Waits until all that was begun is done, and says what was wrong with it.
///
/// # Safety
/// `of` is null, or a device that was opened and not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn warploss_device_synchronize(
    of: *const warploss_device,
) -> warploss_status {
    call(|| {
        // SAFETY: the caller's promise.
        let device = unsafe { device(of)? };
        Ok(device.synchronize()?)
    })
}

/// Closes a device; null is none.
///
/// # Safety
/// Null, or a device that was opened and not closed, which nobody is calling.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn warploss_device_close(device: *mut warploss_device) {
    if !device.is_null() {
        // SAFETY: it comes from a box, and is nobody's from here on: the caller's promise.
        drop(unsafe { Box::from_raw(device) });
    }
}
