// What is asked of all classes of an adaptive softmax: log-probabilities, the likeliest, one by
// chance. Launches: src/cuda/adaptive_log_softmax/distribution.rs.
#pragma once
#include "args.cuh"
#include "scan.cuh"

// Rows of log-probabilities of all places, from those of the head's columns and of each cluster's
// classes, which are there already.
WL_FN void distribution_shift_body(const DistributionArgs& a) {
  for (Elements at(a.places); at.row < a.n; at.next()) {
    wl_i64 cluster = -1;
    while (cluster + 1 < a.clusters && at.column >= a.cutoffs[cluster + 1]) cluster++;
    const wl_i64 column = cluster < 0 ? at.column : a.shortlist + cluster;
    const float head = wl_ld(a.head + at.row * a.head_size + column);
    float* to = a.log_prob + at.row * a.stride + at.column;
    wl_st(to, cluster < 0 ? head : head + wl_ld(to));
  }
}

// The same rows in the order of the caller's classes.
WL_FN void distribution_rename_body(const DistributionArgs& a) {
  for (Elements at(a.places); at.row < a.n; at.next()) {
    const wl_i64 name = wl_ld(a.classes + at.column);
    wl_st(a.values + at.row * a.k + name, wl_ld(a.log_prob + at.row * a.stride + at.column));
  }
}

WL_FN wl_i64 class_name(const DistributionArgs& a, wl_i64 place) {
  return a.classes ? (wl_i64)wl_ld(a.classes + place) : place;
}

// A class and its log-probability; the likelier comes first, of equals the lower.
struct Candidate {
  float value;
  wl_i64 name;  // -1: none
  WL_FN bool before(const Candidate& other) const {
    return other.name < 0 || (name >= 0 && (value > other.value || (value == other.value && name < other.name)));
  }
  WL_FN void take(const Candidate& other) {
    if (other.before(*this)) *this = other;
  }
};

// The k first candidates of a row a block, one after another.
WL_FN void distribution_top_body(const DistributionArgs& a) {
  WL_SMEM(float, values, 33);
  WL_SMEM(wl_i64, names, 33);
  const float* row = a.log_prob + wl_block() * a.stride;
  Candidate last = {wl_inf(), -1};
  for (wl_i64 n = 0; n < a.k; n++) {
    Candidate best = {-wl_inf(), -1};
    for (wl_i64 place = wl_thread(); place < a.places; place += wl_threads()) {
      const float v = wl_ld(row + place);
      const Candidate one = {wl_isnan(v) ? -wl_inf() : v, class_name(a, place)};
      if (n == 0 || last.before(one)) best.take(one);
    }
    WL_UNROLL for (int lanes = 16; lanes > 0; lanes /= 2) {
      best.take({wl_shfl_xor(WL_FULL_MASK, best.value, lanes), wl_shfl_xor(WL_FULL_MASK, best.name, lanes)});
    }
    if (wl_lane() == 0) values[wl_warp()] = best.value, names[wl_warp()] = best.name;
    wl_syncthreads();  // the warps' candidates are there
    if (wl_thread() == 0) {
      for (wl_u32 w = 1; w < wl_warps(); w++) best.take({values[w], names[w]});
      values[32] = best.value, names[32] = best.name;
      const wl_i64 at = (a.row + wl_block()) * a.k + n;
      wl_st(a.picked + at, best.name);
      if (a.values) wl_st(a.values + at, best.value);
    }
    wl_syncthreads();  // the block's candidate is there
    last = {values[32], names[32]};
  }
}

// The generator of src/random.rs.
WL_FN wl_u64 mixed(wl_u64 z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}
WL_FN double unit(wl_u64 key, wl_u64 word) {
  return (double)(mixed((key ^ word) + 0x9e3779b97f4a7c15ull) >> 11) * (1. / 9007199254740992.);
}

// A block draws one of `len` log-probabilities, less `shift`: a stretch of them a thread. All threads
// get the answer.
WL_FN wl_i64 drawn(const float* row, wl_i64 len, float shift, double u, wl_shared<double> sums,
                   wl_shared<wl_i64> found) {
  const wl_i64 each = (len + wl_threads() - 1) / wl_threads();
  const wl_i64 begin = wl_thread() * each, stop = begin + each, end = stop < len ? stop : len;
  double own = 0.;
  for (wl_i64 i = begin; i < end; i++) own += (double)wl_exp(wl_ld(row + i) - shift);
  if (wl_thread() == 0) found[0] = len - 1;
  double all;
  const double before = sum_before(own, sums, all);
  // Sums that are rounded leave no gaps between threads: the one that reaches the mark has it.
  const double mark = u * all;
  if (own > 0. && before <= mark && mark < before + own) {
    double sum = before;
    wl_i64 i = begin, last = begin;
    for (; i < end; i++) {
      const double p = (double)wl_exp(wl_ld(row + i) - shift);
      if (p > 0.) last = i;
      sum += p;
      if (p > 0. && mark < sum) break;
    }
    found[0] = i < end ? i : last;
  }
  wl_syncthreads();  // the answer is there
  const wl_i64 answer = found[0];
  wl_syncthreads();  // nobody reads it any more
  return answer;
}

// A row a block: a column of the head, then, if that stands for a cluster, a class of it.
WL_FN void distribution_draw_body(const DistributionArgs& a) {
  WL_SMEM(double, sums, 32);
  WL_SMEM(wl_i64, found, 1);
  const wl_u64 row = a.row + wl_block();
  const float* head = a.head + wl_block() * a.head_size;
  wl_i64 place = drawn(head, a.head_size, 0.f, unit(a.seed, 2 * row), sums, found);
  if (place >= a.shortlist) {
    const wl_i64 cluster = place - a.shortlist, begin = a.cutoffs[cluster];
    const wl_i64 end = cluster + 1 < a.clusters ? a.cutoffs[cluster + 1] : a.places;
    const float* classes = a.log_prob + wl_block() * a.stride + begin;
    place = begin + drawn(classes, end - begin, wl_ld(head + place), unit(a.seed, 2 * row + 1), sums, found);
  }
  if (wl_thread() == 0) wl_st(a.picked + row, class_name(a, place));
}
