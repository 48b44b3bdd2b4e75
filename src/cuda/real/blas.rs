//! cuBLAS, by cudarc: looked for by hand first, as cudarc panics where it is missing.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::code::libraries;
use crate::code::libraries::{Opened, Sought};
use crate::cuda::driver::product::{Panel, Product};
use cudarc::cublas::{result, sys};
use cudarc::driver::sys::CUstream;
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Bytes of a handle's workspace: what NVIDIA advises for Hopper. Ours, so that a call allocates
/// nothing and can be captured.
pub(crate) const WORKSPACE: usize = 32 << 20;

static CUBLAS: Sought = Sought {
    variable: "WARPLOSS_CUBLAS",
    names: &[
        "libcublas.so.13",
        "libcublas.so.12",
        "libcublas.so",
        "cublas64_13.dll",
        "cublas64_12.dll",
    ],
    companions: &["libcublasLt.so", "cublasLt64_"],
};

/// Functions that are called here.
const FUNCTIONS: [&str; 6] = [
    "cublasCreate_v2",
    "cublasDestroy_v2",
    "cublasGemmEx",
    "cublasGetProperty",
    "cublasSetStream_v2",
    "cublasSetWorkspace_v2",
];

/// cuBLAS: its file and version. The reason where it is not there. Once found it stays loaded, and
/// cudarc finds it by its name.
pub(crate) fn probe() -> Result<&'static (PathBuf, [i32; 2])> {
    static FOUND: OnceLock<std::result::Result<(PathBuf, [i32; 2]), String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let mut last = String::new();
        for path in libraries::candidates(&CUBLAS) {
            match Opened::open(&path, &CUBLAS).and_then(usable) {
                Ok(found) => return Ok(found),
                Err(why) => last = why,
            }
        }
        Err(libraries::nowhere(&CUBLAS, &last))
    });
    found.as_ref().map_err(|why| Error::Device {
        reason: format!(
            "cuBLAS was not found ({why}); install the CUDA toolkit 12 or newer, or \
             `pip install nvidia-cublas`, or set WARPLOSS_CUBLAS to the folder of libcublas.so"
        ),
    })
}

/// Keeps a library for good that has what is called.
fn usable(opened: Opened) -> std::result::Result<(PathBuf, [i32; 2]), String> {
    type Property = unsafe extern "C" fn(i32, *mut i32) -> i32;
    let mut version = [0; 2];
    // SAFETY: symbols are only looked for, but for the last one, whose signature is cuBLAS's.
    unsafe {
        for name in FUNCTIONS {
            opened.function::<*const c_void>(name)?;
        }
        let property = opened.function::<Property>("cublasGetProperty")?;
        for (kind, number) in version.iter_mut().enumerate() {
            property(kind as i32, number);
        }
    }
    if version[0] < 12 {
        return Err(format!(
            "{} is of version {}.{}",
            opened.path.display(),
            version[0],
            version[1]
        ));
    }
    let path = opened.path.clone();
    std::mem::forget(opened);
    Ok((path, version))
}

/// A handle on one stream.
#[derive(Debug)]
pub(crate) struct Blas {
    handle: usize,
}

fn failed(what: &str, error: result::CublasError) -> Error {
    Error::Device { reason: format!("cuBLAS, {what}: {error:?}") }
}

impl Blas {
    /// # Safety
    /// The stream is of the context that is bound, and has `WORKSPACE` bytes at `workspace` to itself
    /// as long as the handle lives.
    pub(crate) unsafe fn new(stream: CUstream, workspace: u64) -> Result<Blas> {
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
    /// cuBLAS's table of `cublasGemmEx` for `CUBLAS_COMPUTE_32F`, whose scalars are f32, has what is asked
    /// for here: A and B both f16 with C f16 or f32, both bf16 with C bf16 or f32, both f32 with C f32. A and B
    /// of two types are in no row of it, which is why `factors.rs` makes them one.
    ///
    /// # Safety
    /// As for [`super::driver::Driver::product`]; nobody else uses the handle meanwhile.
    pub(crate) unsafe fn product(&self, product: &Product) -> Result<()> {
        let Product { a, b, c, sizes: [m, n, k], add } = *product;
        debug_assert!(a.dtype == b.dtype && (c.dtype == a.dtype || c.dtype == DType::F32));
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
