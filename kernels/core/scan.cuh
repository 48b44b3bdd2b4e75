// Sums of a block's threads in their order, the same every time.
#pragma once
#include "core/intrinsics.cuh"

// The sum of what the threads before this one have; `all` gets that of the whole block.
template <class T>
WL_FN T sum_before(T own, wl_shared<T> of_warps, T& all) {
  T scan = own;
  WL_UNROLL for (wl_u32 lanes = 1; lanes < 32; lanes *= 2) {
    const T before = wl_shfl_up(WL_FULL_MASK, scan, lanes);
    if (wl_lane() >= lanes) scan += before;
  }
  if (wl_lane() == 31) of_warps[wl_warp()] = scan;
  wl_syncthreads();  // the warps' sums are there
  T before = scan - own;
  all = T(0);
  for (wl_u32 w = 0; w < wl_warps(); w++) {
    const T of_warp = of_warps[w];
    before += w < wl_warp() ? of_warp : T(0);
    all += of_warp;
  }
  wl_syncthreads();  // nobody reads them any more
  return before;
}
