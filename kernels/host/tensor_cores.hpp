// The host side of kernels/core/tensor_cores.cuh: lanes lay down what they have, and each takes what it needs. The
// threads of a cluster take turns on one of the host's.
#pragma once
#include "host/intrinsics.hpp"

// Lanes lay their fragments down, and each takes those rows and columns that its four sums are of.
inline thread_local wl_u32 wl_emu_fragments[16][32][32][6];
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

// The words of each lane's row.
inline thread_local wl_u32 wl_emu_matrices[16][32][32][4];
template <bool turned>
WL_FN void wl_emu_ldmatrix(wl_u32 (&to)[4], wl_shared<wl_u32> s, wl_i64 i, const char* file, wl_u32 line) {
  auto& lanes = wl_emu_matrices[wl_emu_self->rank % 16][wl_warp()];
  const wl_u32x4 row = wl_lds128(s, i, file, line);
  memcpy(lanes[wl_lane()], &row, sizeof row);
  wl_syncwarp(WL_FULL_MASK, file, line);
  const wl_u32 g = wl_lane() / 4, t = wl_lane() % 4;
  for (wl_u32 m = 0; m < 4; m++) {
    const auto half = [&](wl_u32 r) { return lanes[8 * m + r][g / 2] >> (16 * (g % 2)) & 0xffffu; };
    to[m] = turned ? half(2 * t) | half(2 * t + 1) << 16 : lanes[8 * m + g][t];
  }
  wl_syncwarp(WL_FULL_MASK, file, line);
}
WL_FN void wl_ldmatrix(wl_u32 (&to)[4], wl_shared<wl_u32> s, wl_i64 i, WL_AT) {
  wl_emu_ldmatrix<false>(to, s, i, WL_HERE);
}
WL_FN void wl_ldmatrix_turned(wl_u32 (&to)[4], wl_shared<wl_u32> s, wl_i64 i, WL_AT) {
  wl_emu_ldmatrix<true>(to, s, i, WL_HERE);
}
