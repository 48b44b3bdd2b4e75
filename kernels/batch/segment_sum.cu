// Rows added up by class, without floating-point atomics: parts that are sorted by class (sort.cu) are
// added in their order. Launches: src/cuda/matrix/segment_sum.rs.
#pragma once
#include "core/args.cuh"
#include "core/dtype.cuh"

#define WL_SEGMENT_COLUMNS 128
// Parts of a class that one warp adds up; more are a whole block's.
#define WL_SEGMENT_SHORT 32

// Sums of a lane's four columns.
struct SegmentSums {
  float of[4];

  WL_FN void clear() {
    WL_UNROLL for (int j = 0; j < 4; j++) of[j] = 0.f;
  }

  // Adds those of up to 32 parts from `at` on that are of this class; whether there may be more.
  WL_FN bool add(const SegmentArgs& a, wl_i64 key, wl_i64 at, wl_i64 column) {
    const wl_i64 mine = at + wl_lane();
    const bool same = mine < a.n && wl_ld(a.keys + mine) == key;
    // What of a class is left out stays in its place, with no row.
    wl_i64 row = -1;
    float factor = 1.f;
    if (same) {
      const wl_i64 part = wl_ld(a.parts + mine), rest = part - a.split;
      if (rest < 0) {
        row = part;
      } else {
        const wl_i64 slot = a.slots ? wl_ld(a.slots + rest) : rest;
        if (slot >= a.from && slot < a.to_slot) row = a.split + slot - a.from;
        if (a.factors) factor = wl_ld(a.factors + rest);
      }
    }
    const wl_u32 n = wl_popc(wl_ballot(WL_FULL_MASK, same));
    for (wl_u32 l = 0; l < n; l++) {
      const wl_i64 from = wl_shfl(WL_FULL_MASK, row, l);
      const float by = wl_shfl(WL_FULL_MASK, factor, l);
      if (from < 0) continue;
      const bool whole = from < a.split;
      const void* rows = whole ? a.whole : a.rest;
      const wl_u32 kind = whole ? a.whole_kind : a.rest_kind;
      const wl_i64 begin = whole ? from * a.whole_stride : (from - a.split) * a.rest_stride;
      WL_UNROLL for (int j = 0; j < 4; j++) {
        const wl_i64 c = column + 32 * j;
        // Without rows every element is 1.
        if (c < a.columns) of[j] += by * (rows ? load_float(rows, kind, begin + c) : 1.f);
      }
    }
    return n == 32;
  }

  WL_FN void write(const SegmentArgs& a, wl_i64 key, wl_i64 column) const {
    WL_UNROLL for (int j = 0; j < 4; j++) {
      const wl_i64 c = column + 32 * j, to = (key - a.begin) * a.to_stride + c;
      if (c < a.columns) store_float(a.to, a.to_kind, to, load_float(a.to, a.to_kind, to) + of[j]);
    }
  }
};

// table[class] += the sum of its parts' rows. Eight places in the order of classes a block, and a
// stretch of columns; a class is the work of where it begins.
WL_FN void segment_sums_body(const SegmentArgs& a) {
  WL_SMEM(float, sums, 8 * WL_SEGMENT_COLUMNS);
  WL_SMEM(wl_i64, long_keys, 8);
  const wl_i64 stretches = (a.columns + WL_SEGMENT_COLUMNS - 1) / WL_SEGMENT_COLUMNS;
  const wl_i64 first = wl_block() / stretches * 8, column = wl_block() % stretches * WL_SEGMENT_COLUMNS + wl_lane();
  const wl_i64 at = first + wl_warp();
  wl_i64 key = at < a.n ? wl_ld(a.keys + at) : -1;
  if (key < a.begin || key >= a.end || (at > 0 && wl_ld(a.keys + at - 1) == key)) key = -1;
  const wl_i64 last = at + WL_SEGMENT_SHORT;
  const bool is_long = key >= 0 && last < a.n && wl_ld(a.keys + last) == key;
  SegmentSums own;
  if (key >= 0 && !is_long) {
    own.clear();
    own.add(a, key, at, column);
    own.write(a, key, column);
  }
  if (wl_lane() == 0) long_keys[wl_warp()] = is_long ? key : -1;
  wl_syncthreads();  // everyone knows what is left for all
  for (wl_u32 w = 0; w < 8; w++) {
    const wl_i64 of_all = long_keys[w];
    if (of_all < 0) continue;
    own.clear();
    wl_i64 from = first + w + 32 * wl_warp();
    while (own.add(a, of_all, from, column)) from += 32 * wl_warps();
    WL_UNROLL for (int j = 0; j < 4; j++) sums[WL_SEGMENT_COLUMNS * wl_warp() + wl_lane() + 32 * j] = own.of[j];
    wl_syncthreads();  // the warps' sums are there
    if (wl_warp() == 0) {
      for (wl_u32 other = 1; other < wl_warps(); other++) {
        WL_UNROLL for (int j = 0; j < 4; j++) own.of[j] += sums[WL_SEGMENT_COLUMNS * other + wl_lane() + 32 * j];
      }
      own.write(a, of_all, column);
    }
    wl_syncthreads();  // nobody reads them any more
  }
}
