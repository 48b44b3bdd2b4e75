//! What kernels and scheduler share in memory: mirrors the structs of `kernels/host/abi.hpp`.

use std::ffi::{c_char, c_void};

/// `WlEmuCluster`.
#[repr(C)]
pub(super) struct Cluster {
    pub(super) read_lo: u64,
    pub(super) read_hi: u64,
    pub(super) write_lo: u64,
    pub(super) write_hi: u64,
    pub(super) shadow: u64,
    pub(super) counted: u64,
    pub(super) remembered: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
}

/// `WlEmuThread`.
#[repr(C)]
pub(super) struct Thread {
    pub(super) thread: u32,
    pub(super) threads: u32,
    pub(super) block: u32,
    pub(super) blocks: u32,
    pub(super) block_y: u32,
    pub(super) blocks_y: u32,
    pub(super) rank: u32,
    pub(super) ranks: u32,
    pub(super) early: u32,
    pub(super) pauses: u32,
    pub(super) shared: *mut u8,
    pub(super) cluster: *mut Cluster,
}

/// `WlEmuKernel`.
#[repr(C)]
pub(super) struct Kernel {
    pub(super) name: *const c_char,
    pub(super) thunk: unsafe extern "C" fn(*const c_void),
    pub(super) args_size: u32,
    pub(super) args_align: u32,
    pub(super) threads: u32,
    pub(super) blocks: u32,
    pub(super) cluster: u32,
    pub(super) line: u32,
    pub(super) file: *const c_char,
    pub(super) next: *const Kernel,
}

unsafe extern "C" {
    pub(super) fn wl_emu_self_slot() -> *mut *mut Thread;
    pub(super) fn wl_emu_first_kernel() -> *const Kernel;
    fn wl_emu_sizes(out: *mut u32);
    pub(super) fn wl_emu_f16_to_f32(v: u16) -> f32;
    pub(super) fn wl_emu_f32_to_f16(v: f32) -> u16;
    pub(super) fn wl_emu_bf16_to_f32(v: u16) -> f32;
    pub(super) fn wl_emu_f32_to_bf16(v: f32) -> u16;
}

/// Panics where the two sides disagree about a struct: a mistake of this crate.
pub(super) fn check_layout() {
    use std::mem::offset_of;
    let mut there = [0u32; 6];
    // SAFETY: `wl_emu_sizes` writes six words.
    unsafe { wl_emu_sizes(there.as_mut_ptr()) };
    let here = [
        size_of::<Cluster>(),
        offset_of!(Cluster, bytes_written),
        size_of::<Thread>(),
        offset_of!(Thread, cluster),
        size_of::<Kernel>(),
        offset_of!(Kernel, next),
    ];
    assert_eq!(here.map(|n| n as u32), there, "emulator: layouts differ between Rust and C++");
}
