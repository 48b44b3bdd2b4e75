// Everything that is PTX, or that differs between a GPU and the host: the one vocabulary kernels are
// written in. This file is the GPU's side; `host/intrinsics.hpp` is the host's, with the same names. Those of the
// tensor cores: tensor_cores.cuh.
//
// Rules that make a kernel run, and be checked, on both:
//   - Global memory only through wl_ld*/wl_st*/wl_atomic*/wl_cp_async16: a plain `*p` escapes the checks.
//   - Shared memory only through WL_SMEM / WL_DYNAMIC_SMEM: `s[i]` for one element, wl_lds128/wl_sts128
//     for 16 bytes. Pass it on as `wl_shared<T>`; never take `&s[i]` or make a `T*` of it.
//     Elements are trivial types of an even size.
//   - All lanes of a mask call a collective at the same line with the same mask; warp-synchronous
//     traffic through shared memory needs wl_syncwarp (a shuffle orders no memory).
//   - Blocks are one-dimensional; no thread returns while others of its block still meet at a barrier.
//   - No header, no __half, no cooperative groups: NVRTC compiles this with no include path at all.
//
// PTX ISA 8.0+, sm_80+. Cluster operations are real from sm_90; before, a cluster is one block.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)

typedef unsigned char wl_u8;
typedef unsigned short wl_u16;
typedef unsigned int wl_u32;
typedef unsigned long long wl_u64;
typedef int wl_i32;
typedef long long wl_i64;

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "warploss kernels need compute capability 8.0 or later"
#endif

// 1 where a cluster of several blocks can share its memory. On the host always 1.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define WL_HAS_CLUSTER 1
#else
#define WL_HAS_CLUSTER 0
#endif
#define WL_EMULATED 0

#define WL_FN __device__ __forceinline__
#define WL_RESTRICT __restrict__
#define WL_PRAGMA(x) _Pragma(#x)
#define WL_UNROLL WL_PRAGMA(unroll)
#define WL_UNROLL_N(n) WL_PRAGMA(unroll n)

// ---- Kernels ---------------------------------------------------------------------------------
// WL_KERNEL(name, Args, threads, blocks) { ... args.x ... }
//   `Args` is one plain struct, taken by value; `threads` the most threads of a block; `blocks` the
//   blocks that an SM shall hold (bounds the registers). WL_KERNEL_CLUSTER fixes the cluster size at
//   compile time; leave it to the launch otherwise.
#define WL_KERNEL(name, Args, threads, blocks) \
  extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Args args)
#if WL_HAS_CLUSTER
#define WL_CLUSTER_DIMS(n) __cluster_dims__(n, 1, 1)
#else
#define WL_CLUSTER_DIMS(n)
#endif
#define WL_KERNEL_CLUSTER(name, Args, threads, blocks, cluster)                               \
  extern "C" __global__ void WL_CLUSTER_DIMS(cluster) __launch_bounds__(threads, blocks) name( \
      const __grid_constant__ Args args)

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
WL_FN float wl_f32(wl_u32 bits) { return __uint_as_float(bits); }
WL_FN wl_u32 wl_bits(float v) { return __float_as_uint(v); }
WL_FN float wl_inf() { return __uint_as_float(0x7f800000u); }
WL_FN float wl_nan() { return __uint_as_float(0x7fffffffu); }
WL_FN bool wl_isnan(float v) { return v != v; }

// ---- Where a thread stands -------------------------------------------------------------------
WL_FN wl_u32 wl_thread() { return threadIdx.x; }
WL_FN wl_u32 wl_threads() { return blockDim.x; }
WL_FN wl_u32 wl_lane() { return threadIdx.x & 31u; }
WL_FN wl_u32 wl_warp() { return threadIdx.x >> 5; }
WL_FN wl_u32 wl_warps() { return (blockDim.x + 31u) >> 5; }
WL_FN wl_u32 wl_block() { return blockIdx.x; }
WL_FN wl_u32 wl_blocks() { return gridDim.x; }
WL_FN wl_u32 wl_block_y() { return blockIdx.y; }
WL_FN wl_u32 wl_blocks_y() { return gridDim.y; }

// ---- Arithmetic ------------------------------------------------------------------------------
// The special-function unit's.
#define WL_SPECIAL(name, instruction)                         \
  WL_FN float name(float x) {                                 \
    float r;                                                  \
    asm(instruction " %0, %1;" : "=f"(r) : "f"(x));           \
    return r;                                                 \
  }
// 2^x and log2 x: subnormals flush to zero. ex2 is within 2 ulp.
WL_SPECIAL(wl_ex2, "ex2.approx.ftz.f32")
WL_SPECIAL(wl_lg2, "lg2.approx.ftz.f32")
// 1/x to 1 ulp.
WL_SPECIAL(wl_rcp, "rcp.approx.ftz.f32")
// To 2^-11 of it.
WL_SPECIAL(wl_tanh_approx, "tanh.approx.f32")
// The accurate functions: for what is done once a row.
WL_FN float wl_exp(float x) { return expf(x); }
WL_FN float wl_log(float x) { return logf(x); }
WL_FN float wl_log1p(float x) { return log1pf(x); }
WL_FN double wl_log(double x) { return log(x); }
WL_FN double wl_log1p(double x) { return log1p(x); }
WL_FN double wl_expm1(double x) { return expm1(x); }
WL_FN float wl_sqrt(float x) { return sqrtf(x); }
WL_FN float wl_fma(float a, float b, float c) { return fmaf(a, b, c); }
// The larger; a NaN loses against a number.
WL_FN float wl_max(float a, float b) { return fmaxf(a, b); }
WL_FN float wl_min(float a, float b) { return fminf(a, b); }
WL_FN float wl_abs(float a) { return fabsf(a); }
// Rounded products and sums that the compiler may not contract.
WL_FN float wl_mul_rn(float a, float b) { return __fmul_rn(a, b); }
WL_FN float wl_add_rn(float a, float b) { return __fadd_rn(a, b); }
WL_FN wl_u32 wl_popc(wl_u32 v) { return __popc(v); }
WL_FN wl_u32 wl_clz(wl_u32 v) { return __clz(v); }
WL_FN wl_u32 wl_ffs(wl_u32 v) { return __ffs(v); }

// ---- f16 and bf16: round to nearest even, packs have the lower column in the lower half --------
WL_FN float wl_f16_to_f32(wl_f16 v) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(v.bits));
  return r;
}
WL_FN wl_f16 wl_f32_to_f16(float v) {
  wl_f16 r;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r.bits) : "f"(v));
  return r;
}
WL_FN float wl_bf16_to_f32(wl_bf16 v) { return __uint_as_float((wl_u32)v.bits << 16); }
WL_FN wl_bf16 wl_f32_to_bf16(float v) {
  wl_bf16 r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r.bits) : "f"(v));
  return r;
}
WL_FN wl_u32 wl_pack_f16x2(float lo, float hi) {
  wl_u32 r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
WL_FN wl_f32x2 wl_unpack_f16x2(wl_u32 v) {
  wl_f32x2 r;
  asm("{ .reg .b16 lo, hi; mov.b32 {lo, hi}, %2; cvt.f32.f16 %0, lo; cvt.f32.f16 %1, hi; }"
      : "=f"(r.x), "=f"(r.y)
      : "r"(v));
  return r;
}
WL_FN wl_u32 wl_pack_bf16x2(float lo, float hi) {
  wl_u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
WL_FN wl_f32x2 wl_unpack_bf16x2(wl_u32 v) {
  wl_f32x2 r;
  r.x = __uint_as_float(v << 16);
  r.y = __uint_as_float(v & 0xffff0000u);
  return r;
}

// ---- A warp ----------------------------------------------------------------------------------
// `width` (a power of two) cuts the warp into segments that shuffle on their own.
#define WL_FULL_MASK 0xffffffffu
template <class T>
WL_FN T wl_shfl_xor(wl_u32 mask, T v, wl_u32 lane_mask, wl_u32 width = 32) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "wl_shfl: 4 or 8 bytes");
  if constexpr (sizeof(T) == 4)
    return wl_bit_cast<T>(__shfl_xor_sync(mask, wl_bit_cast<wl_u32>(v), (int)lane_mask, (int)width));
  else
    return wl_bit_cast<T>(__shfl_xor_sync(mask, wl_bit_cast<wl_u64>(v), (int)lane_mask, (int)width));
}
template <class T>
WL_FN T wl_shfl_down(wl_u32 mask, T v, wl_u32 delta, wl_u32 width = 32) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "wl_shfl: 4 or 8 bytes");
  if constexpr (sizeof(T) == 4)
    return wl_bit_cast<T>(__shfl_down_sync(mask, wl_bit_cast<wl_u32>(v), delta, (int)width));
  else
    return wl_bit_cast<T>(__shfl_down_sync(mask, wl_bit_cast<wl_u64>(v), delta, (int)width));
}
template <class T>
WL_FN T wl_shfl_up(wl_u32 mask, T v, wl_u32 delta, wl_u32 width = 32) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "wl_shfl: 4 or 8 bytes");
  if constexpr (sizeof(T) == 4)
    return wl_bit_cast<T>(__shfl_up_sync(mask, wl_bit_cast<wl_u32>(v), delta, (int)width));
  else
    return wl_bit_cast<T>(__shfl_up_sync(mask, wl_bit_cast<wl_u64>(v), delta, (int)width));
}
template <class T>
WL_FN T wl_shfl(wl_u32 mask, T v, wl_u32 src_lane, wl_u32 width = 32) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "wl_shfl: 4 or 8 bytes");
  if constexpr (sizeof(T) == 4)
    return wl_bit_cast<T>(__shfl_sync(mask, wl_bit_cast<wl_u32>(v), (int)src_lane, (int)width));
  else
    return wl_bit_cast<T>(__shfl_sync(mask, wl_bit_cast<wl_u64>(v), (int)src_lane, (int)width));
}

WL_FN wl_u32 wl_ballot(wl_u32 mask, bool p) { return __ballot_sync(mask, p); }
WL_FN bool wl_any(wl_u32 mask, bool p) { return __any_sync(mask, p) != 0; }
WL_FN bool wl_all(wl_u32 mask, bool p) { return __all_sync(mask, p) != 0; }
// Reductions over the mask in one instruction.
WL_FN wl_u32 wl_redux_add(wl_u32 mask, wl_u32 v) { return __reduce_add_sync(mask, v); }
WL_FN wl_u32 wl_redux_min(wl_u32 mask, wl_u32 v) { return __reduce_min_sync(mask, v); }
WL_FN wl_u32 wl_redux_max(wl_u32 mask, wl_u32 v) { return __reduce_max_sync(mask, v); }
WL_FN wl_u32 wl_redux_or(wl_u32 mask, wl_u32 v) { return __reduce_or_sync(mask, v); }
WL_FN void wl_syncwarp(wl_u32 mask = WL_FULL_MASK) { __syncwarp(mask); }

// ---- A block ---------------------------------------------------------------------------------
WL_FN void wl_syncthreads() { __syncthreads(); }
WL_FN bool wl_syncthreads_or(bool p) { return __syncthreads_or(p) != 0; }
WL_FN bool wl_syncthreads_and(bool p) { return __syncthreads_and(p) != 0; }
WL_FN wl_u32 wl_syncthreads_count(bool p) { return (wl_u32)__syncthreads_count(p); }

// Shared memory: an array of the block, 16-byte aligned.
//   WL_SMEM(T, name, n): n elements, fixed at compile time.
//   WL_DYNAMIC_SMEM(T, name, offset, n): n elements, `offset` bytes into what the launch asked for.
template <class T>
using wl_shared = T*;
#define WL_SMEM(T, name, n) __shared__ alignas(16) T name[n]
#define WL_DYNAMIC_SMEM(T, name, offset, n)                     \
  extern __shared__ __align__(16) unsigned char wl_dynamic_smem_[]; \
  wl_shared<T> name = reinterpret_cast<T*>(wl_dynamic_smem_ + (offset))
// 16 bytes from element i on (s + i must be 16-byte aligned).
template <class T>
WL_FN wl_u32x4 wl_lds128(const T* s, wl_u32 i) {
  return *reinterpret_cast<const wl_u32x4*>(s + i);
}
template <class T>
WL_FN void wl_sts128(T* s, wl_u32 i, wl_u32x4 v) {
  *reinterpret_cast<wl_u32x4*>(s + i) = v;
}

// ---- A cluster -------------------------------------------------------------------------------
// Blocks of a cluster have consecutive wl_block(); rank = position in the cluster. wl_peer gives the
// address of element i of the same array in block `rank`, for what is sent there.
//
// An mbarrier is an element of a shared array of wl_u64. It counts bytes that are sent to its block: one
// thread makes it for so many, then shows it (wl_mbarrier_show, then an arrival at the cluster's barrier),
// and whoever has returned from wl_cluster_wait may send. Who has returned from wl_mbarrier_wait may read
// all that was sent. An mbarrier serves once. No block may end before all that is sent to it has come.
#if WL_HAS_CLUSTER && defined(__CUDA_ARCH__)
WL_FN wl_u32 wl_cluster_rank() {
  wl_u32 r;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}
WL_FN wl_u32 wl_cluster_size() {
  wl_u32 r;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(r));
  return r;
}
// Orders nothing but mbarriers that were shown: a release would be a fence of all memory.
WL_FN void wl_cluster_arrive() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
WL_FN void wl_cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
template <class T>
WL_FN wl_u32 wl_peer(const T* s, wl_u32 i, wl_u32 rank) {
  wl_u32 own = (wl_u32)__cvta_generic_to_shared(s + i), r;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(own), "r"(rank));
  return r;
}
WL_FN void wl_mbarrier_init(const wl_u64* s, wl_u32 i, wl_u32 bytes) {
  const wl_u32 at = (wl_u32)__cvta_generic_to_shared(s + i);
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(at) : "memory");
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
}
WL_FN void wl_mbarrier_show() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
// 8 bytes to address `to`, which mbarrier `bar` of the same block counts.
WL_FN void wl_st_async(wl_u32 to, wl_u32 bar, wl_u64 v) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b64 [%0], %1, [%2];" ::"r"(to), "l"(v), "r"(bar)
               : "memory");
}
WL_FN void wl_mbarrier_wait(const wl_u64* s, wl_u32 i) {
  const wl_u32 at = (wl_u32)__cvta_generic_to_shared(s + i);
  wl_u32 come;
  do {
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], 0; "
                 "selp.u32 %0, 1, 0, p; }"
                 : "=r"(come)
                 : "r"(at)
                 : "memory");
  } while (!come);
}
// A launch that says so early lets the one that follows it begin, which waits before it reads what the first one
// writes, and before it writes anything: all of its threads do, whether or not it began early.
WL_FN void wl_grid_launch_dependents() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
WL_FN void wl_grid_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
#else
// One block is its own cluster, and no launch begins early.
WL_FN wl_u32 wl_cluster_rank() { return 0; }
WL_FN wl_u32 wl_cluster_size() { return 1; }
WL_FN void wl_cluster_arrive() {}
WL_FN void wl_cluster_wait() {}
template <class T>
WL_FN wl_u32 wl_peer(const T* s, wl_u32 i, wl_u32) {
  return (wl_u32)__cvta_generic_to_shared(s + i);
}
WL_FN void wl_mbarrier_init(const wl_u64*, wl_u32, wl_u32) {}
WL_FN void wl_mbarrier_show() {}
WL_FN void wl_st_async(wl_u32 to, wl_u32, wl_u64 v) {
  *reinterpret_cast<wl_u64*>(__cvta_shared_to_generic(to)) = v;
}
WL_FN void wl_mbarrier_wait(const wl_u64*, wl_u32) { __syncthreads(); }
WL_FN void wl_grid_launch_dependents() {}
WL_FN void wl_grid_wait() {}
#endif

// ---- Global memory ---------------------------------------------------------------------------
// One element, naturally aligned.
template <class T>
WL_FN T wl_ld(const T* p) {
  return *p;
}
template <class T>
WL_FN void wl_st(T* p, T v) {
  *p = v;
}
// Past L1, for what other blocks wrote during this launch (after their wl_threadfence).
template <class T>
WL_FN T wl_ld_cg(const T* p) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "wl_ld_cg: 4 or 8 bytes");
  if constexpr (sizeof(T) == 4) {
    wl_u32 r;
    asm volatile("ld.global.cg.u32 %0, [%1];" : "=r"(r) : "l"(p) : "memory");
    return wl_bit_cast<T>(r);
  } else {
    wl_u64 r;
    asm volatile("ld.global.cg.u64 %0, [%1];" : "=l"(r) : "l"(p) : "memory");
    return wl_bit_cast<T>(r);
  }
}
// 16 bytes at a 16-byte boundary. These stay in program order among themselves and beside other asm of this
// file; a plain wl_ld or wl_st may move across a load.
//   plain; _stream: read or written once: loads stay out of L1, stores are the first to leave L2;
//   _nc: also through the read-only path: only for memory that nothing writes during the launch.
#define WL_LD128(suffix, ptx)                              \
  WL_FN wl_u32x4 wl_ld128##suffix(const void* p) {         \
    wl_u32x4 r;                                            \
    asm volatile(ptx " {%0, %1, %2, %3}, [%4];"            \
                 : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w) \
                 : "l"(p));                                \
    return r;                                              \
  }
WL_LD128(, "ld.global.v4.u32")
WL_LD128(_stream, "ld.global.L1::no_allocate.v4.u32")
WL_LD128(_nc, "ld.global.nc.L1::no_allocate.L2::256B.v4.u32")
#undef WL_LD128
// The same number, of which the compiler knows nothing: what is made of it is not kept for later.
WL_FN wl_u32 wl_anew(wl_u32 v) {
  asm volatile("" : "+r"(v));
  return v;
}
// What lies there is on its way to L2; nobody waits for it.
WL_FN void wl_prefetch(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
#define WL_ST128(suffix, ptx)                                                             \
  WL_FN void wl_st128##suffix(void* p, wl_u32x4 v) {                                      \
    asm volatile(ptx " [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) \
                 : "memory");                                                             \
  }
WL_ST128(, "st.global.v4.u32")
WL_ST128(_stream, "st.global.cs.v4.u32")
#undef WL_ST128

// 16 bytes from global memory to element i of a shared array, without registers. They are there,
// for the thread that asked, after a wl_cp_async_wait<n> that leaves at most its n latest commits
// open; for the block after a barrier on top.
template <class T>
WL_FN void wl_cp_async16(T* s, wl_u32 i, const void* p) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((wl_u32)__cvta_generic_to_shared(s + i)), "l"(p)
               : "memory");
}
// The same of `bytes` bytes; zeros after them. Of none, `p` is not looked at.
template <class T>
WL_FN void wl_cp_async16_of(T* s, wl_u32 i, const void* p, wl_u32 bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((wl_u32)__cvta_generic_to_shared(s + i)), "l"(p),
               "r"(bytes)
               : "memory");
}
WL_FN void wl_cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int open = 0>
WL_FN void wl_cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(open) : "memory");
}

// Integer atomics on global memory, each returns the value before. No float atomics: results would
// depend on the order.
WL_FN wl_u32 wl_atomic_add(wl_u32* p, wl_u32 v) { return atomicAdd(p, v); }
WL_FN wl_u64 wl_atomic_add(wl_u64* p, wl_u64 v) { return atomicAdd(p, v); }
WL_FN wl_u32 wl_atomic_or(wl_u32* p, wl_u32 v) { return atomicOr(p, v); }
WL_FN wl_u32 wl_atomic_min(wl_u32* p, wl_u32 v) { return atomicMin(p, v); }
WL_FN wl_u64 wl_atomic_min(wl_u64* p, wl_u64 v) { return atomicMin(p, v); }
WL_FN wl_u32 wl_atomic_max(wl_u32* p, wl_u32 v) { return atomicMax(p, v); }
WL_FN wl_u32 wl_atomic_cas(wl_u32* p, wl_u32 expected, wl_u32 v) { return atomicCAS(p, expected, v); }
WL_FN wl_u64 wl_atomic_cas(wl_u64* p, wl_u64 expected, wl_u64 v) { return atomicCAS(p, expected, v); }
WL_FN wl_u32 wl_atomic_exch(wl_u32* p, wl_u32 v) { return atomicExch(p, v); }
// Orders this thread's global writes before what it writes next, for every block.
WL_FN void wl_threadfence() { __threadfence(); }
// After what others wrote before a wl_ticket whose number this is or passes, for whoever meets this thread at a
// barrier afterwards; they read it by wl_ld_cg.
WL_FN wl_u32 wl_ld_acquire(const wl_u32* p) {
  wl_u32 r;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(r) : "l"(p) : "memory");
  return r;
}
// A while, between looks at what other blocks have still to write.
WL_FN void wl_pause() { __nanosleep(64); }
// Adds after all that this thread wrote, or saw written at a barrier, has been written for every block; the
// value before. Who learns by it that all are done reads what they wrote after a wl_threadfence, by wl_ld_cg.
WL_FN wl_u32 wl_ticket(wl_u32* p, wl_u32 n) {
  wl_u32 before;
  asm volatile("atom.release.gpu.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(p), "r"(n) : "memory");
  return before;
}

#else
#include "host/intrinsics.hpp"  // the same names on the host
#endif
