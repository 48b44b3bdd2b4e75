// Logits that lack a bias: a number a column, f32 as they are, and the same for all rows. It is added where they are
// read, so that nobody goes over them for it alone.
#pragma once
#include "schedule/functor.cuh"

template <class Op>
struct Biased : Op {
  typedef typename Op::State State;
  static constexpr bool BESIDE = true;
  const float* bias;

  struct Row : Op::Row {
    float of_target;  // the target's bias
  };

  WL_FN Biased(const typename Op::Args& a) : Op(a), bias(a.bias) {}
  WL_FN MatrixRows beside() const { return {bias, 0}; }

  template <class Logit>
  WL_FN Row begin(wl_i64 index, Logit logit) const {
    Row row = {};
    float x = 0.f, of_target = 0.f;
    static_cast<typename Op::Row&>(row) = Op::begin(index, [&](wl_i64 target) {
      of_target = wl_ld(bias + target);
      x = logit(target);
      return x + of_target;
    });
    row.of_target = of_target;
    // As it lies in memory: where that is saved it comes back as a logit.
    if constexpr (Op::TARGET) row.x_t = x;
    return row;
  }
  WL_FN void set_target(Row& row, float x) const { Op::set_target(row, x + row.of_target); }

  template <int n, class Columns>
  WL_FN void push(State& s, const Row& row, float (&x)[n], const float (&b)[n], const Columns& columns) const {
    WL_UNROLL for (int e = 0; e < n; e++) x[e] += b[e];
    Op::push(s, row, x, columns);
  }
  template <int n, class Columns>
  WL_FN void gradient(const Row& row, float (&x)[n], const float (&b)[n], const Columns& columns, float (&out)[n]) const {
    WL_UNROLL for (int e = 0; e < n; e++) x[e] += b[e];
    Op::gradient(row, x, columns, out);
  }
};
