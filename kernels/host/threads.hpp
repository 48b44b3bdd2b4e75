// Threads that meet, and the memory that they share: warps, blocks, clusters. Who waits is suspended.
#pragma once
#include "host/numbers.hpp"

#include <cstring>
#include <type_traits>

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
template <class T>
WL_FN wl_u32 wl_peer(wl_shared<T> s, wl_i64 i, wl_u32 rank, WL_AT) {
  return wl_emu_peer(s.place(i, 1, WL_HERE), rank, WL_HERE);
}
WL_FN void wl_mbarrier_init(wl_shared<wl_u64> s, wl_i64 i, wl_u32 bytes, WL_AT) {
  wl_emu_mbarrier_init(s.place(i, 1, WL_HERE), bytes, WL_HERE);
}
WL_FN void wl_mbarrier_show() { wl_emu_mbarrier_show(); }
WL_FN void wl_st_async(wl_u32 to, wl_u32 bar, wl_u64 v, WL_AT) { wl_emu_st_async(to, bar, v, WL_HERE); }
WL_FN void wl_mbarrier_wait(wl_shared<wl_u64> s, wl_i64 i, WL_AT) { wl_emu_mbarrier_wait(s.place(i, 1, WL_HERE), WL_HERE); }
