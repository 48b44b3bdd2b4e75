// The k likeliest classes of each row and their log-probabilities, for more of them than a list of a thread's own
// holds (loss/top.cuh). A row a block. Launches: src/cuda/schedule/top.rs.
//
// A logit and its column are one number, by which they are in the order of ranks: no two are equal. Each thread's
// largest come first: the k-th of those is no more than the k-th of all. What is no less goes into a list in the
// second read, which is cut to k whenever it is full. One read for a row whose list never is; the order in which
// threads come by is of no consequence.
#pragma once
#include "loss/logits.cuh"
#include "core/dtype.cuh"
#include "core/peak.cuh"
#include "core/reduce.cuh"
#include "core/scan.cuh"

#define WL_TOP_ROOM 1024  // of a list: a power of two

// Larger where the logit is, NaN before all; of equals the lower column. Never 0.
WL_FN wl_u64 rank_key(float x, wl_i64 column) {
  const wl_u32 bits = wl_bits(x == 0.f ? 0.f : x);
  const wl_u32 order = wl_isnan(x) ? 0xffffffffu : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return (wl_u64)order << 32 | (wl_u32)~(wl_u32)column;
}

// The largest come first; all threads of the block.
WL_FN void sort_keys(wl_shared<wl_u64> keys) {
  for (wl_u32 size = 2; size <= WL_TOP_ROOM; size *= 2) {
    for (wl_u32 step = size / 2; step > 0; step /= 2) {
      for (wl_u32 t = wl_thread(); t < WL_TOP_ROOM / 2; t += wl_threads()) {
        const wl_u32 i = 2 * t - (t & (step - 1)), j = i + step;
        const wl_u64 a = keys[i], b = keys[j];
        if ((i & size) == 0 ? a < b : a > b) keys[i] = b, keys[j] = a;
      }
      wl_syncthreads();  // this step's pairs are in order
    }
  }
}

// Keeps the k largest of a list, which are in order then; returns the last of them. All threads.
WL_FN wl_u64 cut_to(wl_i64 k, wl_shared<wl_u64> keys, wl_u32 len) {
  for (wl_u32 i = len + wl_thread(); i < WL_TOP_ROOM; i += wl_threads()) keys[i] = 0;
  wl_syncthreads();  // what is no candidate is behind all that are
  sort_keys(keys);
  const wl_u64 last = keys[k - 1];
  wl_syncthreads();  // everyone has read it
  return last;
}

WL_FN void top_classes_body(const TopArgs& a) {
  WL_SMEM(wl_u64, keys, WL_TOP_ROOM);
  WL_SMEM(float, slots, 32 * Peak::WORDS);
  WL_SMEM(wl_u32, of_warps, 32);
  const wl_i64 row = wl_block(), from = row * a.stride, threads = wl_threads();
  const wl_i64 target = load_index(a.target.values, a.target.kind, row);
  const bool capped = a.logits.cap > 0.f;
  const float z_unit = capped ? 1.f : a.logits.scale, k = z_unit * WL_LOG2E;
  wl_i64* const classes = a.top_classes + row * a.k;
  float* const logprob = a.top_logprob + row * a.k;
  if (target == a.target.ignore_index || target < 0 || target >= a.classes) {
    for (wl_i64 i = wl_thread(); i < a.k; i += threads) wl_st(classes + i, (wl_i64)-1), wl_st(logprob + i, 0.f);
    return;
  }
  Peak s = Peak::empty();
  wl_u64 largest = 0;
  for (wl_i64 c = wl_thread(); c < a.classes; c += 4 * threads) {
    float key[4], e[4];
    WL_UNROLL for (int i = 0; i < 4; i++) {
      const wl_i64 at = c + i * threads;
      key[i] = -wl_inf();
      if (at >= a.classes) continue;
      key[i] = load_float(a.x, a.kind, from + at);
      const wl_u64 one = rank_key(key[i], at);
      largest = one > largest ? one : largest;
    }
    if (capped) cap_logits(key, a.logits);
    s.push(key, k, e);
  }
  s = reduce_block(s, k, slots);
  keys[wl_thread()] = largest;
  wl_u64 floor = cut_to(a.k, keys, wl_threads());
  wl_u32 len = 0;
  for (wl_i64 base = 0; base < a.classes; base += threads) {
    const wl_i64 at = base + wl_thread();
    wl_u64 one = at < a.classes ? rank_key(load_float(a.x, a.kind, from + at), at) : 0;
    if (!wl_syncthreads_or(one != 0 && one >= floor)) continue;
    if (len + threads > WL_TOP_ROOM) {
      floor = cut_to(a.k, keys, len);
      len = (wl_u32)a.k;
    }
    const bool in = one != 0 && one >= floor;
    wl_u32 all;
    const wl_u32 before = sum_before(in ? 1u : 0u, of_warps, all);
    if (in) keys[len + before] = one;
    len += all;
    wl_syncthreads();  // the list is as long as everyone thinks
  }
  cut_to(a.k, keys, len);
  const bool undefined = !(wl_abs(s.max) <= WL_FLT_MAX) || wl_isnan(s.rest);
  const float log_sum = wl_log1p(s.rest);
  for (wl_i64 i = wl_thread(); i < a.k; i += threads) {
    const wl_i64 column = (wl_u32)~(wl_u32)keys[i];
    const float x = load_float(a.x, a.kind, from + column);
    const float key = capped ? Capped(x, a.logits).key : x;
    const float below = (float)((double)z_unit * ((double)key - s.max) - log_sum);
    wl_st(classes + i, column);
    wl_st(logprob + i, undefined ? wl_nan() : below);
  }
}
