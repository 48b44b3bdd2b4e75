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
// `fresh`: other blocks may have stored it during this launch.
template <class S, bool fresh = false>
WL_FN S load_words(const float* from) {
  Words<S> words;
  WL_UNROLL for (int i = 0; i < S::WORDS; i++) words.w[i] = fresh ? wl_ld_cg(from + i) : wl_ld(from + i);
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

// What the blocks of a cluster have of a row comes together: each sends its own to all, to itself too. What
// comes has its place, and the mbarrier that counts it, in the memory of whoever gets it, and nobody reads a
// peer's: a block may end once it has had everything, and no fence and no further barrier of the cluster is
// needed. Each round has its own places and mbarrier, as a peer may be a round ahead.
#define WL_CLUSTER_BLOCKS 16
template <int words, int rounds>
struct Exchange {
  static constexpr int PAIRS = (words + 1) / 2, PLACES = rounds * WL_CLUSTER_BLOCKS * PAIRS;
  wl_shared<wl_u64> places, counts;  // PLACES of them, and `rounds`

  // The whole block, once, and a good while before the first round.
  WL_FN void open() const {
    if (wl_thread() == 0) {
      WL_UNROLL for (int r = 0; r < rounds; r++) wl_mbarrier_init(counts, r, wl_cluster_size() * PAIRS * 8);
      wl_mbarrier_show();
    }
    wl_cluster_arrive();
  }
  // The whole block, before the first round: all peers' mbarriers are there.
  WL_FN void opened() const { wl_cluster_wait(); }

  // All threads, each with the block's own state. Peers may overwrite, after the round, what this block has
  // read before it: no load of that may be on its way still.
  template <int round, class S>
  WL_FN S reduce(S s, float k) const {
    static_assert(S::WORDS <= words && round < rounds, "Exchange: too small");
    const wl_u32 lane = wl_lane(), size = wl_cluster_size();
    constexpr wl_u32 first = round * WL_CLUSTER_BLOCKS * PAIRS;
    if (wl_warp() == 0 && lane < size) {
      const Words<S> own = wl_bit_cast<Words<S>>(s);
      const wl_u32 to = wl_peer(places, first + wl_cluster_rank() * PAIRS, lane), count = wl_peer(counts, round, lane);
      WL_UNROLL for (int i = 0; i < PAIRS; i++) {
        const wl_u32 low = 2 * i < S::WORDS ? wl_bits(own.w[2 * i]) : 0u;
        const wl_u32 high = 2 * i + 1 < S::WORDS ? wl_bits(own.w[2 * i + 1]) : 0u;
        wl_st_async(to + 8 * i, count, (wl_u64)high << 32 | low);
      }
    }
    wl_mbarrier_wait(counts, round);
    s = S::empty();
    if (lane < size) {
      Words<S> words_of;
      WL_UNROLL for (int i = 0; 2 * i < S::WORDS; i++) {
        const wl_u64 pair = places[first + lane * PAIRS + i];
        words_of.w[2 * i] = wl_f32((wl_u32)pair);
        if (2 * i + 1 < S::WORDS) words_of.w[2 * i + 1] = wl_f32((wl_u32)(pair >> 32));
      }
      s = wl_bit_cast<S>(words_of);
    }
    return reduce_lanes<32>(s, k);
  }
};
