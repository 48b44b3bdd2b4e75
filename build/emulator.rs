//! The kernels as host code, for the emulator.

use crate::variants::{Module, Variant};
use std::path::PathBuf;

/// Writes one unit a module, with all its kernels, and compiles them into a static library.
pub(crate) fn build() {
    println!("cargo::rerun-if-changed=src/emulator");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo"));
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .include("kernels")
        .include("kernels/include")
        .include("src/emulator")
        .flag("-ffp-contract=off")
        .flag("-fno-strict-aliasing")
        .flag("-Wno-unknown-pragmas")
        .opt_level(2)
        .debug(false)
        // Kernels register themselves: nothing else refers to them.
        .link_lib_modifier("+whole-archive")
        .file("src/emulator/runtime.cpp");
    let all = Variant::all();
    for module in Module::ALL {
        let unit = out.join(format!("emulated_{}pp", module.file().trim_end_matches('u')));
        std::fs::write(&unit, Variant::source(module, &all)).expect("OUT_DIR is writable");
        build.file(unit);
    }
    build.compile("warploss_emulated");
}
