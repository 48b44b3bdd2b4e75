//! Machine code of a kernel for one architecture: embedded at build time, from the disk cache, or
//! compiled now, in this order.

use super::cache::{Cache, Key};
use super::nvrtc::{self, Nvrtc};
use super::variants::{Module, Variant};
use crate::{Error, Result};

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The kernels' source, file by file.
pub(crate) const SOURCES: [(&str, &str); 11] = [
    ("args.cuh", include_str!("../../kernels/include/args.cuh")),
    ("dtype.cuh", include_str!("../../kernels/include/dtype.cuh")),
    ("intrinsics.cuh", include_str!("../../kernels/include/intrinsics.cuh")),
    ("lse.cuh", include_str!("../../kernels/include/lse.cuh")),
    ("reduce.cuh", include_str!("../../kernels/include/reduce.cuh")),
    ("row.cuh", include_str!("../../kernels/include/row.cuh")),
    ("batch.cu", include_str!("../../kernels/batch.cu")),
    ("cross_entropy.cu", include_str!("../../kernels/cross_entropy.cu")),
    ("log_softmax.cu", include_str!("../../kernels/log_softmax.cu")),
    ("logsumexp.cu", include_str!("../../kernels/logsumexp.cu")),
    ("permute.cu", include_str!("../../kernels/permute.cu")),
];

/// The embedded machine code of a module, for an architecture that can run it: the same major
/// version, and no newer.
pub(crate) fn embedded(module: Module, arch: u32) -> Result<Option<Vec<u8>>> {
    let runs = |built: u32| built / 10 == arch / 10 && built <= arch;
    let found = EMBEDDED.iter().filter(|e| e.0 == module.file() && runs(e.1)).max_by_key(|e| e.1);
    let Some((.., packed)) = found else {
        return Ok(None);
    };
    let mut code = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(*packed), &mut code)
        .map_err(|e| Error::Device { reason: format!("embedded kernels are damaged: {e}") })?;
    Ok(Some(code))
}

/// Machine code of one kernel, compiled by the user's NVRTC unless the cache has it.
pub(crate) fn compile(variant: Variant, arch: u32) -> Result<Vec<u8>> {
    let device = |reason| Error::Device { reason };
    let nvrtc = Nvrtc::load().map_err(device)?;
    let source = Variant::source(variant.module(), &[variant]);
    let options = nvrtc::options(arch);
    let mut key = Key::new().with(source.as_bytes());
    for text in SOURCES.iter().flat_map(|s| [s.0, s.1]).chain(options.iter().map(|o| &o[..])) {
        key = key.with(text.as_bytes());
    }
    key = key.with(format!("{:?}", nvrtc.version()).as_bytes());
    let cache = Cache::of_user();
    if let Some(code) = cache.as_ref().and_then(|c| c.get(key)) {
        return Ok(code);
    }
    let compiled = nvrtc
        .compile(&source, &SOURCES, &options)
        .map_err(|log| device(format!("kernel {}: {log}", variant.symbol())))?;
    if let Some(cache) = cache {
        cache.put(key, &compiled.cubin);
    }
    Ok(compiled.cubin)
}
