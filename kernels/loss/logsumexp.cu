// Log-sum-exp of rows, and its gradient from the input.
//
//   lse[n]  = ln sum_v exp(x[n,v])
//   dx[n,v] = g[n] * exp(x[n,v] - lse[n])
//
// x, dx [rows, classes], row strides in elements; lse [rows] f32. By IEEE rules: all -inf gives
// -inf and a gradient of NaN; +inf beside no NaN gives +inf, NaN there and 0 at finite entries.
// Launches: src/cuda/logsumexp.rs.
#pragma once
#include "schedule/row.cuh"

template <class T>
struct LogSumExp {
  typedef T In;
  typedef T Out;
  typedef Lse State;
  static constexpr bool TARGET = false;
  static constexpr int LANES = Dtype<T>::LANES;
  struct Row {
    bool kept;
    wl_i64 index;
    float max, sum, prob;
  };
  static constexpr float k = WL_LOG2E;
  const RowArgs& a;

  WL_FN LogSumExp(const RowArgs& a) : a(a) {}
  WL_FN Row begin(wl_i64 index, const float*) const { return {true, index, 0.f, 0.f, 0.f}; }
  WL_FN bool coarse(wl_i64) const { return true; }

  template <int n>
  WL_FN void push(Lse& s, const Row&, const wl_u32x4 (&v)[n], const Packs<T>&, wl_u32, wl_u32) const {
    WL_UNROLL for (int i = 0; i < n; i++) {
      float x[LANES];
      Dtype<T>::template widen<0>(v[i], x);
      s.push(x, k);
    }
  }
  WL_FN void finish(const Lse& s, Row& row) const {
    row.max = s.max;
    row.sum = s.sum;
    const float g = a.upstream ? load_float(a.upstream, a.upstream_kind, row.index * a.upstream_stride) : a.number;
    // At +inf the sum is no divisor: finite entries have probability 0, +inf itself NaN.
    row.prob = s.sum == wl_inf() ? g : g / s.sum;
  }
  WL_FN void write(const Row& row) const {
    if (a.lse) wl_st(a.lse + row.index, row.max + wl_log(row.sum));
  }
  WL_FN void gradient(const Row& row, const Packs<T>&, wl_u32x4 v, wl_u32, float (&out)[LANES]) const {
    float x[LANES];
    Dtype<T>::template widen<0>(v, x);
    WL_UNROLL for (int e = 0; e < LANES; e++) out[e] = wl_ex2((x[e] - row.max) * k) * row.prob;
  }
};
