//! Machine code of a kernel for one architecture: embedded at build time, from the disk cache, or
//! compiled now, in this order.

use super::cache::{Cache, Key};
use super::nvrtc::{self, Nvrtc};
use super::variants::{Module, Variant};
use crate::{Error, Result};

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

// Of the folder `kernels`, by the build script: `SOURCES`, file by file.
include!(concat!(env!("OUT_DIR"), "/sources.rs"));

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
        .compile(&source, SOURCES, &options)
        .map_err(|log| device(format!("kernel {}: {log}", variant.symbol())))?;
    if let Some(cache) = cache {
        cache.put(key, &compiled.cubin);
    }
    Ok(compiled.cubin)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is compiled at run time is all there: a module's file, and all that it includes.
    #[test]
    fn every_file_that_a_kernel_includes_is_carried() {
        let carried = |name: &str| SOURCES.iter().any(|(file, _)| *file == name);
        for &module in Module::ALL {
            assert!(carried(module.file()), "{}", module.file());
        }
        for (file, text) in SOURCES {
            let includes = text.lines().filter_map(|line| line.strip_prefix("#include \""));
            for name in includes.filter_map(|rest| rest.split('"').next()) {
                // The emulator's side of the same names is compiled with the crate.
                assert!(carried(name) || name == "intrinsics.hpp", "{file} includes {name}");
            }
        }
    }

    /// A kernel of each module by the sources that are carried, where there is a compiler.
    #[test]
    fn kernels_are_compiled_at_run_time() {
        let Ok(nvrtc) = Nvrtc::load() else {
            eprintln!("no NVRTC: kernels are NOT compiled here");
            return;
        };
        for &module in Module::ALL {
            let all = Variant::all();
            let variant = all.iter().find(|v| v.module() == module).expect("one each");
            let source = Variant::source(module, &[*variant]);
            let compiled = nvrtc.compile(&source, SOURCES, &nvrtc::options(90));
            assert!(compiled.is_ok_and(|c| !c.cubin.is_empty()), "{}", variant.symbol());
        }
    }
}
