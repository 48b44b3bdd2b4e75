//! The kernels as host code, for the emulator.

use crate::variants::{Module, Variant};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

/// Kernels that do wrong on purpose, for the emulator's own tests.
const TEST_KERNELS: &str = "tests/kernels";

/// Writes one unit a module, with all its kernels, and compiles them into a static library.
pub(crate) fn build() {
    println!("cargo::rerun-if-changed=src/emulator/runtime.cpp");
    println!("cargo::rerun-if-changed={TEST_KERNELS}");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo"));
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .debug(false)
        .cpp_link_stdlib(None)
        .include(root.join("kernels"));
    for flag in [
        "-ffp-contract=off",
        "-fno-strict-aliasing",
        "-fno-exceptions",
        "-fno-rtti",
        "-fno-threadsafe-statics",
        "-fno-stack-protector",
        "-Wno-unknown-pragmas",
        "-Wno-unused-parameter",
    ] {
        build.flag(flag);
    }

    let all = Variant::all();
    let shared = digest(&[PathBuf::from("build")]);
    let runtime = PathBuf::from("src/emulator/runtime.cpp");
    let key = digest(&included(&runtime)) ^ shared;
    let mut units = vec![Unit { path: runtime, key }];
    let mut names = Vec::new();
    let mut unit = |name: String, text: String| {
        let path = out.join(format!("emulated_{name}.cpp"));
        let anchor = format!("{text}extern \"C\" {{\nint wl_emu_unit_{name} = 1;\n}}\n");
        std::fs::write(&path, &anchor).expect("OUT_DIR is writable");
        let key = digest(&included(&path)) ^ shared;
        units.push(Unit { path, key });
        names.push(name);
    };
    for module in Module::all() {
        unit(module.name().to_owned(), Variant::source(module, &all));
    }
    // Not part of the published crate.
    for entry in std::fs::read_dir(root.join(TEST_KERNELS)).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "cu") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            unit(format!("test_{stem}"), format!("#include {path:?}\n"));
        }
    }
    for object in objects(&build, &units, &out) {
        build.object(object);
    }
    build.compile("warploss_emulated");

    // Kernels list themselves, once something refers to their unit.
    let mut text = String::from("unsafe extern \"C\" {\n");
    for name in &names {
        writeln!(text, "    safe static wl_emu_unit_{name}: i32;").expect("text");
    }
    text.push_str("}\nstatic UNITS: &[&i32] = &[\n");
    for name in &names {
        writeln!(text, "    &wl_emu_unit_{name},").expect("text");
    }
    text.push_str("];\n");
    std::fs::write(out.join("emulator_units.rs"), text).expect("OUT_DIR is writable");
}

/// A translation unit, and what stands for all that it is made of.
struct Unit {
    path: PathBuf,
    key: u64,
}

/// The units' objects: those of an earlier build where nothing has changed, as compiling takes
/// its time.
fn objects(build: &cc::Build, units: &[Unit], out: &Path) -> Vec<PathBuf> {
    let kept = |unit: &Unit| {
        let name = unit.path.file_stem().unwrap_or_default().to_string_lossy();
        out.join(format!("{name}-{:016x}.o", unit.key))
    };
    let stale: Vec<&Unit> = units.iter().filter(|unit| !kept(unit).exists()).collect();
    if !stale.is_empty() {
        let mut build = build.clone();
        build.files(stale.iter().map(|unit| &unit.path));
        for (object, unit) in build.compile_intermediates().iter().zip(&stale) {
            std::fs::rename(object, kept(unit)).expect("OUT_DIR is writable");
        }
    }
    units.iter().map(kept).collect()
}

/// A source and every file of kernels that it includes, by others or itself.
fn included(source: &Path) -> Vec<PathBuf> {
    let mut found = vec![source.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next) {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let names = text.lines().filter_map(|line| line.strip_prefix("#include \""));
        for name in names.filter_map(|rest| rest.split('"').next()) {
            // A full path stays what it is.
            let path = Path::new("kernels").join(name);
            if path.exists() && !found.contains(&path) {
                found.push(path);
            }
        }
        next += 1;
    }
    found
}

/// A number that stands for the contents of files, and of the files of folders.
fn digest(paths: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        match std::fs::read_dir(path) {
            Ok(entries) => files.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) => files.push(path.clone()),
        }
    }
    files.sort();
    for file in files {
        std::fs::read(&file).unwrap_or_default().hash(&mut hasher);
    }
    hasher.finish()
}
