//! Compiles the kernels: for the host where the emulator is wanted, for GPUs where NVRTC is found.

#[path = "src/code/variants.rs"]
#[allow(dead_code, unreachable_pub)]
mod variants;

/// What the table of kernels knows of the crate.
#[path = "src/spec"]
mod spec {
    pub(crate) mod elementwise {
        pub(crate) mod functors;
    }
}

#[cfg(feature = "emulator")]
#[path = "build/emulator.rs"]
mod emulator;

#[cfg(feature = "cuda")]
#[path = "src/code/cache.rs"]
#[allow(dead_code, unreachable_pub)]
mod cache;
#[cfg(feature = "cuda")]
#[path = "src/code/libraries.rs"]
#[allow(dead_code, unreachable_pub)]
mod libraries;
#[cfg(feature = "cuda")]
#[path = "src/code/nvrtc.rs"]
#[allow(dead_code, unreachable_pub)]
mod nvrtc;
#[cfg(feature = "cuda")]
#[path = "build/nvrtc.rs"]
mod nvrtc_build;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A device with kernels: cudarc's, or the emulator's.
    println!("cargo::rustc-check-cfg=cfg(gpu)");
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    println!("cargo::rustc-cfg=gpu");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-changed=src/code/variants.rs");
    println!("cargo::rerun-if-changed=src/code/variants");
    println!("cargo::rerun-if-changed=src/spec/elementwise/functors.rs");
    #[cfg(feature = "emulator")]
    emulator::build();
    #[cfg(feature = "cuda")]
    nvrtc_build::build();
}
