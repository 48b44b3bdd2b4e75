// How many rows have a rank that is not negative and below a limit, for each of some limits: a
// block a limit. Whole numbers: the same whatever the order. Launches: src/cuda/loss/ranks.rs.
#pragma once
#include "core/args.cuh"
#include "core/block_sum.cuh"

WL_FN void count_ranks_body(const RankArgs& a) {
  WL_SMEM(wl_i64, counts, 32);
  const wl_i64 limit = wl_ld(a.limits + wl_block());
  wl_i64 count = 0;
  for (wl_i64 row = wl_thread(); row < a.rows; row += wl_threads()) {
    const wl_i64 rank = wl_ld(a.ranks + row);
    count += rank >= 0 && rank < limit;
  }
  count = block_sum(count, counts);
  if (wl_thread() == 0) wl_st(a.counts + wl_block(), count);
}
