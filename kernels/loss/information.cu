// Sums over rows of probabilities: entropy, cross entropy, Kullback-Leibler divergence.
//
//   H(p)     = -sum_v p ln p
//   H(p, q)  = -sum_v p ln q
//   KL(p, q) =  sum_v p (ln p - ln q)
//
// x holds p, the target q (p itself for the entropy), [rows, classes], row strides in elements; the
// results [rows] f32, in `loss`. A p of 0 silences its term; p > 0 = q gives +inf.
// Traffic: 2 * rows * classes * size (the entropy's second read comes from cache).
// Launches: src/cuda/loss/information.rs.
#pragma once
#include "core/logarithm.cuh"
#include "schedule/row.cuh"

// A sum.
struct Information {
  static constexpr int WORDS = 1;
  float sum;
  static WL_FN Information empty() { return {0.f}; }
  WL_FN void merge(const Information& other, float) { sum += other.sum; }
};

// NARROW: the tensors have 16 bits, so that what is good to 2^-16 will do.
template <bool NARROW>
struct InformationOf {
  typedef InformationArgs Args;
  typedef Information State;
  static constexpr bool TARGET = false;
  static constexpr bool BESIDE = true;
  static constexpr int TOGETHER = 1;
  struct Row {
    bool kept;
    wl_i64 index;
    float sum;
  };
  static constexpr float k = 1.f;
  const Args& a;

  WL_FN InformationOf(const Args& a) : a(a) {}
  WL_FN MatrixRows beside() const { return {a.target.values, a.target.stride}; }
  template <class Logit>
  WL_FN Row begin(wl_i64 index, Logit) const { return {true, index, 0.f}; }

  WL_FN float term(float p, float q) const {
    const float of_p = a.of_p == 0.f ? 0.f : a.of_p * ln_plus(p, 0.f, NARROW);
    const float of_q = a.of_q == 0.f ? 0.f : a.of_q * ln_plus(q, 0.f, NARROW);
    return p == 0.f ? 0.f : p * (of_p + of_q);
  }

  template <int n, class Columns>
  WL_FN void push(State& s, const Row&, float (&p)[n], const float (&q)[n], const Columns& columns) const {
    if (!columns.whole()) {
      WL_UNROLL for (int e = 0; e < n; e++) p[e] = columns.holds(e) ? p[e] : 0.f;
    }
    float sum = 0.f;
    WL_UNROLL for (int e = 0; e < n; e++) sum += term(p[e], q[e]);
    s.sum += sum;
  }
  WL_FN void finish(const State& s, Row& row) const { row.sum = s.sum; }
  WL_FN void write(const Row& row) const { wl_st(a.loss + row.index, row.sum); }
  // Nobody asks for it.
  template <int n, class Columns>
  WL_FN void gradient(const Row&, float (&)[n], const float (&)[n], const Columns&, float (&)[n]) const {}
};
