// Sums over a block, in an order that depends on nothing but its size.
#pragma once
#include "core/intrinsics.cuh"

// Sum over the block; thread 0 gets it. All threads call it.
template <class T>
WL_FN T block_sum(T sum, wl_shared<T> slots) {
  WL_UNROLL for (int lanes = 16; lanes > 0; lanes /= 2) sum += wl_shfl_xor(WL_FULL_MASK, sum, lanes);
  if (wl_lane() == 0) slots[wl_warp()] = sum;
  wl_syncthreads();  // the warps' sums are there
  if (wl_thread() == 0) {
    for (wl_u32 w = 1; w < wl_warps(); w++) sum += slots[w];
  }
  return sum;
}

// Two sums and a first position, over the block; thread 0 gets the result.
struct BlockSums {
  double a, b;
  wl_i64 first;  // -1: none

  WL_FN void merge(const BlockSums& other) {
    a += other.a, b += other.b;
    if (first < 0 || (other.first >= 0 && other.first < first)) first = other.first;
  }

  WL_FN void reduce(wl_shared<double> sums, wl_shared<wl_i64> firsts) {
    WL_UNROLL for (int lanes = 16; lanes > 0; lanes /= 2) {
      merge({wl_shfl_xor(WL_FULL_MASK, a, lanes), wl_shfl_xor(WL_FULL_MASK, b, lanes),
             wl_shfl_xor(WL_FULL_MASK, first, lanes)});
    }
    if (wl_lane() == 0) {
      sums[2 * wl_warp()] = a, sums[2 * wl_warp() + 1] = b;
      firsts[wl_warp()] = first;
    }
    wl_syncthreads();  // the warps' sums are there
    if (wl_thread() == 0) {
      for (wl_u32 w = 1; w < wl_warps(); w++) merge({sums[2 * w], sums[2 * w + 1], firsts[w]});
    }
  }
};

// The largest over the block, none of them below 0; thread 0 gets it. `slots` were in use before.
WL_FN float largest_of_block(float largest, wl_shared<double> slots) {
  WL_UNROLL for (int lanes = 16; lanes > 0; lanes /= 2) {
    largest = wl_max(largest, wl_shfl_xor(WL_FULL_MASK, largest, lanes));
  }
  wl_syncthreads();  // what the slots held was read
  if (wl_lane() == 0) slots[wl_warp()] = largest;
  wl_syncthreads();  // the warps' largest are there
  for (wl_u32 w = 0; w < wl_warps(); w++) largest = wl_max(largest, (float)slots[w]);
  return largest;
}

#define WL_BLOCK_SUM_SLOTS  \
  WL_SMEM(double, sums, 64);  \
  WL_SMEM(wl_i64, firsts, 32)
