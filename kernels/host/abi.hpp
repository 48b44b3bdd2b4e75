// What kernels and the emulator agree upon: words, the running thread, what is called, kernels' names.
// `WL_AT` carries the caller's file and line into the report.
#pragma once

typedef unsigned char wl_u8;
typedef unsigned short wl_u16;
typedef unsigned int wl_u32;
typedef unsigned long long wl_u64;
typedef int wl_i32;
typedef long long wl_i64;

#define WL_HAS_CLUSTER 1
#define WL_EMULATED 1
#define WL_FN inline
#define WL_RESTRICT __restrict__
#define WL_UNROLL
#define WL_UNROLL_N(n)
#define WL_AT const char *wl_file = __builtin_FILE(), wl_u32 wl_line = __builtin_LINE()
#define WL_HERE wl_file, wl_line

// ---- What the scheduler shows a kernel (mirrored in src/emulator/abi.rs) ----------------------
struct WlEmuCluster {
  // The allocations hit last by a read and by a write: [lo, hi).
  wl_u64 read_lo, read_hi, write_lo, write_hi;
  // From an address to the byte that says whether it was ever written.
  wl_u64 shadow;
  // Traffic counts in allocations of so many bytes and more.
  wl_u64 counted;
  // Whether it is remembered what is written.
  wl_u64 remembered;
  wl_u64 bytes_read, bytes_written;
};
struct WlEmuThread {
  wl_u32 thread, threads, block, blocks, block_y, blocks_y, rank, ranks;
  // Whether the launch before may still run, for all that this thread knows; how often it has looked in vain for
  // what other blocks write.
  wl_u32 early, pauses;
  unsigned char* shared;
  WlEmuCluster* cluster;
};
struct WlEmuKernel {
  const char* name;
  void (*thunk)(const void* args);
  wl_u32 args_size, args_align, threads, blocks, cluster, line;
  const char* file;
  WlEmuKernel* next;
};
extern "C" {
extern __thread WlEmuThread* wl_emu_self;
extern WlEmuKernel* wl_emu_kernels;

// Finds the allocation of an access that the cached one does not cover, or reports it.
void wl_emu_global(wl_u64 address, wl_u32 size, wl_u32 align, wl_u32 write, const char* file, wl_u32 line);
[[noreturn]] void wl_emu_global_uninitialised(wl_u64 address, wl_u32 size, const char* file, wl_u32 line);
void wl_emu_early(wl_u64 address, wl_u32 size, wl_u32 write, const char* file, wl_u32 line);
void wl_emu_remember(wl_u64 address, wl_u32 size);
void wl_emu_pause(const char* file, wl_u32 line);
wl_u32 wl_emu_shared_site(const void* site, wl_u64 bytes, const char* file, wl_u32 line);
wl_u32 wl_emu_shared_dynamic(wl_u64 offset, wl_u64 bytes, wl_u32 align, const char* file, wl_u32 line);
[[noreturn]] void wl_emu_shared_outside(wl_i64 index, wl_u64 count, const char* file, wl_u32 line);
void wl_emu_shared(wl_u32 offset, wl_u32 size, wl_u32 align, wl_u32 write, const char* file, wl_u32 line);
wl_u32 wl_emu_peer(wl_u32 offset, wl_u32 rank, const char* file, wl_u32 line);
void wl_emu_mbarrier_init(wl_u32 offset, wl_u32 bytes, const char* file, wl_u32 line);
void wl_emu_mbarrier_show();
void wl_emu_st_async(wl_u32 to, wl_u32 bar, wl_u64 value, const char* file, wl_u32 line);
void wl_emu_mbarrier_wait(wl_u32 offset, const char* file, wl_u32 line);
void wl_emu_cp_async(wl_u32 offset, wl_u64 address, wl_u32 bytes, const char* file, wl_u32 line);
void wl_emu_cp_async_commit();
void wl_emu_cp_async_wait(wl_u32 open, const char* file, wl_u32 line);
wl_u64 wl_emu_collective(wl_u32 op, wl_u32 mask, wl_u64 value, wl_u32 arg, wl_u32 width, const char* file,
                         wl_u32 line);
wl_u32 wl_emu_barrier(wl_u32 op, wl_u32 value, const char* file, wl_u32 line);
void wl_emu_cluster_arrive(const char* file, wl_u32 line);
void wl_emu_cluster_wait(const char* file, wl_u32 line);
}
enum WlEmuCollective : wl_u32 {
  WL_EMU_XOR, WL_EMU_DOWN, WL_EMU_UP, WL_EMU_IDX, WL_EMU_BALLOT, WL_EMU_SYNCWARP,
  WL_EMU_ADD, WL_EMU_MIN, WL_EMU_MAX, WL_EMU_OR,
};
enum WlEmuBarrier : wl_u32 { WL_EMU_BAR, WL_EMU_BAR_OR, WL_EMU_BAR_AND, WL_EMU_BAR_COUNT };

struct WlEmuRegister {
  WlEmuKernel kernel;
  WlEmuRegister(const char* name, void (*thunk)(const void*), wl_u32 size, wl_u32 align, wl_u32 threads,
                wl_u32 blocks, wl_u32 cluster, const char* file, wl_u32 line)
      : kernel{name, thunk, size, align, threads, blocks, cluster, line, file, wl_emu_kernels} {
    wl_emu_kernels = &kernel;
  }
};

// ---- Kernels ---------------------------------------------------------------------------------
#define WL_KERNEL_CLUSTER(name, Args, threads, blocks, cluster)                                       \
  static void wl_kernel_##name(const Args& args);                                                     \
  static WlEmuRegister wl_register_##name(                                                            \
      #name, [](const void* args) { wl_kernel_##name(*static_cast<const Args*>(args)); }, sizeof(Args), \
      alignof(Args), threads, blocks, cluster, __FILE__, __LINE__);                                   \
  static void wl_kernel_##name([[maybe_unused]] const Args& args)
// Cluster 0: any, as the launch says.
#define WL_KERNEL(name, Args, threads, blocks) WL_KERNEL_CLUSTER(name, Args, threads, blocks, 0)
