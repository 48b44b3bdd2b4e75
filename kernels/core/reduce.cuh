// Reductions of a mergeable pair: lanes, warps of a block, blocks of a cluster.
//
// Every thread gets the result, and each gets the same bits: a butterfly merges in an order that
// depends on nothing but the number of threads.
#pragma once
#include "core/intrinsics.cuh"

template <class S>
struct Words {
  float w[S::WORDS];
};

template <class S>
WL_FN void store_words(float* to, const S& s) {
  const Words<S> words = wl_bit_cast<Words<S>>(s);
  WL_UNROLL for (int i = 0; i < S::WORDS; i++) wl_st(to + i, words.w[i]);
}
template <class S>
WL_FN S load_words(const float* from) {
  Words<S> words;
  WL_UNROLL for (int i = 0; i < S::WORDS; i++) words.w[i] = wl_ld(from + i);
  return wl_bit_cast<S>(words);
}

template <class S>
WL_FN S shuffled(const S& s, wl_u32 lanes) {
  Words<S> words = wl_bit_cast<Words<S>>(s);
  WL_UNROLL for (int i = 0; i < S::WORDS; i++) {
    words.w[i] = wl_shfl_xor(WL_FULL_MASK, words.w[i], lanes);
  }
  return wl_bit_cast<S>(words);
}

// Over groups of `width` neighbouring lanes; the whole warp calls it.
template <int width, class S>
WL_FN S reduce_lanes(S s, float k) {
  WL_UNROLL for (int lanes = width / 2; lanes > 0; lanes /= 2) s.merge(shuffled(s, lanes), k);
  return s;
}

// Over the block. All threads call it; `slots` (one State a warp) may be used again after the next
// barrier.
template <class S>
WL_FN S reduce_block(S s, float k, wl_shared<float> slots) {
  s = reduce_lanes<32>(s, k);
  if (wl_warps() == 1) return s;
  if (wl_lane() == 0) {
    const Words<S> words = wl_bit_cast<Words<S>>(s);
    WL_UNROLL for (int i = 0; i < S::WORDS; i++) slots[wl_warp() * S::WORDS + i] = words.w[i];
  }
  wl_syncthreads();  // the warps' pairs are there
  s = S::empty();
  if (wl_lane() < wl_warps()) {
    Words<S> words;
    WL_UNROLL for (int i = 0; i < S::WORDS; i++) words.w[i] = slots[wl_lane() * S::WORDS + i];
    s = wl_bit_cast<S>(words);
  }
  return reduce_lanes<32>(s, k);
}

// Over the cluster, from the blocks' own results. Peers may still read `mine` when this returns:
// after it the block waits (wl_cluster_wait) before it ends.
template <class S>
WL_FN S reduce_cluster(S s, float k, wl_shared<float> mine) {
  if (wl_thread() == 0) {
    const Words<S> words = wl_bit_cast<Words<S>>(s);
    WL_UNROLL for (int i = 0; i < S::WORDS; i++) mine[i] = words.w[i];
  }
  wl_cluster_sync();  // the blocks' pairs are there
  s = S::empty();
  if (wl_lane() < wl_cluster_size()) {
    Words<S> words;
    WL_UNROLL for (int i = 0; i < S::WORDS; i++) {
      words.w[i] = wl_peer_ld<float>(wl_peer(mine, i, wl_lane()));
    }
    s = wl_bit_cast<S>(words);
  }
  s = reduce_lanes<32>(s, k);
  // What was read of the peers has gone through the shuffles: there is nothing to be ordered.
  wl_cluster_arrive_relaxed();
  return s;
}
