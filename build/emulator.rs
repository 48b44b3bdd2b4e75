//! The kernels as host code, for the emulator.

use crate::variants::{Module, Variant};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Kernels that do wrong on purpose, for the emulator's own tests.
const TEST_KERNELS: &str = "tests/kernels";

/// Writes one unit a module, with all its kernels, and compiles them into a static library.
pub(crate) fn build() {
    println!("cargo::rerun-if-changed=src/emulator");
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
        .include(root.join("kernels"))
        .include(root.join("kernels/include"))
        .include(root.join("src/emulator"));
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
    build.file("src/emulator/runtime.cpp");

    let all = Variant::all();
    let mut names = Vec::new();
    let mut unit = |name: String, text: String| {
        let path = out.join(format!("emulated_{name}.cpp"));
        let anchor = format!("{text}extern \"C\" {{\nint wl_emu_unit_{name} = 1;\n}}\n");
        write_if_changed(&path, &anchor);
        build.file(path);
        names.push(name);
    };
    for module in Module::ALL {
        let name = module.file().trim_end_matches(".cu").to_owned();
        unit(name, Variant::source(module, &all));
    }
    // Not part of the published crate.
    for entry in std::fs::read_dir(root.join(TEST_KERNELS)).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "cu") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            unit(format!("test_{stem}"), format!("#include {path:?}\n"));
        }
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

fn write_if_changed(path: &Path, text: &str) {
    if std::fs::read_to_string(path).ok().as_deref() != Some(text) {
        std::fs::write(path, text).expect("OUT_DIR is writable");
    }
}
