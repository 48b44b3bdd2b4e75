// What is asked of all classes of an adaptive softmax: log-probabilities, the likeliest, one by
// chance. Launches: src/cuda/loss/adaptive_log_softmax/distribution.rs.
#pragma once
#include "core/args.cuh"
#include "core/scan.cuh"

// Rows of log-probabilities of all places, from those of the head's columns and of each cluster's
// classes, which are there already.
WL_FN void distribution_shift_body(const DistributionArgs& a) {
  for (Elements at(a.places); at.row < a.n; at.next()) {
    wl_i64 cluster = -1;
    while (cluster + 1 < a.clusters && at.column >= a.cutoffs[cluster + 1]) cluster++;
    const wl_i64 column = cluster < 0 ? at.column : a.shortlist + cluster;
    const float head = wl_ld(a.head + at.row * a.head_stride + column);
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

// Which row of the batch a slot holds; below 0: none.
WL_FN wl_i64 row_of(const DistributionArgs& a, wl_i64 slot) { return a.rows ? wl_ld(a.rows + slot) : slot; }

// A row whose head has drawn a cluster has this in place of a class.
WL_FN wl_i64 drawn_cluster(wl_i64 cluster) { return -2 - cluster; }

// A class and its log-probability; the likelier comes first, NaN before all, of equals the lower class.
struct Candidate {
  float value;
  wl_i64 name;  // -1: none
  WL_FN bool before(const Candidate& other) const {
    if (name < 0 || other.name < 0) return name >= 0;
    const bool nan = wl_isnan(value), other_nan = wl_isnan(other.value);
    const bool equal = value == other.value || (nan && other_nan);
    return equal ? name < other.name : nan || (!other_nan && value > other.value);
  }
  WL_FN void take(const Candidate& other) {
    if (other.before(*this)) *this = other;
  }
};

// Whether a cluster's classes can change what has been picked for a row so far: none is likelier than the
// cluster's column, and NaN comes before all numbers.
WL_FN bool needs(const DistributionArgs& a, wl_i64 row, wl_i64 cluster) {
  const wl_i64 worst = (a.row + row) * a.k + a.k - 1, name = wl_ld(a.picked + worst);
  if (!a.values) return name == drawn_cluster(cluster);
  if (name < 0) return true;
  const float column = wl_ld(a.head + row * a.head_stride + a.shortlist + cluster), last = wl_ld(a.values + worst);
  return wl_isnan(column) || !(wl_isnan(last) || column < last);
}

// The k first candidates of a row a block, one after another: of the head's own classes, or of a
// cluster's and those that the row has already.
WL_FN void distribution_top_body(const DistributionArgs& a) {
  WL_SMEM(float, values, 33);
  WL_SMEM(wl_i64, names, 33);
  const wl_i64 slot = wl_block(), row = row_of(a, slot);
  if (row < 0) return;
  const bool more = a.rows != nullptr;
  // Clusters come one after another, and those before may have ruled this one out.
  if (more && !needs(a, row, a.cluster)) return;
  const float shift = more ? wl_ld(a.head + row * a.head_stride + a.shortlist + a.cluster) : 0.f;
  const float* log_prob = a.log_prob + slot * a.stride;
  const wl_i64 begin = (a.row + row) * a.k;
  wl_i64* const to_names = more ? a.names + slot * a.k : a.picked + begin;
  float* const to_values = more ? a.logs + slot * a.k : a.values + begin;
  Candidate last = {0.f, -1};
  for (wl_i64 n = 0; n < a.k; n++) {
    Candidate best = {-wl_inf(), -1};
    for (wl_i64 place = wl_thread(); place < a.places; place += wl_threads()) {
      const float v = wl_ld(log_prob + place);
      const Candidate one = {more ? shift + v : v, class_name(a, a.begin + place)};
      if (n == 0 || last.before(one)) best.take(one);
    }
    for (wl_i64 i = wl_thread(); more && i < a.k; i += wl_threads()) {
      const Candidate one = {wl_ld(a.values + begin + i), wl_ld(a.picked + begin + i)};
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
      wl_st(to_names + n, best.name);
      wl_st(to_values + n, best.value);
    }
    wl_syncthreads();  // the block's candidate is there
    last = {values[32], names[32]};
  }
  for (wl_i64 i = wl_thread(); more && i < a.k; i += wl_threads()) {
    wl_st(a.picked + begin + i, wl_ld(to_names + i));
    wl_st(a.values + begin + i, wl_ld(to_values + i));
  }
}

// The rows that need a cluster, a cluster a block, in their order.
WL_FN void distribution_needs_body(const DistributionArgs& a) {
  WL_SMEM(wl_u32, of_warps, 32);
  const wl_i64 cluster = wl_block();
  wl_i64* rows = a.needed + cluster * a.n;
  wl_i64 count = 0;
  for (wl_i64 base = 0; base < a.n; base += wl_threads()) {
    const wl_i64 row = base + wl_thread();
    const bool needed = row < a.n && needs(a, row, cluster);
    wl_u32 all;
    const wl_u32 before = sum_before(needed ? 1u : 0u, of_warps, all);
    if (needed) wl_st(rows + count + before, row);
    count += all;
  }
  for (wl_i64 slot = count + wl_thread(); slot < a.n; slot += wl_threads()) wl_st(rows + slot, (wl_i64)-1);
  if (wl_thread() == 0) wl_st(a.counts + cluster, count);
}

// The generator of src/base/random.rs.
WL_FN wl_u64 mixed(wl_u64 z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}
WL_FN double unit(wl_u64 key, wl_u64 word) {
  return (double)(mixed((key ^ word) + 0x9e3779b97f4a7c15ull) >> 11) * (1. / 9007199254740992.);
}

// A block draws one of `len` log-probabilities: a stretch of them a thread. All threads get the answer. Of
// NaN, which all are then, the first.
WL_FN wl_i64 drawn(const float* row, wl_i64 len, double u, wl_shared<double> sums, wl_shared<wl_i64> found) {
  const wl_i64 each = (len + wl_threads() - 1) / wl_threads();
  const wl_i64 begin = wl_thread() * each, stop = begin + each, end = stop < len ? stop : len;
  double own = 0.;
  for (wl_i64 i = begin; i < end; i++) own += (double)wl_exp(wl_ld(row + i));
  if (wl_thread() == 0) found[0] = wl_isnan((float)own) ? 0 : len - 1;
  double all;
  const double before = sum_before(own, sums, all);
  // Sums that are rounded leave no gaps between threads: the one that reaches the mark has it.
  const double mark = u * all;
  // A row that is NaN is so in every column, and the first is drawn.
  if (wl_thread() == 0 && all != all) found[0] = 0;
  if (own > 0. && before <= mark && mark < before + own) {
    double sum = before;
    wl_i64 i = begin, last = begin;
    for (; i < end; i++) {
      const double p = (double)wl_exp(wl_ld(row + i));
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

// A row a block: a column of the head, or, where that stood for a cluster, a class of it.
WL_FN void distribution_draw_body(const DistributionArgs& a) {
  WL_SMEM(double, sums, 32);
  WL_SMEM(wl_i64, found, 1);
  const wl_i64 slot = wl_block(), row = row_of(a, slot);
  if (row < 0) return;
  const wl_u64 number = 2 * (wl_u64)(a.row + row) + (a.rows ? 1 : 0);
  const wl_i64 place = drawn(a.log_prob + slot * a.stride, a.places, unit(a.seed, number), sums, found);
  if (wl_thread() != 0) return;
  const bool cluster = !a.rows && place >= a.shortlist;
  wl_st(a.picked + a.row + row, cluster ? drawn_cluster(place - a.shortlist) : class_name(a, a.begin + place));
}
