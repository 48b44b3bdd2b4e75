//! The kernels as machine code, where NVRTC is found: one compressed image a module and
//! architecture. Where it is not, the crate compiles at run time what it uses.

use crate::cache::{Cache, Key};
use crate::nvrtc::{self, Nvrtc, Target};
use crate::variants::{Module, Variant};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Architectures, comma-separated; empty: embed nothing.
const VARIABLE: &str = "WARPLOSS_CUDA_ARCHS";
const DEFAULT: &str = "80,86,89,90,100,120";

/// Writes `embedded.rs`, the list of what was compiled, and `sources.rs`, that of all sources.
pub(crate) fn build() {
    // Where the toolkit was looked for: another one makes other code.
    for variable in [VARIABLE, nvrtc::VARIABLE, "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo"));
    let archs = std::env::var(VARIABLE).unwrap_or_else(|_| DEFAULT.into());
    let archs = match architectures(&archs) {
        Ok(archs) => archs,
        Err(why) => {
            // Cargo shows it as the crate's error.
            println!("cargo::error={why}");
            return;
        }
    };
    let mut version = String::from("None");
    let mut list = String::new();
    match Nvrtc::load() {
        // Not worth a warning: users compile at run time all the same.
        Err(reason) => println!("no kernels embedded: {reason}"),
        Ok(nvrtc) => {
            version = format!("Some({:?})", nvrtc.version());
            let known = nvrtc.architectures().unwrap_or_default();
            let (known, unknown): (Vec<u32>, Vec<u32>) =
                archs.into_iter().partition(|arch| known.contains(arch));
            for arch in unknown {
                note(&nvrtc, &format!("has no sm_{arch}; its kernels are compiled at run time"));
            }
            for &arch in &known {
                for module in Module::all() {
                    match compile(&nvrtc, module, arch, &out) {
                        Ok(path) => {
                            let file = module.file();
                            writeln!(list, "({file:?}, {arch}, include_bytes!({path:?})),")
                                .expect("text");
                        }
                        Err(log) => {
                            let first = log.lines().find(|line| !line.trim().is_empty());
                            let said = first.unwrap_or_default();
                            let what = format!("does not compile {} for sm_{arch}", module.file());
                            note(&nvrtc, &format!("{what}; that is left to run time: {said}"));
                            println!("{log}");
                        }
                    }
                }
            }
        }
    }
    let text = format!(
        "/// The compiler of what is embedded.\n\
         pub(crate) const EMBEDDED_BY: Option<(i32, i32)> = {version};\n\
         static EMBEDDED: &[(&str, u32, &[u8])] = &[\n{list}];\n"
    );
    std::fs::write(out.join("embedded.rs"), text).expect("OUT_DIR is writable");
    let mut list = String::from("pub(crate) static SOURCES: &[(&str, &str)] = &[\n");
    for (name, text) in sources() {
        writeln!(list, "({name:?}, {text:?}),").expect("text");
    }
    list.push_str("];\n");
    std::fs::write(out.join("sources.rs"), list).expect("OUT_DIR is writable");
}

/// What the user should know of the compiler that was found.
fn note(nvrtc: &Nvrtc, what: &str) {
    let (major, minor) = nvrtc.version();
    println!("cargo::warning=NVRTC {major}.{minor} ({}) {what}", nvrtc.path().display());
}

/// 90 for `90` and `sm_90`, separated by commas.
fn architectures(text: &str) -> Result<Vec<u32>, String> {
    let archs = text.split(',').map(str::trim).filter(|arch| !arch.is_empty());
    let number = |arch: &str| {
        let number = arch.trim_start_matches("sm_").parse().ok();
        number.filter(|arch| (80..1000).contains(arch)).ok_or_else(|| {
            format!(
                "{VARIABLE}: expected architectures from 80 on, comma-separated ({DEFAULT}), or \
                 nothing, to embed none; got {arch:?}"
            )
        })
    };
    archs.map(number).collect()
}

/// Names, as `folder/file`, and texts of all files of kernels, sorted.
fn sources() -> Vec<(String, String)> {
    let mut sources = Vec::new();
    for folder in std::fs::read_dir("kernels").expect("the kernels are there").flatten() {
        for entry in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let (folder, file) = (folder.file_name(), entry.file_name());
            let name = format!("{}/{}", folder.to_string_lossy(), file.to_string_lossy());
            if name.ends_with(".cuh") || name.ends_with(".cu") {
                sources.push((name, std::fs::read_to_string(entry.path()).expect("UTF-8")));
            }
        }
    }
    sources.sort();
    sources
}

fn compile(nvrtc: &Nvrtc, module: Module, arch: u32, out: &Path) -> Result<PathBuf, String> {
    let variants: Vec<_> = Variant::all().into_iter().filter(|v| v.runs_on(arch)).collect();
    let source = Variant::source(module, &variants);
    let sources = sources();
    let target = Target::Machine(arch);
    let mut key =
        Key::new().with(source.as_bytes()).with(format!("{:?}", nvrtc.version()).as_bytes());
    for (name, text) in &sources {
        key = key.with(name.as_bytes()).with(text.as_bytes());
    }
    for option in target.options() {
        key = key.with(option.as_bytes());
    }
    let cache = Cache::at(out.join("cubins"));
    let code = match cache.get(key) {
        Some(code) => code,
        None => {
            let headers: Vec<_> = sources.iter().map(|(n, t)| (&n[..], &t[..])).collect();
            let compiled = nvrtc.compile(&source, &headers, target)?;
            for line in compiled.log.lines().filter(|l| l.contains("warning")) {
                println!("cargo::warning={} sm_{arch}: {line}", module.file());
            }
            cache.put(key, &compiled.code);
            compiled.code
        }
    };
    let path = out.join(format!("{}_{arch}.z", module.name()));
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    packer.write_all(&code).expect("memory");
    std::fs::write(&path, packer.finish().expect("memory")).expect("OUT_DIR is writable");
    Ok(path)
}
