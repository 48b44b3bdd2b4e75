// Products of a warp on the tensor cores, and how fragments come to it from shared memory. `host/tensor_cores.hpp` is
// the host's side.
#pragma once
#include "core/intrinsics.cuh"

#if WL_EMULATED
#include "host/tensor_cores.hpp"
#else
// d += a·b on the tensor cores: fragments of 16 by 16 (rows) and 16 by 8 (columns) elements of T, f32 sums.
// PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type": lane 4 * g + t has of a the pairs
// (row g, columns 2t, 2t + 1), (g + 8, the same), and both 8 columns on; of b (rows 2t, 2t + 1, column g)
// and 8 rows on; of d (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
#define WL_MMA(T, name)                                                                           \
  template <>                                                                                     \
  WL_FN void wl_mma<T>(float (&d)[4], const wl_u32 (&a)[4], wl_u32 b0, wl_u32 b1) {               \
    /* Volatile: all lanes take part, so it must not move to where some do. */                      \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name ".f32 {%0, %1, %2, %3}, " \
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                                  \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                 \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                 \
  }
template <class T>
WL_FN void wl_mma(float (&d)[4], const wl_u32 (&a)[4], wl_u32 b0, wl_u32 b1);
WL_MMA(wl_f16, "f16")
WL_MMA(wl_bf16, "bf16")
#undef WL_MMA

// Four matrices of 8 by 8 16-bit elements from shared memory: lane 8 * m + r says where row r of matrix m begins, at a
// multiple of 16 bytes. Lane 4 * g + t has of each the pair (row g, columns 2t, 2t + 1); turned, (rows 2t, 2t + 1,
// column g).
#define WL_LDMATRIX(name, ptx)                                                            \
  WL_FN void name(wl_u32 (&to)[4], const wl_u32* s, wl_u32 i) {                           \
    asm volatile(ptx " {%0, %1, %2, %3}, [%4];"                                           \
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])                     \
                 : "r"((wl_u32)__cvta_generic_to_shared(s) + 4 * i)                       \
                 : "memory");                                                             \
  }
WL_LDMATRIX(wl_ldmatrix, "ldmatrix.sync.aligned.m8n8.x4.shared.b16")
WL_LDMATRIX(wl_ldmatrix_turned, "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16")
#undef WL_LDMATRIX
#endif
