//! cuBLAS, by cudarc: looked for by hand first, as cudarc panics where it is missing.

use super::products::{Panel, Product};
use crate::{DType, Error, Result};
use cudarc::cublas::{result, sys};
use cudarc::driver::sys::CUstream;
use std::ffi::c_void;
use std::sync::OnceLock;

/// Bytes of a handle's workspace: what NVIDIA advises for Hopper. Ours, so that a call allocates
/// nothing and can be captured.
pub(super) const WORKSPACE: usize = 32 << 20;

/// Names that the library goes by, newest first.
const NAMES: [&str; 5] =
    ["libcublas.so.13", "libcublas.so.12", "libcublas.so", "cublas64_13.dll", "cublas64_12.dll"];

/// Functions that are called here.
const FUNCTIONS: [&str; 5] = [
    "cublasCreate_v2",
    "cublasDestroy_v2",
    "cublasGemmEx",
    "cublasSetStream_v2",
    "cublasSetWorkspace_v2",
];

/// Whether cuBLAS is there; the reason where it is not. Once found it stays loaded, and cudarc finds
/// it by its name.
fn probe() -> Result<()> {
    static FOUND: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let mut last = String::new();
        for path in super::nvrtc::candidates("WARPLOSS_CUBLAS", &NAMES, "cublas") {
            // SAFETY: cuBLAS's initialisers have no requirements.
            match unsafe { libloading::Library::new(&path) } {
                Ok(library) => {
                    // SAFETY: the symbols are only looked for.
                    let lacks = FUNCTIONS.iter().find(|name| unsafe {
                        library.get::<*const c_void>(name.as_bytes()).is_err()
                    });
                    std::mem::forget(library);
                    return match lacks {
                        None => Ok(()),
                        Some(name) => Err(format!("{} lacks {name}", path.display())),
                    };
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    });
    found.clone().map_err(|why| Error::Device {
        reason: format!(
            "cuBLAS was not found ({why}); install the CUDA toolkit 12 or newer, or \
             `pip install nvidia-cublas`, or set WARPLOSS_CUBLAS to the folder of libcublas.so"
        ),
    })
}

/// A handle on one stream.
#[derive(Debug)]
pub(super) struct Blas {
    handle: usize,
}

fn failed(what: &str, error: result::CublasError) -> Error {
    Error::Device { reason: format!("cuBLAS, {what}: {error:?}") }
}

impl Blas {
    /// # Safety
    /// The stream is of the context that is bound, and has `WORKSPACE` bytes at `workspace` to itself
    /// as long as the handle lives.
    pub(super) unsafe fn new(stream: CUstream, workspace: u64) -> Result<Blas> {
        probe()?;
        let handle = result::create_handle().map_err(|e| failed("a handle", e))?;
        let blas = Blas { handle: handle as usize };
        // SAFETY: the caller's contract; the handle was made above.
        unsafe {
            result::set_stream(handle, stream.cast())
                .and_then(|()| {
                    let at = workspace as *mut c_void;
                    sys::cublasSetWorkspace_v2(handle, at, WORKSPACE).result()
                })
                .map_err(|e| failed("its stream", e))?;
        }
        Ok(blas)
    }

    /// Row-major products are column-major ones of the transposed matrices in the other order.
    ///
    /// # Safety
    /// As for [`super::driver::Driver::product`]; nobody else uses the handle meanwhile.
    pub(super) unsafe fn product(&self, product: &Product) -> Result<()> {
        let Product { a, b, c, sizes: [m, n, k], add } = *product;
        let int = |size: usize| {
            i32::try_from(size).map_err(|_| Error::Device {
                reason: format!("cuBLAS: a matrix of {m} × {n} × {k} is larger than it can count"),
            })
        };
        let [m, n, k] = [int(m)?, int(n)?, int(k)?];
        let strides = [int(a.stride)?, int(b.stride)?, int(c.stride)?];
        let turned = |panel: Panel| match panel.transposed {
            true => sys::cublasOperation_t::CUBLAS_OP_T,
            false => sys::cublasOperation_t::CUBLAS_OP_N,
        };
        let (one, beta) = (1f32, f32::from(u8::from(add)));
        // SAFETY: the caller's contract; the scalars are read before the call returns.
        let done = unsafe {
            result::gemm_ex(
                self.handle as sys::cublasHandle_t,
                turned(b),
                turned(a),
                n,
                m,
                k,
                (&raw const one).cast(),
                b.address as *const c_void,
                kind(b.dtype),
                strides[1],
                a.address as *const c_void,
                kind(a.dtype),
                strides[0],
                (&raw const beta).cast(),
                c.address as *mut c_void,
                kind(c.dtype),
                strides[2],
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DFALT,
            )
        };
        done.map_err(|e| failed("a product", e))
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: the handle is this object's, and used no more.
        let _ = unsafe { result::destroy_handle(self.handle as sys::cublasHandle_t) };
    }
}

fn kind(dtype: DType) -> sys::cudaDataType {
    match dtype {
        DType::F16 => sys::cudaDataType::CUDA_R_16F,
        DType::BF16 => sys::cudaDataType::CUDA_R_16BF,
        _ => sys::cudaDataType::CUDA_R_32F,
    }
}
