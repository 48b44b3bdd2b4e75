// What kernels and the scheduler share: the running thread, and the list of kernels.
#include "host/intrinsics.hpp"

#include <cstddef>

extern "C" {
__thread WlEmuThread* wl_emu_self;
WlEmuKernel* wl_emu_kernels;

// The slot that the scheduler writes before it resumes a thread; each OS thread has its own.
WlEmuThread** wl_emu_self_slot() { return &wl_emu_self; }
WlEmuKernel* wl_emu_first_kernel() { return wl_emu_kernels; }

// Sizes and offsets, for src/emulator/abi.rs to compare with its own.
void wl_emu_sizes(wl_u32* out) {
  out[0] = sizeof(WlEmuCluster), out[1] = offsetof(WlEmuCluster, bytes_written);
  out[2] = sizeof(WlEmuThread), out[3] = offsetof(WlEmuThread, cluster);
  out[4] = sizeof(WlEmuKernel), out[5] = offsetof(WlEmuKernel, next);
}

// The host's conversions, for their test against another implementation.
float wl_emu_f16_to_f32(wl_u16 v) { return wl_f16_to_f32(wl_f16{v}); }
wl_u16 wl_emu_f32_to_f16(float v) { return wl_f32_to_f16(v).bits; }
float wl_emu_bf16_to_f32(wl_u16 v) { return wl_bf16_to_f32(wl_bf16{v}); }
wl_u16 wl_emu_f32_to_bf16(float v) { return wl_f32_to_bf16(v).bits; }
}
