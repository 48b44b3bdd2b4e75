// Products of the gradient of logits, of which pieces may be zeros, with what the logits were products of; and the sums of
// its columns. Launches: src/cuda/matrix/block_sparse.rs.
#pragma once
#include "tile/block_sparse.cuh"

WL_FN void block_sparse_f32_body(const BlockSparseArgs& a) { block_sparse<false, f32>(a); }
WL_FN void block_sparse_turned_f16_body(const BlockSparseArgs& a) { block_sparse<true, f16>(a); }
WL_FN void block_sparse_turned_bf16_body(const BlockSparseArgs& a) { block_sparse<true, bf16>(a); }

// c[column] = the sum of that column of A, [k, m]. 32 columns a block: each warp adds every eighth row, and the warps'
// sums are added in order.
WL_FN void block_sparse_sums_body(const BlockSparseArgs& a) {
  WL_SMEM(float, sums, 8 * 32);
  const wl_i64 first = (wl_i64)wl_block() * 32, column = first + wl_lane();
  float sum = 0.f;
  for (wl_i64 begin = 0; begin < a.k; begin += 32) {
    const wl_u32 flag = wl_ld(a.flags + begin / WL_SPARSE_ROWS * a.tiles + first / WL_SPARSE_COLUMNS);
    const wl_i64 bit = first % WL_SPARSE_COLUMNS / 64 * 4 + begin % WL_SPARSE_ROWS / 32;
    if ((flag >> bit & 1u) == 0 || column >= a.m) continue;
    const wl_i64 end = a.k - begin < 32 ? a.k : begin + 32;
    for (wl_i64 row = begin + wl_warp(); row < end; row += 8) {
      const wl_i64 at = row * a.a_stride + column;
      sum += Dtype<bf16>::load((const bf16*)a.a + at);
      if (a.a_rest) sum += Dtype<bf16>::load((const bf16*)a.a_rest + at);
    }
  }
  sums[wl_thread()] = sum;
  wl_syncthreads();  // the warps' sums are there
  if (wl_warp() != 0 || column >= a.m) return;
  float all = 0.f;
  for (wl_u32 w = 0; w < 8; w++) all += sums[32 * w + wl_lane()];
  wl_st((float*)a.c + column, all);
}
