//! A GPU's context and the kernels loaded into it, shared by all its streams.

use super::compile;
use super::plan::Card;
use super::variants::{Module, Variant};
use crate::{Error, Result};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{CudaContext, DriverError, result};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Oldest driver that knows all calls made here: CUDA 12.0.
const OLDEST_DRIVER: i32 = 12000;
/// Blocks of a cluster that every device with clusters runs.
const PORTABLE_CLUSTER: u32 = 8;

/// The driver's functions that this file, `real.rs`, `slices.rs` and cudarc on their behalf call; cudarc
/// panics where one is missing. All of them are in the driver of CUDA 12.0.
const FUNCTIONS: &[&str] = &[
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
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamIsCapturing",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
];

pub(crate) fn device(what: &str, error: DriverError) -> Error {
    Error::Device { reason: format!("{what}: {error:?}") }
}

/// Whether NVIDIA's driver is there; the reason where it is not.
pub(crate) fn probe() -> Result<()> {
    let absent = |why: String| Error::Device {
        reason: format!("no CUDA driver ({why}); install NVIDIA's driver, 525 or newer"),
    };
    let names = ["libcuda.so.1", "libcuda.so", "nvcuda.dll"];
    // SAFETY: the driver's initialisers have no requirements.
    let found = names.iter().find_map(|name| unsafe { libloading::Library::new(name) }.ok());
    let library = found.ok_or_else(|| absent("libcuda.so.1 was not found".into()))?;
    type Version = unsafe extern "C" fn(*mut i32) -> i32;
    let mut version = 0;
    // SAFETY: the signature is the driver's.
    let code = unsafe {
        let get =
            library.get::<Version>(b"cuDriverGetVersion").map_err(|e| absent(e.to_string()))?;
        get(&mut version)
    };
    if code != 0 || version < OLDEST_DRIVER {
        return Err(absent(format!("it speaks CUDA {}.{}", version / 1000, version % 100 / 10)));
    }
    for name in FUNCTIONS {
        // SAFETY: the symbol is only looked for.
        if let Err(why) = unsafe { library.get::<*const c_void>(name.as_bytes()) } {
            return Err(absent(format!("it lacks {name}: {why}")));
        }
    }
    // Loaded for good: cudarc's own handle comes next.
    std::mem::forget(library);
    Ok(())
}

#[derive(Debug, Default)]
struct Loaded {
    modules: HashMap<Module, Option<usize>>,
    functions: HashMap<Variant, usize>,
    /// Every module that was loaded.
    handles: Vec<usize>,
}

/// A context and what is loaded in it, shared by its streams.
#[derive(Debug)]
pub(crate) struct Gpu {
    pub(crate) context: Arc<CudaContext>,
    pub(crate) card: Card,
    loaded: Mutex<Loaded>,
}

impl Gpu {
    /// The one of this context.
    pub(crate) fn of(context: &Arc<CudaContext>) -> Result<Arc<Gpu>> {
        static ALL: Mutex<Vec<Weak<Gpu>>> = Mutex::new(Vec::new());
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|gpu| gpu.strong_count() > 0);
        let known = all.iter().filter_map(Weak::upgrade).find(|gpu| gpu.context == *context);
        if let Some(gpu) = known {
            return Ok(gpu);
        }
        let gpu = Arc::new(Gpu {
            context: context.clone(),
            card: card(context)?,
            loaded: Mutex::default(),
        });
        all.push(Arc::downgrade(&gpu));
        Ok(gpu)
    }

    pub(crate) fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|e| device("the context", e))
    }

    /// A kernel's function, loaded when first asked for.
    pub(crate) fn function(&self, variant: Variant) -> Result<usize> {
        self.bind()?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&function) = loaded.functions.get(&variant) {
            return Ok(function);
        }
        let function = self.load(&mut loaded, variant)?;
        loaded.functions.insert(variant, function);
        Ok(function)
    }

    fn load(&self, loaded: &mut Loaded, variant: Variant) -> Result<usize> {
        let module = variant.module();
        let whole = match loaded.modules.get(&module) {
            Some(&whole) => whole,
            None => {
                let code = compile::embedded(module, self.card.arch)?;
                let whole = code.map(|code| loaded.image(&code)).transpose()?;
                loaded.modules.insert(module, whole);
                whole
            }
        };
        let handle = match whole {
            Some(handle) => handle,
            None => loaded.image(&compile::compile(variant, self.card.arch)?)?,
        };
        let symbol = variant.symbol();
        let name =
            CString::new(&symbol[..]).map_err(|e| Error::Device { reason: e.to_string() })?;
        let fail = |e| device(&format!("kernel {symbol}"), e);
        // SAFETY: the module was loaded above, and stays until this object goes.
        unsafe {
            let function =
                result::module::get_function(handle as sys::CUmodule, name).map_err(fail)?;
            let set = |attribute, value| {
                result::function::set_function_attribute(function, attribute, value).map_err(fail)
            };
            use sys::CUfunction_attribute_enum as Kind;
            let fixed = result::function::get_function_attribute(
                function,
                Kind::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
            )
            .map_err(fail)?;
            let most = (self.card.shared_per_block as i32).saturating_sub(fixed);
            set(Kind::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most)?;
            if self.card.cluster > PORTABLE_CLUSTER {
                set(Kind::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)?;
            }
            Ok(function as usize)
        }
    }
}

impl Loaded {
    /// Loads machine code into the context that is bound.
    fn image(&mut self, code: &[u8]) -> Result<usize> {
        // SAFETY: the code is a whole cubin, from the build or from NVRTC.
        let module = unsafe { result::module::load_data(code.as_ptr().cast()) };
        let handle = module.map_err(|e| device("loading kernels", e))? as usize;
        self.handles.push(handle);
        Ok(handle)
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        let loaded = self.loaded.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Kernels may still run. Where that cannot be waited for, the modules stay.
        if loaded.handles.is_empty() || self.context.synchronize().is_err() {
            return;
        }
        for handle in loaded.handles.drain(..) {
            // SAFETY: loaded by this object, whose functions nobody can launch any more.
            let _ = unsafe { result::module::unload(handle as sys::CUmodule) };
        }
    }
}

fn card(context: &CudaContext) -> Result<Card> {
    let fail = |e| device("device properties", e);
    let (major, minor) = context.compute_capability().map_err(fail)?;
    let arch = (major * 10 + minor) as u32;
    if arch < 80 {
        return Err(Error::Device {
            reason: format!("compute capability {major}.{minor}; the kernels need 8.0 or later"),
        });
    }
    let get = |attribute| context.attribute(attribute).map(|v| v.max(0) as usize).map_err(fail);
    Ok(Card {
        name: context.name().map_err(fail)?,
        arch,
        multiprocessors: get(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
        shared_per_block: get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        shared_per_multiprocessor: get(
            Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
        )?,
        cluster: match arch {
            // Data-centre parts take 16 with the non-portable attribute.
            90..=109 => 2 * PORTABLE_CLUSTER,
            110.. => PORTABLE_CLUSTER,
            _ => 1,
        },
    })
}
