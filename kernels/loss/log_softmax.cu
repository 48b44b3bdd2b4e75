// Log-softmax along rows, and its gradient from the input.
//
//   y[n,v]  = x[n,v] - lse[n]
//   dx[n,v] = g[n,v] - exp(x[n,v] - lse[n]) * sum_v g[n,v]
//
// x, y, g, dx [rows, classes], row strides in elements. A row that is all -inf, or holds +inf or
// NaN, becomes NaN. Traffic: x, g and y once each where a row stays on chip; a split row reads twice.
// Launches: src/cuda/log_softmax.rs.
#pragma once
#include "schedule/row.cuh"

template <class T, class U>
struct LogSoftmax {
  typedef T In;
  typedef U Out;
  typedef Lse State;
  static constexpr bool TARGET = false;
  static constexpr int LANES = Dtype<T>::LANES;
  struct Row {
    bool kept;
    float max, log_sum;
  };
  static constexpr float k = WL_LOG2E;

  WL_FN LogSoftmax(const RowArgs&) {}
  WL_FN Row begin(wl_i64, const float*) const { return {true, 0.f, 0.f}; }
  WL_FN bool coarse(wl_i64) const { return true; }
  WL_FN void write(const Row&) const {}

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
    row.log_sum = wl_abs(s.max) <= WL_FLT_MAX ? wl_log(s.sum) : wl_nan();
  }
  WL_FN void gradient(const Row& row, const Packs<T>&, wl_u32x4 v, wl_u32, float (&out)[LANES]) const {
    float x[LANES];
    Dtype<T>::template widen<0>(v, x);
    WL_UNROLL for (int e = 0; e < LANES; e++) out[e] = (x[e] - row.max) - row.log_sum;
  }
};

// The pair, and the sum of the upstream gradient.
struct LseUpstream {
  static constexpr int WORDS = 3;
  float max, sum, upstream;
  static WL_FN LseUpstream empty() { return {-wl_inf(), 0.f, 0.f}; }
  WL_FN void merge(const LseUpstream& other, float k) {
    Lse pair = {max, sum};
    pair.merge({other.max, other.sum}, k);
    max = pair.max, sum = pair.sum, upstream += other.upstream;
  }
};

template <class T, class A>
struct LogSoftmaxGradient {
  typedef T In;
  typedef T Out;
  typedef A Beside;  // the upstream gradient
  typedef LseUpstream State;
  static constexpr bool TARGET = false;
  static constexpr int LANES = Dtype<T>::LANES;
  static constexpr int PACKS = ::Beside<T, A>::PACKS;
  static constexpr int TOGETHER = 4 / PACKS;
  struct Row {
    bool kept;
    float max, factor;
  };
  static constexpr float k = WL_LOG2E;
  const RowArgs& a;

  WL_FN LogSoftmaxGradient(const RowArgs& a) : a(a) {}
  WL_FN const A* beside(wl_i64 index) const { return (const A*)a.upstream + index * a.upstream_stride; }
  WL_FN Row begin(wl_i64, const float*) const { return {true, 0.f, 0.f}; }
  WL_FN bool coarse(wl_i64) const { return true; }
  WL_FN void write(const Row&) const {}

  template <int n>
  WL_FN void push(LseUpstream& s, const Row&, const wl_u32x4 (&v)[n], const wl_u32x4 (&b)[n * PACKS], const Packs<T>&,
                  wl_u32, wl_u32) const {
    WL_UNROLL for (int i = 0; i < n; i++) {
      float x[LANES], g[LANES];
      Dtype<T>::template widen<0>(v[i], x);
      widen_beside<A, 0>(b + i * PACKS, g);
      Lse pair = {s.max, s.sum};
      pair.push(x, k);
      float part = 0.f;
      WL_UNROLL for (int e = 0; e < LANES; e++) part += g[e];
      s = {pair.max, pair.sum, s.upstream + part};
    }
  }
  WL_FN void finish(const LseUpstream& s, Row& row) const {
    row.max = s.max;
    row.factor = wl_abs(s.max) <= WL_FLT_MAX ? s.upstream / s.sum : wl_nan();
  }
  WL_FN void gradient(const Row& row, const Packs<T>&, wl_u32x4 v, const wl_u32x4* b, wl_u32, float (&out)[LANES]) const {
    float x[LANES], g[LANES];
    Dtype<T>::template widen<0>(v, x);
    widen_beside<A, 0>(b, g);
    WL_UNROLL for (int e = 0; e < LANES; e++) {
      out[e] = wl_fma(-wl_ex2((x[e] - row.max) * k), row.factor, g[e]);
    }
  }
};
