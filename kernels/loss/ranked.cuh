// A loss that also says how its target stands among the classes: the class that beats all others,
// and how many beat the target.
//
// Classes are ordered by their logit as given; NaN is larger than every number, and of equals the
// lower column beats the higher. So equals beat the target on its left and never on its right: a
// vector on the left counts what is not below the target, one on the right what is above it. Both
// are one comparison an element, "not at most a bound", which a NaN always passes.
#pragma once
#include "loss/target.cuh"

#define WL_NO_COLUMN 0xffffffffu

// The next f32 below x; for -inf a NaN, which nothing is at most.
WL_FN float next_below(float x) {
  if (x == -wl_inf()) return wl_nan();
  const wl_u32 bits = wl_bits(x);
  if (x == 0.f) return wl_f32(0x80000001u);
  return wl_f32(x > 0.f ? bits - 1u : bits + 1u);
}

// Whether logit a of a column beats b of another.
WL_FN bool beats(float a, wl_u32 at, float b, wl_u32 than) {
  const bool equal = a == b || (wl_isnan(a) && wl_isnan(b));
  return equal ? at < than : (a > b || wl_isnan(a));
}

template <class Op>
struct Ranked : Op {
  static constexpr bool LATE = false;
  struct State {
    static constexpr int WORDS = Op::State::WORDS + 3;
    typename Op::State inner;
    float best;             // NaN: the largest there is
    wl_u32 column, rank;

    static WL_FN State empty() { return {Op::State::empty(), -wl_inf(), WL_NO_COLUMN, 0u}; }
    WL_FN void merge(const State& other, float k) {
      inner.merge(other.inner, k);
      rank += other.rank;
      offer(other.best, other.column);
    }
    WL_FN void offer(float value, wl_u32 at) {
      if (beats(value, at, best, column)) best = value, column = at;
    }
  };

  struct Row : Op::Row {
    float left;             // a class on the left beats the target unless it is at most this
    wl_u32 argmax, rank;
  };

  WL_FN Ranked(const typename Op::Args& a) : Op(a) {}

  template <class Logit>
  WL_FN Row begin(wl_i64 index, Logit logit) const {
    Row row = {};
    static_cast<typename Op::Row&>(row) = Op::begin(index, logit);
    row.left = left_of(row.x_t);
    return row;
  }

  WL_FN void set_target(Row& row, float x) const {
    Op::set_target(row, x);
    row.left = left_of(x);
  }

  template <int n, class Columns>
  WL_FN void push(State& s, const Row& row, float (&x)[n], const Columns& columns) const {
    float given[n];
    WL_UNROLL for (int e = 0; e < n; e++) given[e] = x[e];
    Op::push(s.inner, row, x, columns);
    // The sum has become NaN: one is among the keys so far.
    stand(s, row, given, columns, s.inner.broken());
  }

  WL_FN void finish(State s, Row& row) const {
    Op::finish(s.inner, row);
    row.rank = s.rank;
    // Nobody found: every other class is -inf, and the first class of all is the lowest.
    if (s.column == WL_NO_COLUMN) s.column = 0;
    s.offer(row.x_t, (wl_u32)row.target);
    row.argmax = s.column;
  }

  WL_FN void write(const Row& row) const {
    Op::write(row);
    const RankOutputs& a = this->a.ranks;
    if (a.argmax) wl_st(a.argmax + row.index, row.kept ? (wl_i64)row.argmax : -1);
    if (a.rank) wl_st(a.rank + row.index, row.kept ? (wl_i64)row.rank : -1);
  }

 private:
  // What a class on the left of a target has at most, unless it beats it.
  static WL_FN float left_of(float x) { return wl_isnan(x) ? wl_inf() : next_below(x); }

  template <int n, class Columns>
  WL_FN void stand(State& s, const Row& row, const float (&x)[n], const Columns& columns, bool nan) const {
    if (columns.whole() && !columns.has(row.target)) {
      const bool left = columns.before(row.target);
      // On the right of a NaN nothing beats it.
      const float bound = left ? row.left : row.x_t;
      wl_u32 ahead = 0;
      WL_UNROLL for (int e = 0; e < n; e++) ahead += !(x[e] <= bound);
      s.rank += !left && wl_isnan(row.x_t) ? 0u : ahead;
    } else {
      WL_UNROLL for (int e = 0; e < n; e++) {
        const wl_u32 c = (wl_u32)columns.column(e), target = (wl_u32)row.target;
        const bool left = c < target, right = c > target && !wl_isnan(row.x_t);
        const bool ahead = (left && !(x[e] <= row.left)) || (right && !(x[e] <= row.x_t));
        s.rank += ahead && columns.holds(e);
      }
    }
    // A thread meets whole vectors from left to right: of equals the first stays. The others may
    // come late. Where all else is -inf nobody is offered.
    const float top = max_of(x);
    if (top > s.best || nan || (top == s.best && top > -wl_inf() && !columns.whole())) {
      WL_UNROLL for (int e = 0; e < n; e++) {
        if ((x[e] == top || wl_isnan(x[e])) && columns.holds(e)) s.offer(x[e], (wl_u32)columns.column(e));
      }
    }
  }
};
