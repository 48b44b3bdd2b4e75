//! NVIDIA's driver, looked for by hand: cudarc panics where it, or a function of it, is missing.

use crate::base::error::{Error, Result};
use cudarc::driver::sys;
use std::ffi::c_void;
use std::sync::OnceLock;

/// Oldest driver that knows all calls made here: CUDA 12.0.
const OLDEST_DRIVER: i32 = 12000;

/// The driver's functions that this folder, and cudarc on its behalf, calls; cudarc panics where one is
/// missing. All of them are in the driver of CUDA 12.0. What newer drivers know under another
/// name, and what older ones may lack, is in [`Found`].
pub(crate) const FUNCTIONS: &[&str] = &[
    "cuCtxDestroy_v2",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventQuery",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuInit",
    "cuLaunchKernelEx",
    "cuMemAllocAsync",
    "cuMemAlloc_v2",
    "cuMemFreeAsync",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyPeerAsync",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamIsCapturing",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
];

type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;
type Clusters =
    unsafe extern "C" fn(*mut i32, sys::CUfunction, *const sys::CUlaunchConfig) -> sys::CUresult;

/// The driver of this machine.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The name it was loaded by.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    pub(crate) name: &'static str,
    /// The version of CUDA that it speaks.
    pub(crate) version: (i32, i32),
    /// `cuEventElapsedTime`, whose name cudarc has from newer drivers.
    pub(crate) elapsed: Elapsed,
    /// `cuOccupancyMaxActiveClusters`.
    pub(crate) clusters: Option<Clusters>,
}

/// The driver; the reason where there is none, or one that is too old.
pub(crate) fn probe() -> Result<&'static Found> {
    static FOUND: OnceLock<Found> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    // Looked for anew where it was not there.
    let found = look()?;
    Ok(FOUND.get_or_init(|| found))
}

fn look() -> Result<Found> {
    let absent = |why: String| Error::Device {
        reason: format!("no CUDA driver ({why}); install NVIDIA's driver, 525 or newer"),
    };
    let names = ["libcuda.so.1", "libcuda.so", "nvcuda.dll"];
    // SAFETY: the driver's initialisers have no requirements.
    let load = |name: &&'static str| unsafe { libloading::Library::new(*name) }.ok();
    let found = names.iter().find_map(|name| Some((*name, load(name)?)));
    let (name, library) = found.ok_or_else(|| absent("libcuda.so.1 was not found".into()))?;
    type Version = unsafe extern "C" fn(*mut i32) -> i32;
    let mut version = 0;
    // SAFETY: the signature is the driver's.
    let code = unsafe {
        let get =
            library.get::<Version>(b"cuDriverGetVersion").map_err(|e| absent(e.to_string()))?;
        get(&mut version)
    };
    let pair = (version / 1000, version % 100 / 10);
    if code != 0 || version < OLDEST_DRIVER {
        return Err(absent(format!("it speaks CUDA {}.{}", pair.0, pair.1)));
    }
    for name in FUNCTIONS {
        // SAFETY: the symbol is only looked for.
        if let Err(why) = unsafe { library.get::<*const c_void>(name.as_bytes()) } {
            return Err(absent(format!("it lacks {name}: {why}")));
        }
    }
    // SAFETY: the signatures are the driver's; both names of the first take the same.
    let (elapsed, clusters) = unsafe {
        let elapsed = library
            .get::<Elapsed>(b"cuEventElapsedTime")
            .or_else(|_| library.get::<Elapsed>(b"cuEventElapsedTime_v2"))
            .map(|symbol| *symbol)
            .map_err(|why| absent(format!("it lacks cuEventElapsedTime: {why}")))?;
        let clusters = library.get::<Clusters>(b"cuOccupancyMaxActiveClusters");
        (elapsed, clusters.map(|symbol| *symbol).ok())
    };
    // Loaded for good: cudarc's own handle comes next.
    std::mem::forget(library);
    Ok(Found { name, version: pair, elapsed, clusters })
}

#[cfg(test)]
mod tests;
