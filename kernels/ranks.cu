// How many rows have a rank that is not negative and below a limit, for each of some limits: a
// block a limit. Whole numbers: the same whatever the order. Launches: src/cuda/ranks.rs.
#pragma once
#include "args.cuh"

WL_FN void count_ranks_body(const RankArgs& a) {
  WL_SMEM(wl_i64, counts, 32);
  const wl_i64 limit = wl_ld(a.limits + wl_block());
  wl_i64 count = 0;
  for (wl_i64 row = wl_thread(); row < a.rows; row += wl_threads()) {
    const wl_i64 rank = wl_ld(a.ranks + row);
    count += rank >= 0 && rank < limit;
  }
  WL_UNROLL for (int lanes = 16; lanes > 0; lanes /= 2) count += wl_shfl_xor(WL_FULL_MASK, count, lanes);
  if (wl_lane() == 0) counts[wl_warp()] = count;
  wl_syncthreads();  // the warps' counts are there
  if (wl_thread() != 0) return;
  for (wl_u32 w = 1; w < wl_warps(); w++) count += counts[w];
  wl_st(a.counts + wl_block(), count);
}
