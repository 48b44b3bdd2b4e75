// Global memory: every access is checked.
#pragma once
#include "host/threads.hpp"

#include <cstring>

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
  if (wl_emu_self->early) wl_emu_early(at, size, 0, file, line);
  if ((at & (align - 1)) || at < c->read_lo || at + size > c->read_hi) wl_emu_global(at, size, align, 0, file, line);
  if (!wl_emu_written<size>((const wl_u8*)(at + c->shadow))) wl_emu_global_uninitialised(at, size, file, line);
  if (c->read_hi - c->read_lo >= c->counted) c->bytes_read += size;
}
template <wl_u32 size>
WL_FN void wl_emu_write(void* p, wl_u32 align, const char* file, wl_u32 line) {
  WlEmuCluster* c = wl_emu_self->cluster;
  wl_u64 at = (wl_u64)p;
  if (wl_emu_self->early) wl_emu_early(at, size, 1, file, line);
  if (c->remembered) wl_emu_remember(at, size);
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
  wl_emu_cp_async(s.place(i, 16 / sizeof(T), WL_HERE), (wl_u64)p, 16, WL_HERE);
}
template <class T>
WL_FN void wl_cp_async16_of(wl_shared<T> s, wl_i64 i, const void* p, wl_u32 bytes, WL_AT) {
  static_assert(16 % sizeof(T) == 0, "wl_cp_async16_of: elements fill 16 bytes");
  if (bytes > 0 && (wl_u64)p % 16 != 0) wl_emu_global((wl_u64)p, 16, 16, 0, WL_HERE);
  for (wl_u32 at = 0; at < bytes; at += 2) wl_emu_read<2>((const char*)p + at, 2, WL_HERE);
  wl_emu_cp_async(s.place(i, 16 / sizeof(T), WL_HERE), (wl_u64)p, bytes, WL_HERE);
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
WL_FN wl_u32 wl_anew(wl_u32 v) { return v; }
// Counts as no traffic: who reads it counts.
WL_FN void wl_prefetch(const void* p, WL_AT) {
  const WlEmuCluster* c = wl_emu_self->cluster;
  if ((wl_u64)p < c->read_lo || (wl_u64)p + 16 > c->read_hi) wl_emu_global((wl_u64)p, 16, 16, 0, WL_HERE);
}
WL_FN void wl_threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
WL_FN wl_u32 wl_ticket(wl_u32* p, wl_u32 n, WL_AT) {
  wl_emu_atomic(p, WL_HERE);
  return __atomic_fetch_add(p, n, __ATOMIC_SEQ_CST);
}
WL_FN wl_u32 wl_ld_acquire(const wl_u32* p, WL_AT) { return wl_ld_cg(p, WL_HERE); }
WL_FN void wl_pause(WL_AT) { wl_emu_pause(WL_HERE); }

// ---- Launch after launch ---------------------------------------------------------------------
WL_FN void wl_grid_launch_dependents() {}
WL_FN void wl_grid_wait() { wl_emu_self->early = 0; }
