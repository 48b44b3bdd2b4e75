// Log-sum-exp of rows, and its gradient from the input.
//
//   lse[n]  = ln sum_v exp(x[n,v])
//   dx[n,v] = g[n] * exp(x[n,v] - lse[n])
//
// x, dx [rows, classes], row strides in elements; lse [rows] f32. By IEEE rules: all -inf gives
// -inf and a gradient of NaN; +inf beside no NaN gives +inf, NaN there and 0 at finite entries.
// Launches: src/cuda/loss/logsumexp.rs.
#pragma once
#include "schedule/row.cuh"

struct LogSumExp {
  typedef LogSumExpArgs Args;
  typedef Lse State;
  static constexpr bool TARGET = false;
  struct Row {
    bool kept;
    wl_i64 index;
    float max, sum, prob;
  };
  static constexpr float k = WL_LOG2E;
  const Args& a;

  WL_FN LogSumExp(const Args& a) : a(a) {}
  template <class Logit>
  WL_FN Row begin(wl_i64 index, Logit) const { return {true, index, 0.f, 0.f, 0.f}; }

  template <int n, class Columns>
  WL_FN void push(Lse& s, const Row&, float (&x)[n], const Columns&) const {
    s.push(x, k);
  }
  WL_FN void finish(const Lse& s, Row& row) const {
    row.max = s.max;
    row.sum = s.sum;
    const float g = upstream_of(a.upstream, row.index);
    // At +inf the sum is no divisor: finite entries have probability 0, +inf itself NaN.
    row.prob = s.sum == wl_inf() ? g : g / s.sum;
  }
  WL_FN void write(const Row& row) const {
    if (a.lse) wl_st(a.lse + row.index, row.max + wl_log(row.sum));
  }
  template <int n, class Columns>
  WL_FN void gradient(const Row& row, float (&x)[n], const Columns&, float (&out)[n]) const {
    WL_UNROLL for (int e = 0; e < n; e++) out[e] = wl_ex2((x[e] - row.max) * k) * row.prob;
  }
};
