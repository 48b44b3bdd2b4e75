//! A GPU's context and the kernels loaded into it, shared by all its streams.

use crate::base::error::{Error, Result};
use crate::code::card::{Card, PORTABLE_CLUSTER, largest_cluster};
use crate::code::choice::{Refused, Wanted};
use crate::code::compile;
use crate::code::compile::Compilation;
use crate::code::variants::{Module, Variant};
use crate::cuda::real::probe::{Found, probe};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{CudaContext, DriverError, result};
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The attribute of a launch that makes clusters of so many blocks.
pub(crate) fn cluster_of(blocks: u32) -> sys::CUlaunchAttribute {
    let mut cluster = sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
        pad: [0; 4],
        // SAFETY: a union of plain numbers.
        value: unsafe { std::mem::zeroed() },
    };
    cluster.value.clusterDim =
        sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: blocks, y: 1, z: 1 };
    cluster
}

/// The attribute of a launch that may begin before the one before it is done.
pub(crate) fn early_start() -> sys::CUlaunchAttribute {
    let mut early = sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        // SAFETY: a union of plain numbers.
        value: unsafe { std::mem::zeroed() },
    };
    early.value.programmaticStreamSerializationAllowed = 1;
    early
}

pub(crate) fn device(what: &str, error: DriverError) -> Error {
    Error::Device { reason: format!("{what}: {error:?}") }
}

/// A module whose machine code is embedded.
#[derive(Debug, Clone)]
enum Whole {
    Loaded(usize),
    Absent,
    /// What the driver said of it.
    Refused(String),
}

#[derive(Debug, Default)]
struct Loaded {
    modules: HashMap<Module, Whole>,
    functions: HashMap<Variant, usize>,
    /// Every module that was loaded.
    handles: Vec<usize>,
    /// How many clusters of a function there can be, or, of size 0, blocks on a multiprocessor: by the cluster's
    /// size, threads and shared memory.
    occupancy: HashMap<(u64, [u32; 3]), u32>,
}

/// A context and what is loaded in it, shared by its streams.
#[derive(Debug)]
pub(crate) struct Gpu {
    pub(crate) context: Arc<CudaContext>,
    pub(crate) card: Card,
    pub(crate) driver: &'static Found,
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
            driver: probe()?,
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

    /// How many clusters or blocks of a function there can be, by what `occupancy` is kept by.
    pub(crate) fn asked_once(
        &self,
        shape: (u64, [u32; 3]),
        ask: impl FnOnce() -> Result<u32>,
    ) -> Result<u32> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&active) = loaded.occupancy.get(&shape) {
            return Ok(active);
        }
        let active = ask()?;
        loaded.occupancy.insert(shape, active);
        Ok(active)
    }

    fn load(&self, loaded: &mut Loaded, variant: Variant) -> Result<usize> {
        let module = variant.module();
        let whole = match loaded.modules.get(&module) {
            Some(whole) => whole.clone(),
            None => {
                let whole = match compile::embedded(module, self.card.arch)? {
                    None => Whole::Absent,
                    Some(code) => match loaded.image(&code) {
                        Ok(handle) => Whole::Loaded(handle),
                        Err(Refused::Code(why)) => Whole::Refused(compile::embedded_refused(&why)),
                        Err(Refused::Failed(error)) => return Err(error),
                    },
                };
                loaded.modules.insert(module, whole.clone());
                whole
            }
        };
        let symbol = variant.symbol();
        let mut compiled = |refused: Option<&str>| {
            let (arch, driver) = (self.card.arch, self.driver.version);
            let wanted = Wanted { kernel: &symbol, arch, driver };
            wanted.load(refused, Compilation::all(variant), |code| loaded.image(code))
        };
        let handle = match whole {
            Whole::Loaded(handle) => handle,
            Whole::Absent => compiled(None)?,
            Whole::Refused(why) => compiled(Some(&why))?,
        };
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
                // Where it is not taken, clusters so large are not run either.
                let _ = set(Kind::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1);
            }
            Ok(function as usize)
        }
    }
}

impl Loaded {
    /// Loads code into the context that is bound.
    fn image(&mut self, code: &[u8]) -> std::result::Result<usize, Refused> {
        // SAFETY: the code is a whole cubin, from the build or from NVRTC, or NVRTC's PTX, which
        // ends with a zero.
        let module = unsafe { result::module::load_data(code.as_ptr().cast()) };
        let handle = module.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
            | sys::CUresult::CUDA_ERROR_INVALID_IMAGE
            | sys::CUresult::CUDA_ERROR_INVALID_SOURCE
            | sys::CUresult::CUDA_ERROR_INVALID_PTX
            | sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
            | sys::CUresult::CUDA_ERROR_JIT_COMPILER_NOT_FOUND
            | sys::CUresult::CUDA_ERROR_JIT_COMPILATION_DISABLED => {
                Refused::Code(format!("{:?}", error.0))
            }
            _ => Refused::Failed(device("loading kernels", error)),
        })? as usize;
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
        l2: get(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        cluster: match get(Attribute::CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH)? {
            0 => 1,
            _ => largest_cluster(arch),
        },
    })
}
