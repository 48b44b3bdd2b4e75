// Log-softmax along rows, and its gradient from the input.
//
//   y[n,v]  = x[n,v] - lse[n]
//   dx[n,v] = g[n,v] - exp(x[n,v] - lse[n]) * sum_v g[n,v]
//
// x, y, g, dx [rows, classes], row strides in elements. A row that is all -inf, or holds +inf or
// NaN, becomes NaN. Traffic: x, g and y once each where a row stays on chip; a split row reads twice.
// Launches: src/cuda/loss/log_softmax.rs.
#pragma once
#include "schedule/row.cuh"
#include "loss/biased.cuh"

struct LogSoftmax {
  typedef LogSoftmaxArgs Args;
  typedef Lse State;
  static constexpr bool TARGET = false;
  struct Row {
    bool kept;
    float max, log_sum;
  };
  static constexpr float k = WL_LOG2E;

  WL_FN LogSoftmax(const Args&) {}
  template <class Logit>
  WL_FN Row begin(wl_i64, Logit) const { return {true, 0.f, 0.f}; }
  WL_FN void write(const Row&) const {}

  template <int n, class Columns>
  WL_FN void push(Lse& s, const Row&, float (&x)[n], const Columns&) const {
    s.push(x, k);
  }
  WL_FN void finish(const Lse& s, Row& row) const {
    row.max = s.max;
    row.log_sum = wl_abs(s.max) <= WL_FLT_MAX ? wl_log(s.sum) : wl_nan();
  }
  template <int n, class Columns>
  WL_FN void gradient(const Row& row, float (&x)[n], const Columns&, float (&out)[n]) const {
    WL_UNROLL for (int e = 0; e < n; e++) out[e] = (x[e] - row.max) - row.log_sum;
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

struct LogSoftmaxGradient {
  typedef LogSoftmaxArgs Args;
  typedef LseUpstream State;
  static constexpr bool TARGET = false;
  static constexpr bool BESIDE = true;  // the upstream gradient
  struct Row {
    bool kept;
    float max, factor;
  };
  static constexpr float k = WL_LOG2E;
  const Args& a;

  WL_FN LogSoftmaxGradient(const Args& a) : a(a) {}
  WL_FN MatrixRows beside() const { return {a.upstream.values, a.upstream.stride}; }
  template <class Logit>
  WL_FN Row begin(wl_i64, Logit) const { return {true, 0.f, 0.f}; }
  WL_FN void write(const Row&) const {}

  template <int n, class Columns>
  WL_FN void push(LseUpstream& s, const Row&, float (&x)[n], const float (&g)[n], const Columns&) const {
    Lse pair = {s.max, s.sum};
    pair.push(x, k);
    float part = 0.f;
    WL_UNROLL for (int e = 0; e < n; e++) part += g[e];
    s = {pair.max, pair.sum, s.upstream + part};
  }
  WL_FN void finish(const LseUpstream& s, Row& row) const {
    row.max = s.max;
    row.factor = wl_abs(s.max) <= WL_FLT_MAX ? s.upstream / s.sum : wl_nan();
  }
  template <int n, class Columns>
  WL_FN void gradient(const Row& row, float (&x)[n], const float (&g)[n], const Columns&, float (&out)[n]) const {
    WL_UNROLL for (int e = 0; e < n; e++) {
      out[e] = wl_fma(-wl_ex2((x[e] - row.max) * k), row.factor, g[e]);
    }
  }
};
