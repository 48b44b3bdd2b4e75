//! Code of a kernel: embedded at build time, from the disk cache, or compiled now.

use crate::base::error::{Error, Result};
use crate::code::cache::{Cache, Key};
use crate::code::choice;
use crate::code::choice::{Compiler, Version};
use crate::code::nvrtc::{Nvrtc, Target};
use crate::code::variants::{Module, Variant};

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

// Of the folder `kernels`, by the build script: `SOURCES`, file by file.
include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// The embedded machine code of a module that NVIDIA promises to run on an architecture.
pub(crate) fn embedded(module: Module, arch: u32) -> Result<Option<Vec<u8>>> {
    let of_module = EMBEDDED.iter().filter(|e| e.0 == module.file());
    let found = of_module.filter(|e| choice::runs(e.1, arch)).max_by_key(|e| e.1);
    let Some((.., packed)) = found else {
        return Ok(None);
    };
    let mut code = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(*packed), &mut code)
        .map_err(|e| Error::Device { reason: format!("embedded kernels are damaged: {e}") })?;
    Ok(Some(code))
}

/// What a driver's refusal of embedded code is told as.
pub(crate) fn embedded_refused(why: &str) -> String {
    match EMBEDDED_BY {
        Some((major, minor)) => {
            format!("embedded by NVRTC {major}.{minor}: the driver says {why}")
        }
        None => format!("embedded: the driver says {why}"),
    }
}

#[cfg(feature = "cli")]
/// Architectures that machine code is embedded for.
pub(crate) fn embedded_architectures() -> Vec<u32> {
    let mut archs: Vec<_> = EMBEDDED.iter().map(|e| e.1).collect();
    archs.sort_unstable();
    archs.dedup();
    archs
}

/// A compiler of the user's for one kernel, by way of the cache.
pub(crate) struct Compilation {
    nvrtc: Nvrtc,
    variant: Variant,
}

impl Compilation {
    /// One for each compiler of this machine.
    pub(crate) fn all(variant: Variant) -> impl Iterator<Item = Result<Compilation, String>> {
        Nvrtc::all().map(move |nvrtc| Ok(Compilation { nvrtc: nvrtc?, variant }))
    }
}

impl Compiler for Compilation {
    fn version(&self) -> Version {
        self.nvrtc.version()
    }

    fn architectures(&self) -> Vec<u32> {
        self.nvrtc.architectures().unwrap_or_default()
    }

    fn compile(&self, target: Target) -> Result<Vec<u8>, String> {
        let source = Variant::source(self.variant.module(), &[self.variant]);
        let mut key = Key::new().with(source.as_bytes());
        let options = target.options();
        let texts = SOURCES.iter().flat_map(|s| [s.0, s.1]);
        for text in texts.chain(options.iter().map(|o| &o[..])) {
            key = key.with(text.as_bytes());
        }
        key = key.with(format!("{:?}", self.version()).as_bytes());
        let cache = Cache::of_user();
        if let Some(code) = cache.as_ref().and_then(|c| c.get(key)) {
            return Ok(code);
        }
        let compiled = self.nvrtc.compile(&source, SOURCES, target)?;
        if let Some(cache) = cache {
            cache.put(key, &compiled.code);
        }
        Ok(compiled.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::nvrtc::VARIABLE;

    /// What is compiled at run time is all there: a module's file, and all that it includes.
    #[test]
    fn every_file_that_a_kernel_includes_is_carried() {
        let carried = |name: &str| SOURCES.iter().any(|(file, _)| *file == name);
        for module in Module::all() {
            assert!(carried(module.file()), "{}", module.file());
        }
        for (file, text) in SOURCES {
            let includes = text.lines().filter_map(|line| line.strip_prefix("#include \""));
            for name in includes.filter_map(|rest| rest.split('"').next()) {
                // The emulator's side of the same names is compiled with the crate.
                assert!(carried(name) || name.starts_with("host/"), "{file} includes {name}");
            }
        }
    }

    /// A kernel of each module by the sources that are carried, where there is a compiler; one that
    /// is named has to be there (`scripts/nvrtc-matrix` names several).
    #[test]
    fn kernels_are_compiled_at_run_time() {
        let nvrtc = match Nvrtc::load() {
            Ok(nvrtc) => nvrtc,
            Err(why) if std::env::var_os(VARIABLE).is_some() => panic!("{why}"),
            Err(why) => return eprintln!("kernels are NOT compiled here: {why}"),
        };
        let (major, minor) = nvrtc.version();
        for module in Module::all() {
            let all = Variant::all();
            let variant = all.iter().find(|v| v.module() == module).expect("one each");
            let source = Variant::source(module, &[*variant]);
            let compiled = nvrtc.compile(&source, SOURCES, Target::Machine(90));
            let compiled = compiled.unwrap_or_else(|log| panic!("{}: {log}", variant.symbol()));
            assert!(compiled.code.starts_with(b"\x7fELF"), "{}", variant.symbol());
        }
        let source = Variant::source(Module::Batch, &Variant::all());
        let ptx = nvrtc.compile(&source, SOURCES, Target::Ptx(80)).map(|ptx| ptx.code);
        let ptx = ptx.unwrap_or_else(|log| panic!("{log}"));
        assert!(ptx.ends_with(b"\0") && ptx.windows(12).any(|at| at == b".target sm_8"));
        println!("{} modules by NVRTC {major}.{minor}", Module::all().len());
    }
}
