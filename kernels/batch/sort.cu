// Parts sorted by their class: a stable radix sort, eight bits a pass, so that what is then added up
// class by class (segment_sum.cu) is so in the same order every time. Launches: src/cuda/matrix/segment_sum.rs.
#pragma once
#include "core/args.cuh"
#include "core/scan.cuh"

// Each part with its class; `classes` where it has none, which comes last.
WL_FN void sort_keys_body(const SortArgs& a) {
  for (wl_i64 part = first_of_grid(); part < a.n; part += step_of_grid()) {
    const wl_i64 key = part < a.split ? wl_ld(a.first + part) : wl_ld(a.second + part - a.split);
    wl_st(a.to_keys + part, key < 0 ? a.classes : key);
    wl_st(a.to_parts + part, part);
  }
}

#define WL_SORT_EACH 8
#define WL_SORT_TILE (WL_SORT_EACH * 256)

// A warp's stretch of a tile, striped over its lanes: keys, and how many of the same digit come before
// each in the warp. `in_warps` gets each warp's numbers of digits.
struct SortTile {
  wl_i64 keys[WL_SORT_EACH];
  wl_u32 before[WL_SORT_EACH];
  wl_i64 first;  // of the lane's

  WL_FN wl_u32 digit(int e, const SortArgs& a) const { return (wl_u32)(keys[e] >> a.shift) & 255u; }
  WL_FN bool there(int e, const SortArgs& a) const { return first + 32 * e < a.n; }

  WL_FN void count(const SortArgs& a, wl_shared<wl_u32> in_warps) {
    first = (wl_i64)wl_block() * WL_SORT_TILE + wl_warp() * (32 * WL_SORT_EACH) + wl_lane();
    for (wl_u32 i = wl_thread(); i < 256 * wl_warps(); i += wl_threads()) in_warps[i] = 0;
    wl_syncthreads();  // the numbers are 0
    WL_UNROLL for (int e = 0; e < WL_SORT_EACH; e++) {
      keys[e] = there(e, a) ? wl_ld(a.keys + first + 32 * e) : 0;
      wl_u32 same = wl_ballot(WL_FULL_MASK, there(e, a));
      WL_UNROLL for (int bit = 0; bit < 8; bit++) {
        const bool set = (digit(e, a) >> bit & 1u) != 0;
        const wl_u32 those = wl_ballot(WL_FULL_MASK, set);
        same &= set ? those : ~those;
      }
      const wl_u32 at = 256 * wl_warp() + digit(e, a), earlier = same & ((1u << wl_lane()) - 1u);
      before[e] = there(e, a) ? in_warps[at] + wl_popc(earlier) : 0;
      wl_syncwarp();  // everyone has read
      if (there(e, a) && earlier == 0) in_warps[at] = before[e] + wl_popc(same);
      wl_syncwarp();  // the first of each digit has written
    }
    wl_syncthreads();  // all warps' numbers are there
  }
};

// How often each digit is in a tile.
WL_FN void sort_count_body(const SortArgs& a) {
  WL_SMEM(wl_u32, in_warps, 8 * 256);
  SortTile tile;
  tile.count(a, in_warps);
  wl_u32 sum = 0;
  for (wl_u32 w = 0; w < wl_warps(); w++) sum += in_warps[256 * w + wl_thread()];
  wl_st(a.counts + wl_thread() * a.tiles + wl_block(), sum);
}

// One block: where each tile's parts of a digit go. A digit a thread.
WL_FN void sort_scan_body(const SortArgs& a) {
  WL_SMEM(wl_u32, of_warps, 32);
  wl_u32* counts = a.counts + wl_thread() * a.tiles;
  wl_u32 own = 0, all;
  for (wl_i64 tile = 0; tile < a.tiles; tile++) own += wl_ld(counts + tile);
  wl_u32 before = sum_before(own, of_warps, all);
  for (wl_i64 tile = 0; tile < a.tiles; tile++) {
    const wl_u32 here = wl_ld(counts + tile);
    wl_st(counts + tile, before);
    before += here;
  }
}

// Parts to their places.
WL_FN void sort_scatter_body(const SortArgs& a) {
  WL_SMEM(wl_u32, in_warps, 8 * 256);
  SortTile tile;
  tile.count(a, in_warps);
  wl_u32 next = wl_ld(a.counts + wl_thread() * a.tiles + wl_block());
  for (wl_u32 w = 0; w < wl_warps(); w++) {
    const wl_u32 here = in_warps[256 * w + wl_thread()];
    in_warps[256 * w + wl_thread()] = next;
    next += here;
  }
  wl_syncthreads();  // every warp's first places are there
  WL_UNROLL for (int e = 0; e < WL_SORT_EACH; e++) {
    if (!tile.there(e, a)) continue;
    const wl_i64 to = in_warps[256 * wl_warp() + tile.digit(e, a)] + tile.before[e];
    wl_st(a.to_keys + to, tile.keys[e]);
    wl_st(a.to_parts + to, wl_ld(a.parts + tile.first + 32 * e));
  }
}
