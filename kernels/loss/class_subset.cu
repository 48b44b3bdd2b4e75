// Rows with lists of classes beside which all others stand as one: of the logits of all classes those of what is
// listed, with the log-sum-exp of the rest behind them, and back. A row a block. Between the two launches goes the
// loss over those few columns; all of them are less the row's largest logit, so that a common offset costs no
// digits. Launches: src/cuda/loss/class_subset/bucket.rs.
#pragma once
#include "loss/logits.cuh"
#include "core/block_sum.cuh"
#include "core/reduce.cuh"

// The rest, and the largest of what is listed.
struct RestState {
  static constexpr int WORDS = Lse::WORDS + 1;
  Lse rest;
  float listed;

  static WL_FN RestState empty() { return {Lse::empty(), -wl_inf()}; }
  WL_FN void merge(const RestState& other, float k) {
    rest.merge(other.rest, k);
    listed = wl_max(listed, other.listed);
  }
};

// What a row's block goes by.
struct RestRow {
  const wl_i64* listed;
  float *x, *z, *probabilities, *sums;
  wl_i64 last;  // the rest's column
  bool capped, all;  // all: nothing is beside the list
  float z_unit, k;

  WL_FN explicit RestRow(const RestArgs& a) {
    const wl_i64 row = wl_block();
    listed = a.listed + row * a.stride, x = a.x + row * a.x_stride, z = a.z + row * a.stride;
    probabilities = a.probabilities + row * a.stride, sums = a.sums + 2 * row;
    last = a.columns - 1;
    all = last >= a.classes && (a.classes == 0 || wl_ld(listed + a.classes - 1) >= 0);
    capped = a.logits.cap > 0.f;
    z_unit = capped ? 1.f : a.logits.scale, k = z_unit * WL_LOG2E;
  }
};

// Of listed classes the logits, which are -inf among all others then; the rest; what the list leaves of 1.
WL_FN void rest_sums_body(const RestArgs& a) {
  WL_SMEM(float, slots, 32 * RestState::WORDS);
  WL_SMEM(double, masses, 32);
  const RestRow row(a);
  RestState s = RestState::empty();
  double mass = 0.;
  for (wl_i64 j = wl_thread(); j < row.last; j += wl_threads()) {
    const wl_i64 id = wl_ld(row.listed + j);
    float key = -wl_inf();
    if (id >= 0) {
      const float x = wl_ld(row.x + id);
      const Capped z(x, a.logits);
      key = row.capped ? z.key : x;
      if (a.slopes) wl_st(a.slopes + wl_block() * a.stride + j, a.logits.scale * z.slope);
      wl_st(row.x + id, -wl_inf());
      mass += (double)wl_ld(row.probabilities + j);
    }
    wl_st(row.z + j, key);
    s.listed = wl_max(s.listed, key);
  }
  wl_syncthreads();  // what is listed is gone
  for (wl_i64 c = wl_thread(); c < a.classes; c += 4 * (wl_i64)wl_threads()) {
    float key[4];
    WL_UNROLL for (int e = 0; e < 4; e++) {
      const wl_i64 at = c + e * (wl_i64)wl_threads();
      key[e] = at < a.classes ? wl_ld(row.x + at) : -wl_inf();
    }
    if (row.capped) cap_logits(key, a.logits);
    s.rest.push(key, row.k);
  }
  s = reduce_block(s, row.k, slots);
  const float largest = wl_max(s.rest.max, s.listed), shift = wl_abs(largest) <= WL_FLT_MAX ? largest : 0.f;
  for (wl_i64 j = wl_thread(); j < row.last; j += wl_threads()) wl_st(row.z + j, wl_ld(row.z + j) - shift);
  mass = block_sum(mass, masses);
  if (wl_thread() != 0) return;
  // Of no keys the sum is 0, whose logarithm is -inf.
  const float rest = (reference(s.rest.max) - shift) + (float)((double)wl_log(s.rest.sum) / row.z_unit);
  wl_st(row.z + row.last, rest);
  wl_st(row.sums, shift), wl_st(row.sums + 1, rest);
  wl_st(row.probabilities + row.last, row.all || !(mass < 1.) ? 0.f : (float)(1. - mass));
}

// The gradient of those columns, spread over all classes: that of the rest by each one's share of it. Every
// probability has its part in what is left of 1.
WL_FN void rest_spread_body(const RestArgs& a) {
  const RestRow row(a);
  const float shift = wl_ld(row.sums), rest = wl_ld(row.sums + 1);
  if (wl_thread() == 0 && a.lse) {
    float* const lse = a.lse + wl_block();
    wl_st(lse, (float)((double)row.z_unit * shift + wl_ld(lse)));
  }
  if (a.of_probabilities) {
    float* const to = a.of_probabilities + wl_block() * a.stride;
    const float of_rest = wl_ld(row.probabilities + row.last) > 0.f ? wl_ld(to + row.last) : 0.f;
    for (wl_i64 j = wl_thread(); j < row.last; j += wl_threads()) wl_st(to + j, wl_ld(to + j) - of_rest);
  }
  if (!a.z) return;
  const float of_rest = wl_ld(row.z + row.last);
  for (wl_i64 c = wl_thread(); c < a.classes; c += 4 * (wl_i64)wl_threads()) {
    float key[4], slope[4] = {1.f, 1.f, 1.f, 1.f};
    WL_UNROLL for (int e = 0; e < 4; e++) {
      const wl_i64 at = c + e * (wl_i64)wl_threads();
      key[e] = at < a.classes ? wl_ld(row.x + at) : -wl_inf();
    }
    if (row.capped) cap_logits<true>(key, a.logits, slope);
    WL_UNROLL for (int e = 0; e < 4; e++) {
      const wl_i64 at = c + e * (wl_i64)wl_threads();
      if (at >= a.classes) continue;
      const float share = rest == -wl_inf() ? 0.f : wl_ex2(((key[e] - shift) - rest) * row.k);
      wl_st(row.x + at, of_rest * share * slope[e]);
    }
  }
  wl_syncthreads();  // what is listed has a number, which is not its own
  for (wl_i64 j = wl_thread(); j < row.last; j += wl_threads()) {
    const wl_i64 id = wl_ld(row.listed + j);
    if (id < 0) continue;
    const float slope = a.slopes ? wl_ld(a.slopes + wl_block() * a.stride + j) : 1.f;
    wl_st(row.x + id, wl_ld(row.z + j) * slope);
  }
}
