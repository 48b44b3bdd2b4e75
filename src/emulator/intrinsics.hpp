// The host side of kernels/core/intrinsics.cuh: the same names, run by the emulator.
//
// A kernel's thread is a coroutine of the scheduler (src/emulator/scheduler.rs). Collectives and
// barriers suspend it there; every access to memory is checked, and a violation never returns.
// `WL_AT` carries the caller's file and line into the report.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

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
  wl_u64 bytes_read, bytes_written;
};
struct WlEmuThread {
  wl_u32 thread, threads, block, blocks, block_y, blocks_y, rank, ranks;
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
wl_u32 wl_emu_shared_site(const void* site, wl_u64 bytes, const char* file, wl_u32 line);
wl_u32 wl_emu_shared_dynamic(wl_u64 offset, wl_u64 bytes, wl_u32 align, const char* file, wl_u32 line);
[[noreturn]] void wl_emu_shared_outside(wl_i64 index, wl_u64 count, const char* file, wl_u32 line);
void wl_emu_shared(wl_u32 offset, wl_u32 size, wl_u32 align, wl_u32 write, const char* file, wl_u32 line);
wl_u32 wl_emu_peer(wl_u32 offset, wl_u32 rank, const char* file, wl_u32 line);
unsigned char* wl_emu_peer_access(wl_u32 address, wl_u32 size, wl_u32 write, const char* file, wl_u32 line);
void wl_emu_cp_async(wl_u32 offset, wl_u64 address, const char* file, wl_u32 line);
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

// ---- Values ----------------------------------------------------------------------------------
struct alignas(16) wl_u32x4 {
  wl_u32 x, y, z, w;
};
struct alignas(8) wl_f32x2 {
  float x, y;
};
struct wl_f16 {
  wl_u16 bits;
};
struct wl_bf16 {
  wl_u16 bits;
};
template <class To, class From>
WL_FN To wl_bit_cast(From v) {
  static_assert(sizeof(To) == sizeof(From), "wl_bit_cast: sizes differ");
  To r;
  memcpy(&r, &v, sizeof(To));
  return r;
}
WL_FN float wl_f32(wl_u32 bits) { return wl_bit_cast<float>(bits); }
WL_FN wl_u32 wl_bits(float v) { return wl_bit_cast<wl_u32>(v); }
WL_FN float wl_inf() { return __builtin_inff(); }
WL_FN float wl_nan() { return wl_f32(0x7fffffffu); }
WL_FN bool wl_isnan(float v) { return v != v; }

// ---- Where a thread stands -------------------------------------------------------------------
WL_FN wl_u32 wl_thread() { return wl_emu_self->thread; }
WL_FN wl_u32 wl_threads() { return wl_emu_self->threads; }
WL_FN wl_u32 wl_lane() { return wl_thread() & 31u; }
WL_FN wl_u32 wl_warp() { return wl_thread() >> 5; }
WL_FN wl_u32 wl_warps() { return (wl_threads() + 31u) >> 5; }
WL_FN wl_u32 wl_block() { return wl_emu_self->block; }
WL_FN wl_u32 wl_blocks() { return wl_emu_self->blocks; }
WL_FN wl_u32 wl_block_y() { return wl_emu_self->block_y; }
WL_FN wl_u32 wl_blocks_y() { return wl_emu_self->blocks_y; }

// ---- Arithmetic ------------------------------------------------------------------------------
// A subnormal becomes a zero of its sign, as .ftz does.
WL_FN float wl_emu_ftz(float v) { return (wl_bits(v) & 0x7f800000u) ? v : wl_f32(wl_bits(v) & 0x80000000u); }
WL_FN float wl_ex2(float x) { return wl_emu_ftz(exp2f(wl_emu_ftz(x))); }
WL_FN float wl_lg2(float x) { return wl_emu_ftz(log2f(wl_emu_ftz(x))); }
WL_FN float wl_rcp(float x) { return wl_emu_ftz(1.0f / wl_emu_ftz(x)); }
WL_FN float wl_exp(float x) { return expf(x); }
WL_FN float wl_log(float x) { return logf(x); }
WL_FN float wl_log1p(float x) { return log1pf(x); }
WL_FN double wl_log(double x) { return log(x); }
WL_FN double wl_log1p(double x) { return log1p(x); }
WL_FN double wl_expm1(double x) { return expm1(x); }
WL_FN float wl_tanh(float x) { return tanhf(x); }
WL_FN float wl_sqrt(float x) { return sqrtf(x); }
WL_FN float wl_fma(float a, float b, float c) { return fmaf(a, b, c); }
WL_FN float wl_max(float a, float b) { return a != a || a < b ? b : a; }
WL_FN float wl_min(float a, float b) { return a != a || b < a ? b : a; }
WL_FN float wl_abs(float a) { return wl_f32(wl_bits(a) & 0x7fffffffu); }
WL_FN float wl_mul_rn(float a, float b) { return a * b; }  // -ffp-contract=off
WL_FN float wl_add_rn(float a, float b) { return a + b; }
WL_FN wl_u32 wl_popc(wl_u32 v) { return (wl_u32)__builtin_popcount(v); }
WL_FN wl_u32 wl_clz(wl_u32 v) { return v ? (wl_u32)__builtin_clz(v) : 32u; }
WL_FN wl_u32 wl_ffs(wl_u32 v) { return (wl_u32)__builtin_ffs((int)v); }

// ---- f16 and bf16 ----------------------------------------------------------------------------
WL_FN float wl_f16_to_f32(wl_f16 v) {
  wl_u32 sign = (wl_u32)(v.bits & 0x8000u) << 16, magnitude = v.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) {  // infinity, or NaN, whose payload stays and which becomes quiet
    wl_u32 quiet = magnitude > 0x7c00u ? 0x00400000u : 0u;
    return wl_f32(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13 | quiet);
  }
  // Shifted into place the exponent is 112 too small; the product is exact, subnormals included.
  return wl_f32(sign | wl_bits(wl_f32(magnitude << 13) * 0x1p112f));
}
WL_FN wl_f16 wl_f32_to_f16(float v) {
  wl_u32 bits = wl_bits(v), magnitude = bits & 0x7fffffffu;
  wl_u16 sign = (wl_u16)((bits >> 16) & 0x8000u);
  if (magnitude > 0x7f800000u) return wl_f16{0x7fff};  // the GPU's one NaN
  if (magnitude >= 0x477ff000u) return wl_f16{(wl_u16)(sign | 0x7c00u)};
  if (magnitude < 0x38800000u) {
    // Subnormal: one ulp of 0.5 is 2^-24, so the sum rounds where f16 does.
    wl_u32 sum = wl_bits(wl_f32(magnitude) + 0.5f);
    return wl_f16{(wl_u16)(sign | (sum - 0x3f000000u))};
  }
  wl_u32 rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
  return wl_f16{(wl_u16)(sign | (rounded >> 13))};
}
WL_FN float wl_bf16_to_f32(wl_bf16 v) { return wl_f32((wl_u32)v.bits << 16); }
WL_FN wl_bf16 wl_f32_to_bf16(float v) {
  wl_u32 bits = wl_bits(v);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return wl_bf16{0x7fff};
  return wl_bf16{(wl_u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
WL_FN wl_u32 wl_pack_f16x2(float lo, float hi) {
  return (wl_u32)wl_f32_to_f16(hi).bits << 16 | wl_f32_to_f16(lo).bits;
}
WL_FN wl_f32x2 wl_unpack_f16x2(wl_u32 v) {
  return wl_f32x2{wl_f16_to_f32(wl_f16{(wl_u16)v}), wl_f16_to_f32(wl_f16{(wl_u16)(v >> 16)})};
}
WL_FN wl_u32 wl_pack_bf16x2(float lo, float hi) {
  return (wl_u32)wl_f32_to_bf16(hi).bits << 16 | wl_f32_to_bf16(lo).bits;
}
WL_FN wl_f32x2 wl_unpack_bf16x2(wl_u32 v) { return wl_f32x2{wl_f32(v << 16), wl_f32(v & 0xffff0000u)}; }

// ---- A warp ----------------------------------------------------------------------------------
#define WL_FULL_MASK 0xffffffffu
template <class T>
WL_FN T wl_emu_shuffle(wl_u32 op, wl_u32 mask, T v, wl_u32 arg, wl_u32 width, const char* file, wl_u32 line) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "wl_shfl: 4 or 8 bytes");
  if constexpr (sizeof(T) == 4)
    return wl_bit_cast<T>((wl_u32)wl_emu_collective(op, mask, wl_bit_cast<wl_u32>(v), arg, width, file, line));
  else
    return wl_bit_cast<T>(wl_emu_collective(op, mask, wl_bit_cast<wl_u64>(v), arg, width, file, line));
}
template <class T>
WL_FN T wl_shfl_xor(wl_u32 mask, T v, wl_u32 lane_mask, wl_u32 width = 32, WL_AT) {
  return wl_emu_shuffle(WL_EMU_XOR, mask, v, lane_mask, width, WL_HERE);
}
template <class T>
WL_FN T wl_shfl_down(wl_u32 mask, T v, wl_u32 delta, wl_u32 width = 32, WL_AT) {
  return wl_emu_shuffle(WL_EMU_DOWN, mask, v, delta, width, WL_HERE);
}
template <class T>
WL_FN T wl_shfl_up(wl_u32 mask, T v, wl_u32 delta, wl_u32 width = 32, WL_AT) {
  return wl_emu_shuffle(WL_EMU_UP, mask, v, delta, width, WL_HERE);
}
template <class T>
WL_FN T wl_shfl(wl_u32 mask, T v, wl_u32 src_lane, wl_u32 width = 32, WL_AT) {
  return wl_emu_shuffle(WL_EMU_IDX, mask, v, src_lane, width, WL_HERE);
}

WL_FN wl_u32 wl_ballot(wl_u32 mask, bool p, WL_AT) {
  return (wl_u32)wl_emu_collective(WL_EMU_BALLOT, mask, p, 0, 32, WL_HERE);
}
WL_FN bool wl_any(wl_u32 mask, bool p, WL_AT) { return wl_ballot(mask, p, WL_HERE) != 0; }
WL_FN bool wl_all(wl_u32 mask, bool p, WL_AT) { return wl_ballot(mask, p, WL_HERE) == mask; }
WL_FN wl_u32 wl_redux_add(wl_u32 mask, wl_u32 v, WL_AT) {
  return (wl_u32)wl_emu_collective(WL_EMU_ADD, mask, v, 0, 32, WL_HERE);
}
WL_FN wl_u32 wl_redux_min(wl_u32 mask, wl_u32 v, WL_AT) {
  return (wl_u32)wl_emu_collective(WL_EMU_MIN, mask, v, 0, 32, WL_HERE);
}
WL_FN wl_u32 wl_redux_max(wl_u32 mask, wl_u32 v, WL_AT) {
  return (wl_u32)wl_emu_collective(WL_EMU_MAX, mask, v, 0, 32, WL_HERE);
}
WL_FN wl_u32 wl_redux_or(wl_u32 mask, wl_u32 v, WL_AT) {
  return (wl_u32)wl_emu_collective(WL_EMU_OR, mask, v, 0, 32, WL_HERE);
}
WL_FN void wl_syncwarp(wl_u32 mask = WL_FULL_MASK, WL_AT) {
  wl_emu_collective(WL_EMU_SYNCWARP, mask, 0, 0, 32, WL_HERE);
}

// Tensor cores: lanes lay their fragments down, and each takes those rows and columns that its four sums
// are of. The threads of a cluster take turns on one of the host's.
inline thread_local wl_u32 wl_emu_fragments[16][32][32][6];
template <class T>
WL_FN wl_u32 wl_pack(float lo, float hi);
template <>
WL_FN wl_u32 wl_pack<wl_f16>(float lo, float hi) { return wl_pack_f16x2(lo, hi); }
template <>
WL_FN wl_u32 wl_pack<wl_bf16>(float lo, float hi) { return wl_pack_bf16x2(lo, hi); }
template <class T>
WL_FN void wl_emu_unpack(wl_u32 v, float* to) {
  wl_f32x2 two;
  if constexpr (std::is_same_v<T, wl_f16>) two = wl_unpack_f16x2(v);
  else two = wl_unpack_bf16x2(v);
  to[0] = two.x, to[1] = two.y;
}
template <class T>
WL_FN void wl_mma(float (&d)[4], const wl_u32 (&a)[4], wl_u32 b0, wl_u32 b1, WL_AT) {
  auto& lanes = wl_emu_fragments[wl_emu_self->rank % 16][wl_warp()];
  const wl_u32 g = wl_lane() / 4, t = wl_lane() % 4, own[6] = {a[0], a[1], a[2], a[3], b0, b1};
  memcpy(lanes[wl_lane()], own, sizeof own);
  wl_syncwarp(WL_FULL_MASK, WL_HERE);
  float rows[2][16], columns[2][16];
  for (wl_u32 q = 0; q < 4; q++) {
    for (wl_u32 r = 0; r < 4; r++) wl_emu_unpack<T>(lanes[4 * g + q][r], rows[r % 2] + 2 * q + 8 * (r / 2));
    for (wl_u32 c = 0; c < 2; c++) {
      for (wl_u32 half = 0; half < 2; half++) {
        wl_emu_unpack<T>(lanes[4 * (2 * t + c) + q][4 + half], columns[c] + 2 * q + 8 * half);
      }
    }
  }
  wl_syncwarp(WL_FULL_MASK, WL_HERE);
  for (wl_u32 e = 0; e < 4; e++) {
    for (wl_u32 k = 0; k < 16; k++) d[e] += rows[e / 2][k] * columns[e % 2][k];
  }
}

// ---- A block ---------------------------------------------------------------------------------
WL_FN void wl_syncthreads(WL_AT) { wl_emu_barrier(WL_EMU_BAR, 0, WL_HERE); }
WL_FN bool wl_syncthreads_or(bool p, WL_AT) { return wl_emu_barrier(WL_EMU_BAR_OR, p, WL_HERE) != 0; }
WL_FN bool wl_syncthreads_and(bool p, WL_AT) { return wl_emu_barrier(WL_EMU_BAR_AND, p, WL_HERE) != 0; }
WL_FN wl_u32 wl_syncthreads_count(bool p, WL_AT) { return wl_emu_barrier(WL_EMU_BAR_COUNT, p, WL_HERE); }

// An index with the place where it was written: `s[i]` cannot have a default argument.
struct WlIndex {
  wl_i64 i;
  const char* file;
  wl_u32 line;
  template <class I, class = std::enable_if_t<std::is_integral_v<I>>>
  WlIndex(I at, WL_AT) : i((wl_i64)at), file(wl_file), line(wl_line) {}
};
template <class T>
struct WlRef {
  wl_u32 offset;
  const char* file;
  wl_u32 line;
  operator T() const {
    wl_emu_shared(offset, sizeof(T), alignof(T), 0, file, line);
    T v;
    memcpy(&v, wl_emu_self->shared + offset, sizeof(T));
    return v;
  }
  const WlRef& operator=(T v) const {
    wl_emu_shared(offset, sizeof(T), alignof(T), 1, file, line);
    memcpy(wl_emu_self->shared + offset, &v, sizeof(T));
    return *this;
  }
  const WlRef& operator=(const WlRef& other) const { return *this = (T)other; }
};
// An array in shared memory: `count` elements from byte `begin` of the block's on, looked at from
// element `first`.
template <class T>
struct wl_shared {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % 2 == 0, "shared elements: trivial, of an even size");
  wl_u32 begin;
  wl_u64 count;
  wl_i64 first;
  wl_u32 place(wl_i64 i, wl_u64 n, const char* file, wl_u32 line) const {
    wl_i64 at = first + i;
    if (at < 0 || (wl_u64)at + n > count) wl_emu_shared_outside(at, count, file, line);
    return begin + (wl_u32)at * (wl_u32)sizeof(T);
  }
  WlRef<T> operator[](WlIndex at) const { return {place(at.i, 1, at.file, at.line), at.file, at.line}; }
  wl_shared operator+(wl_i64 n) const { return {begin, count, first + n}; }
};
#define WL_SMEM(T, name, n)   \
  static char name##_site_;   \
  const wl_shared<T> name = { \
      wl_emu_shared_site(&name##_site_, (wl_u64)(n) * sizeof(T), __FILE__, __LINE__), (wl_u64)(n), 0}
#define WL_DYNAMIC_SMEM(T, name, offset, n)                                                             \
  const wl_shared<T> name = {                                                                           \
      wl_emu_shared_dynamic((offset), (wl_u64)(n) * sizeof(T), alignof(T), __FILE__, __LINE__), (wl_u64)(n), 0}
template <class T>
WL_FN wl_u32x4 wl_lds128(wl_shared<T> s, wl_i64 i, WL_AT) {
  return WlRef<wl_u32x4>{s.place(i, 16 / sizeof(T), WL_HERE), WL_HERE};
}
template <class T>
WL_FN void wl_sts128(wl_shared<T> s, wl_i64 i, wl_u32x4 v, WL_AT) {
  WlRef<wl_u32x4>{s.place(i, 16 / sizeof(T), WL_HERE), WL_HERE} = v;
}

// ---- A cluster -------------------------------------------------------------------------------
WL_FN wl_u32 wl_cluster_rank() { return wl_emu_self->rank; }
WL_FN wl_u32 wl_cluster_size() { return wl_emu_self->ranks; }
WL_FN void wl_cluster_arrive(WL_AT) { wl_emu_cluster_arrive(WL_HERE); }
WL_FN void wl_cluster_wait(WL_AT) { wl_emu_cluster_wait(WL_HERE); }
WL_FN void wl_cluster_sync(WL_AT) {
  wl_emu_cluster_arrive(WL_HERE);
  wl_emu_cluster_wait(WL_HERE);
}
template <class T>
WL_FN wl_u32 wl_peer(wl_shared<T> s, wl_i64 i, wl_u32 rank, WL_AT) {
  return wl_emu_peer(s.place(i, 1, WL_HERE), rank, WL_HERE);
}
template <class T>
WL_FN T wl_peer_ld(wl_u32 address, WL_AT) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16, "wl_peer_ld: 4, 8 or 16 bytes");
  T v;
  memcpy(&v, wl_emu_peer_access(address, sizeof(T), 0, WL_HERE), sizeof(T));
  return v;
}
template <class T>
WL_FN void wl_peer_st(wl_u32 address, T v, WL_AT) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "wl_peer_st: 4 or 8 bytes");
  memcpy(wl_emu_peer_access(address, sizeof(T), 1, WL_HERE), &v, sizeof(T));
}

// ---- Global memory ---------------------------------------------------------------------------
// Written bytes have a 1 in the shadow. Threads of several clusters touch neighbouring bytes at
// once, which is fine: a byte is a memory location of its own.
template <wl_u32 size>
WL_FN bool wl_emu_written(const wl_u8* shadow) {
  if constexpr (size % 8 == 0) {
    wl_u64 all = 0x0101010101010101ull, v;
    for (wl_u32 i = 0; i < size; i += 8) memcpy(&v, shadow + i, 8), all &= v;
    return all == 0x0101010101010101ull;
  } else {
    wl_u8 all = 1;
    for (wl_u32 i = 0; i < size; ++i) all &= shadow[i];
    return all;
  }
}
template <wl_u32 size>
WL_FN void wl_emu_read(const void* p, wl_u32 align, const char* file, wl_u32 line) {
  WlEmuCluster* c = wl_emu_self->cluster;
  wl_u64 at = (wl_u64)p;
  if ((at & (align - 1)) || at < c->read_lo || at + size > c->read_hi) wl_emu_global(at, size, align, 0, file, line);
  if (!wl_emu_written<size>((const wl_u8*)(at + c->shadow))) wl_emu_global_uninitialised(at, size, file, line);
  if (c->read_hi - c->read_lo >= c->counted) c->bytes_read += size;
}
template <wl_u32 size>
WL_FN void wl_emu_write(void* p, wl_u32 align, const char* file, wl_u32 line) {
  WlEmuCluster* c = wl_emu_self->cluster;
  wl_u64 at = (wl_u64)p;
  if ((at & (align - 1)) || at < c->write_lo || at + size > c->write_hi) wl_emu_global(at, size, align, 1, file, line);
  memset((void*)(at + c->shadow), 1, size);
  if (c->write_hi - c->write_lo >= c->counted) c->bytes_written += size;
}
template <class T>
WL_FN T wl_ld(const T* p, WL_AT) {
  wl_emu_read<sizeof(T)>(p, alignof(T), WL_HERE);
  T v;
  memcpy(&v, p, sizeof(T));
  return v;
}
template <class T>
WL_FN void wl_st(T* p, T v, WL_AT) {
  wl_emu_write<sizeof(T)>(p, alignof(T), WL_HERE);
  memcpy(p, &v, sizeof(T));
}
template <class T>
WL_FN T wl_ld_cg(const T* p, WL_AT) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "wl_ld_cg: 4 or 8 bytes");
  wl_emu_read<sizeof(T)>(p, sizeof(T), WL_HERE);
  T v;
  if constexpr (sizeof(T) == 4)
    v = wl_bit_cast<T>(__atomic_load_n((const wl_u32*)p, __ATOMIC_ACQUIRE));
  else
    v = wl_bit_cast<T>(__atomic_load_n((const wl_u64*)p, __ATOMIC_ACQUIRE));
  return v;
}
WL_FN wl_u32x4 wl_ld128(const void* p, WL_AT) {
  wl_emu_read<16>(p, 16, WL_HERE);
  wl_u32x4 v;
  memcpy(&v, p, 16);
  return v;
}
WL_FN wl_u32x4 wl_ld128_stream(const void* p, WL_AT) { return wl_ld128(p, WL_HERE); }
WL_FN wl_u32x4 wl_ld128_nc(const void* p, WL_AT) { return wl_ld128(p, WL_HERE); }
WL_FN void wl_st128(void* p, wl_u32x4 v, WL_AT) {
  wl_emu_write<16>(p, 16, WL_HERE);
  memcpy(p, &v, 16);
}
WL_FN void wl_st128_stream(void* p, wl_u32x4 v, WL_AT) { wl_st128(p, v, WL_HERE); }

// The copy happens as late as a wait allows, so that a read before it is caught.
template <class T>
WL_FN void wl_cp_async16(wl_shared<T> s, wl_i64 i, const void* p, WL_AT) {
  wl_emu_read<16>(p, 16, WL_HERE);
  wl_emu_cp_async(s.place(i, 16 / sizeof(T), WL_HERE), (wl_u64)p, WL_HERE);
}
WL_FN void wl_cp_async_commit() { wl_emu_cp_async_commit(); }
template <int open = 0>
WL_FN void wl_cp_async_wait(WL_AT) {
  wl_emu_cp_async_wait(open, WL_HERE);
}

template <class T>
WL_FN void wl_emu_atomic(T* p, const char* file, wl_u32 line) {
  wl_emu_read<sizeof(T)>(p, sizeof(T), file, line);
  wl_emu_write<sizeof(T)>(p, sizeof(T), file, line);
}
template <class T>
WL_FN T wl_emu_atomic_if(T* p, T v, bool (*better)(T, T)) {
  T old = __atomic_load_n(p, __ATOMIC_SEQ_CST);
  while (better(v, old) && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
  }
  return old;
}
WL_FN wl_u32 wl_atomic_add(wl_u32* p, wl_u32 v, WL_AT) {
  wl_emu_atomic(p, WL_HERE);
  return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
}
WL_FN wl_u64 wl_atomic_add(wl_u64* p, wl_u64 v, WL_AT) {
  wl_emu_atomic(p, WL_HERE);
  return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
}
WL_FN wl_u32 wl_atomic_or(wl_u32* p, wl_u32 v, WL_AT) {
  wl_emu_atomic(p, WL_HERE);
  return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST);
}
WL_FN wl_u32 wl_atomic_min(wl_u32* p, wl_u32 v, WL_AT) {
  wl_emu_atomic(p, WL_HERE);
  return wl_emu_atomic_if<wl_u32>(p, v, [](wl_u32 a, wl_u32 b) { return a < b; });
}
WL_FN wl_u64 wl_atomic_min(wl_u64* p, wl_u64 v, WL_AT) {
  wl_emu_atomic(p, WL_HERE);
  return wl_emu_atomic_if<wl_u64>(p, v, [](wl_u64 a, wl_u64 b) { return a < b; });
}
WL_FN wl_u32 wl_atomic_max(wl_u32* p, wl_u32 v, WL_AT) {
  wl_emu_atomic(p, WL_HERE);
  return wl_emu_atomic_if<wl_u32>(p, v, [](wl_u32 a, wl_u32 b) { return a > b; });
}
template <class T>
WL_FN T wl_emu_cas(T* p, T expected, T v, const char* file, wl_u32 line) {
  wl_emu_atomic(p, file, line);
  __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return expected;
}
WL_FN wl_u32 wl_atomic_cas(wl_u32* p, wl_u32 expected, wl_u32 v, WL_AT) { return wl_emu_cas(p, expected, v, WL_HERE); }
WL_FN wl_u64 wl_atomic_cas(wl_u64* p, wl_u64 expected, wl_u64 v, WL_AT) { return wl_emu_cas(p, expected, v, WL_HERE); }
WL_FN wl_u32 wl_atomic_exch(wl_u32* p, wl_u32 v, WL_AT) {
  wl_emu_atomic(p, WL_HERE);
  return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);
}
WL_FN void wl_threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
