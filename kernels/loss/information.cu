// Sums over rows of probabilities: entropy, cross entropy, Kullback-Leibler divergence.
//
//   H(p)     = -sum_v p ln p
//   H(p, q)  = -sum_v p ln q
//   KL(p, q) =  sum_v p (ln p - ln q)
//
// x holds p, the target q (p itself for the entropy), [rows, classes], row strides in elements; the
// results [rows] f32, in `loss`. A p of 0 silences its term; p > 0 = q gives +inf.
// Traffic: 2 * rows * classes * size (the entropy's second read comes from cache).
// Launches: src/cuda/information.rs.
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

template <class T>
struct InformationOf {
  typedef T In;
  typedef T Out;
  typedef T Beside;
  typedef Information State;
  static constexpr bool TARGET = false;
  static constexpr int TOGETHER = 1;
  static constexpr int LANES = Dtype<T>::LANES;
  static constexpr bool NARROW = sizeof(T) == 2;
  struct Row {
    bool kept;
    wl_i64 index;
    float sum;
  };
  static constexpr float k = 1.f;
  const RowArgs& a;

  WL_FN InformationOf(const RowArgs& a) : a(a) {}
  WL_FN const T* beside(wl_i64 index) const { return (const T*)a.target + index * a.target_stride; }
  WL_FN Row begin(wl_i64 index, const float*) const { return {true, index, 0.f}; }
  WL_FN bool coarse(wl_i64) const { return true; }

  // `soft` is the weight of ln p in a term, `hard` that of ln q.
  WL_FN float term(float p, float q) const {
    const float of_p = a.soft == 0.f ? 0.f : a.soft * ln_plus(p, 0.f, NARROW);
    const float of_q = a.hard == 0.f ? 0.f : a.hard * ln_plus(q, 0.f, NARROW);
    return p == 0.f ? 0.f : p * (of_p + of_q);
  }

  template <int n>
  WL_FN void push(State& s, const Row&, const wl_u32x4 (&v)[n], const wl_u32x4 (&b)[n], const Packs<T>& packs,
                  wl_u32 first, wl_u32 step) const {
    WL_UNROLL for (int i = 0; i < n; i++) {
      float p[LANES], q[LANES];
      Dtype<T>::template widen<0>(v[i], p);
      Dtype<T>::template widen<0>(b[i], q);
      const wl_u32 at = first + i * step;
      if (!packs.full(at)) {
        const wl_i64 c = packs.column(at);
        WL_UNROLL for (int e = 0; e < LANES; e++) p[e] = c + e >= 0 && c + e < packs.len ? p[e] : 0.f;
      }
      float sum = 0.f;
      WL_UNROLL for (int e = 0; e < LANES; e++) sum += term(p[e], q[e]);
      s.sum += sum;
    }
  }
  WL_FN void finish(const State& s, Row& row) const { row.sum = s.sum; }
  WL_FN void write(const Row& row) const { wl_st(a.loss + row.index, row.sum); }
  // Nobody asks for it.
  WL_FN void gradient(const Row&, const Packs<T>&, wl_u32x4, const wl_u32x4*, wl_u32, float (&)[LANES]) const {}
};
