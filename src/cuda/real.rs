//! The driver of a GPU, by cudarc. Nothing here panics without one: the library is looked for
//! before cudarc is asked anything.

use super::compile;
use super::driver::{Driver, Kernel, Launch};
use super::plan::Card;
use super::variants::{Module, Variant};
use crate::{Error, Result};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};

/// Oldest driver that knows all calls made here: CUDA 12.0.
const OLDEST_DRIVER: i32 = 12000;
/// Blocks of a cluster that every device with clusters runs.
const PORTABLE_CLUSTER: u32 = 8;

fn device(what: &str, error: DriverError) -> Error {
    Error::Device { reason: format!("{what}: {error:?}") }
}

/// Whether NVIDIA's driver is there; the reason where it is not.
fn probe() -> Result<()> {
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
    // Loaded for good: cudarc's own handle comes next.
    std::mem::forget(library);
    Ok(())
}

#[derive(Default)]
struct Loaded {
    modules: HashMap<Module, Option<usize>>,
    functions: HashMap<Variant, usize>,
}

/// A GPU and a stream of it.
pub(crate) struct Real {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    card: Card,
    loaded: Mutex<Loaded>,
}

impl std::fmt::Debug for Real {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Real").field("card", &self.card).finish_non_exhaustive()
    }
}

impl Real {
    /// Device `ordinal`, with a stream of its own.
    pub(crate) fn new(ordinal: usize) -> Result<Real> {
        probe()?;
        let context =
            CudaContext::new(ordinal).map_err(|e| device(&format!("CUDA device {ordinal}"), e))?;
        let stream = context.new_stream().map_err(|e| device("a stream", e))?;
        Real::on_stream(stream)
    }

    /// The caller's stream.
    pub(crate) fn on_stream(stream: Arc<CudaStream>) -> Result<Real> {
        let context = stream.context().clone();
        let fail = |e| device("device properties", e);
        let (major, minor) = context.compute_capability().map_err(fail)?;
        let arch = (major * 10 + minor) as u32;
        if arch < 80 {
            return Err(Error::Device {
                reason: format!(
                    "compute capability {major}.{minor}; the kernels need 8.0 or later"
                ),
            });
        }
        let get = |attribute| context.attribute(attribute).map(|v| v.max(0) as usize).map_err(fail);
        let card = Card {
            name: context.name().map_err(fail)?,
            arch,
            multiprocessors: get(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
            shared_per_block: get(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?,
            shared_per_multiprocessor: get(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
            )?,
            cluster: match arch {
                // Data-centre parts take 16 with the non-portable attribute.
                90..=109 => 2 * PORTABLE_CLUSTER,
                110.. => PORTABLE_CLUSTER,
                _ => 1,
            },
        };
        Ok(Real { context, stream, card, loaded: Mutex::default() })
    }

    fn bind(&self) -> Result<sys::CUstream> {
        self.context.bind_to_thread().map_err(|e| device("the context", e))?;
        Ok(self.stream.cu_stream())
    }

    fn load(&self, loaded: &mut Loaded, variant: Variant) -> Result<usize> {
        let module = variant.module();
        let image = |code: &[u8]| -> Result<usize> {
            // SAFETY: the code is a whole cubin, from the build or from NVRTC.
            let module = unsafe { result::module::load_data(code.as_ptr().cast()) };
            module.map(|m| m as usize).map_err(|e| device("loading kernels", e))
        };
        let whole = match loaded.modules.get(&module) {
            Some(&whole) => whole,
            None => {
                let code = compile::embedded(module, self.card.arch)?;
                let whole = code.map(|code| image(&code)).transpose()?;
                loaded.modules.insert(module, whole);
                whole
            }
        };
        let handle = match whole {
            Some(handle) => handle,
            None => image(&compile::compile(variant, self.card.arch)?)?,
        };
        let symbol = variant.symbol();
        let name =
            CString::new(&symbol[..]).map_err(|e| Error::Device { reason: e.to_string() })?;
        let fail = |e| device(&format!("kernel {symbol}"), e);
        // SAFETY: the module was loaded above; modules stay until the context goes.
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

impl Driver for Real {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn card(&self) -> &Card {
        &self.card
    }

    fn allocate(&self, argument: &'static str, bytes: usize) -> Result<u64> {
        let stream = self.bind()?;
        // SAFETY: the context is bound, the stream is its own.
        let address = unsafe {
            match self.context.has_async_alloc() {
                true => result::malloc_async(stream, bytes),
                false => result::malloc_sync(bytes),
            }
        };
        address.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::OutOfMemory { argument, bytes },
            _ => device("an allocation", error),
        })
    }

    unsafe fn free(&self, address: u64) {
        let Ok(stream) = self.bind() else { return };
        // SAFETY: the caller's contract. A failure here leaves the memory with the device.
        let _ = unsafe {
            match self.context.has_async_alloc() {
                true => result::free_async(address, stream),
                false => result::free_sync(address),
            }
        };
    }

    unsafe fn copy_in(&self, to: u64, from: &[u8]) -> Result<()> {
        let stream = self.bind()?;
        // SAFETY: the caller's contract; the wait lets `from` go.
        unsafe {
            result::memcpy_htod_async(to, from, stream)
                .and_then(|()| result::stream::synchronize(stream))
                .map_err(|e| device("a copy to the device", e))
        }
    }

    unsafe fn copy_out(&self, to: &mut [u8], from: u64) -> Result<()> {
        let stream = self.bind()?;
        // SAFETY: the caller's contract.
        unsafe {
            result::memcpy_dtoh_async(to, from, stream)
                .and_then(|()| result::stream::synchronize(stream))
                .map_err(|e| device("a copy from the device", e))
        }
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        let stream = self.bind()?;
        // SAFETY: the caller's contract.
        unsafe { result::memset_d8_async(address, 0, bytes, stream) }
            .map_err(|e| device("a memset", e))
    }

    fn kernel(&self, variant: Variant) -> Result<Kernel> {
        self.bind()?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&function) = loaded.functions.get(&variant) {
            return Ok(Kernel(function as u64));
        }
        let function = self.load(&mut loaded, variant)?;
        loaded.functions.insert(variant, function);
        Ok(Kernel(function as u64))
    }

    unsafe fn launch(&self, launch: Launch<'_>) -> Result<()> {
        let stream = self.bind()?;
        let mut cluster = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
            pad: [0; 4],
            // SAFETY: a union of plain numbers.
            value: unsafe { std::mem::zeroed() },
        };
        cluster.value.clusterDim =
            sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: launch.cluster, y: 1, z: 1 };
        let config = sys::CUlaunchConfig {
            gridDimX: launch.blocks,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: launch.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared,
            hStream: stream,
            attrs: &mut cluster,
            numAttrs: u32::from(launch.cluster > 1),
        };
        let mut parameters = [launch.args.as_ptr().cast_mut().cast::<c_void>()];
        // SAFETY: the caller's contract; the driver copies the argument before it returns.
        unsafe {
            let function = launch.kernel.0 as sys::CUfunction;
            sys::cuLaunchKernelEx(&config, function, parameters.as_mut_ptr(), std::ptr::null_mut())
                .result()
                .map_err(|e| device("a launch", e))
        }
    }

    fn synchronize(&self) -> Result<()> {
        let stream = self.bind()?;
        // SAFETY: the stream is this object's.
        unsafe { result::stream::synchronize(stream) }.map_err(|e| device("the stream", e))
    }
}
