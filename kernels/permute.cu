// Lines along any dimensions of a tensor, gathered to lie one after another, and scattered back.
//
// For tensors whose classes are not the last dimension: one more read and write of each element,
// an element a thread, plainly. Launches: src/cuda/lines.rs.
#pragma once
#include "args.cuh"

template <class E>
WL_FN void permute_elements(const PermuteArgs& a) {
  const wl_i64 step = (wl_i64)wl_blocks() * wl_threads();
  for (wl_i64 i = (wl_i64)wl_block() * wl_threads() + wl_thread(); i < a.elements; i += step) {
    wl_i64 rest = i, at = 0;
    for (int d = WL_MAX_DIMS - 1; d >= 0; d--) {
      if (a.sizes[d] == 1) continue;
      at += rest % a.sizes[d] * a.strides[d];
      rest /= a.sizes[d];
    }
    const wl_i64 from = a.back ? i : at, to = a.back ? at : i;
    wl_st((E*)a.to + to, wl_ld((const E*)a.from + from));
  }
}

WL_FN void permute_body(const PermuteArgs& a) {
  if (a.size == 4) {
    permute_elements<wl_u32>(a);
  } else {
    permute_elements<wl_u16>(a);
  }
}
