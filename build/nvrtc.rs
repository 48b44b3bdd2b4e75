//! The kernels as machine code, where NVRTC is found: one compressed image a module and
//! architecture. Where it is not, the crate compiles at run time what it uses.

use crate::cache::{Cache, Key};
use crate::nvrtc::{self, Nvrtc};
use crate::variants::{Module, Variant};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Architectures, comma-separated; empty: embed nothing.
const VARIABLE: &str = "WARPLOSS_CUDA_ARCHS";
const DEFAULT: &str = "80,86,89,90,100,120";

/// Writes `embedded.rs`, the list of what was compiled, and `sources.rs`, that of all sources.
pub(crate) fn build() {
    for variable in [VARIABLE, nvrtc::VARIABLE, "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo"));
    let archs = std::env::var(VARIABLE).unwrap_or_else(|_| DEFAULT.into());
    let archs: Vec<u32> = archs
        .split(',')
        .filter(|a| !a.trim().is_empty())
        .map(|a| a.trim().trim_start_matches("sm_").parse().expect("WARPLOSS_CUDA_ARCHS: 80,90,…"))
        .collect();
    let mut list = String::from("static EMBEDDED: &[(&str, u32, &[u8])] = &[\n");
    match Nvrtc::load() {
        Ok(nvrtc) => {
            for &arch in &archs {
                for &module in Module::ALL {
                    let path = compile(&nvrtc, module, arch, &out);
                    let file = module.file();
                    writeln!(list, "({file:?}, {arch}, include_bytes!({path:?})),").expect("text");
                }
            }
        }
        // Not worth a warning: users compile at run time all the same.
        Err(reason) => println!("no kernels embedded: {reason}"),
    }
    list.push_str("];\n");
    std::fs::write(out.join("embedded.rs"), list).expect("OUT_DIR is writable");
    let mut list = String::from("pub(crate) static SOURCES: &[(&str, &str)] = &[\n");
    for (name, text) in sources() {
        writeln!(list, "({name:?}, {text:?}),").expect("text");
    }
    list.push_str("];\n");
    std::fs::write(out.join("sources.rs"), list).expect("OUT_DIR is writable");
}

/// Names and texts of all files of kernels, sorted.
fn sources() -> Vec<(String, String)> {
    let mut sources = Vec::new();
    for folder in ["kernels/include", "kernels"] {
        for entry in std::fs::read_dir(folder).expect("the kernels are there").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".cuh") || name.ends_with(".cu") {
                sources.push((name, std::fs::read_to_string(entry.path()).expect("UTF-8")));
            }
        }
    }
    sources.sort();
    sources
}

fn compile(nvrtc: &Nvrtc, module: Module, arch: u32, out: &Path) -> PathBuf {
    let variants: Vec<_> = Variant::all().into_iter().filter(|v| v.runs_on(arch)).collect();
    let source = Variant::source(module, &variants);
    let sources = sources();
    let options = nvrtc::options(arch);
    let mut key =
        Key::new().with(source.as_bytes()).with(format!("{:?}", nvrtc.version()).as_bytes());
    for (name, text) in &sources {
        key = key.with(name.as_bytes()).with(text.as_bytes());
    }
    for option in &options {
        key = key.with(option.as_bytes());
    }
    let cache = Cache::at(out.join("cubins"));
    let code = cache.get(key).unwrap_or_else(|| {
        let headers: Vec<_> = sources.iter().map(|(n, t)| (&n[..], &t[..])).collect();
        let compiled = nvrtc
            .compile(&source, &headers, &options)
            .unwrap_or_else(|log| panic!("{} for sm_{arch}: {log}", module.file()));
        for line in compiled.log.lines().filter(|l| l.contains("warning")) {
            println!("cargo::warning={} sm_{arch}: {line}", module.file());
        }
        cache.put(key, &compiled.cubin);
        compiled.cubin
    });
    let path = out.join(format!("{}_{arch}.z", module.file()));
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    packer.write_all(&code).expect("memory");
    std::fs::write(&path, packer.finish().expect("memory")).expect("OUT_DIR is writable");
    path
}
