// A loss that also says how its target stands among the classes: the class that beats all others,
// and how many beat the target.
//
// Classes are ordered by their logit as given; NaN is larger than every number, and of equals the
// lower column beats the higher. So equals beat the target on its left and never on its right: a
// pack on the left counts what is not below the target, one on the right what is above it. Both
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

template <class Op>
struct Ranked : Op {
  typedef typename Op::In T;
  static constexpr int LANES = Op::LANES;

  struct State {
    static constexpr int WORDS = Op::State::WORDS + 3;
    typename Op::State inner;
    float best;             // NaN: the largest there is
    wl_u32 column, beats;

    static WL_FN State empty() { return {Op::State::empty(), -wl_inf(), WL_NO_COLUMN, 0u}; }
    WL_FN void merge(const State& other, float k) {
      inner.merge(other.inner, k);
      beats += other.beats;
      offer(other.best, other.column);
    }
    WL_FN void offer(float value, wl_u32 at) {
      const bool equal = value == best || (wl_isnan(value) && wl_isnan(best));
      const bool better = equal ? at < column : (value > best || wl_isnan(value));
      if (better) best = value, column = at;
    }
  };

  struct Row : Op::Row {
    float left;             // a class on the left beats the target unless it is at most this
    wl_i64 argmax, rank;
  };

  WL_FN Ranked(const RowArgs& a) : Op(a) {}

  WL_FN Row begin(wl_i64 index, const float* saved) const {
    Row row = {};
    static_cast<typename Op::Row&>(row) = Op::begin(index, saved);
    row.left = wl_isnan(row.x_t) ? wl_inf() : next_below(row.x_t);
    row.argmax = row.rank = -1;
    return row;
  }

  template <int n>
  WL_FN void push(State& s, const Row& row, const wl_u32x4 (&v)[n], const Packs<T>& packs, wl_u32 p,
                  wl_u32 step) const {
    Op::push(s.inner, row, v, packs, p, step);
    // The sum has become NaN: one is among the keys so far.
    const bool nan = s.inner.broken();
    WL_UNROLL for (int i = 0; i < n; i++) stand(s, row, v[i], packs, p + i * step, nan);
  }

  WL_FN void finish(State s, Row& row) const {
    Op::finish(s.inner, row);
    row.rank = s.beats;
    // Nobody found: every other class is -inf, and the first class of all is the lowest.
    if (s.column == WL_NO_COLUMN) s.column = 0;
    s.offer(row.x_t, (wl_u32)row.target);
    row.argmax = s.column;
  }

  WL_FN void write(const Row& row) const {
    Op::write(row);
    const RowArgs& a = this->a;
    if (a.argmax) wl_st(a.argmax + row.index, row.argmax);
    if (a.rank) wl_st(a.rank + row.index, row.rank);
  }

 private:
  WL_FN void stand(State& s, const Row& row, wl_u32x4 v, const Packs<T>& packs, wl_u32 p, bool nan) const {
    float x[LANES];
    Dtype<T>::template widen<0>(v, x);
    const wl_u32 target = packs.pack_of(row.target);
    const bool plain = packs.full(p) && p != target;
    if (plain) {
      // On the right of a NaN nothing beats it.
      const float bound = p < target ? row.left : row.x_t;
      wl_u32 beats = 0;
      WL_UNROLL for (int e = 0; e < LANES; e++) beats += !(x[e] <= bound);
      s.beats += p > target && wl_isnan(row.x_t) ? 0u : beats;
    } else {
      const wl_i64 first = packs.column(p);
      WL_UNROLL for (int e = 0; e < LANES; e++) {
        const wl_i64 c = first + e;
        const bool left = c < row.target, right = c > row.target && !wl_isnan(row.x_t);
        const bool beats = (left && !(x[e] <= row.left)) || (right && !(x[e] <= row.x_t));
        s.beats += beats && c >= 0 && c < packs.len;
      }
    }
    // A thread meets full packs from left to right: of equals the first stays. The others may
    // come late. Where all else is -inf nobody is offered.
    const float top = max_of(x);
    if (top > s.best || nan || (top == s.best && top > -wl_inf() && !packs.full(p))) {
      const wl_i64 first = packs.column(p);
      WL_UNROLL for (int e = 0; e < LANES; e++) {
        const wl_i64 c = first + e;
        if ((x[e] == top || wl_isnan(x[e])) && c >= 0 && c < packs.len) s.offer(x[e], (wl_u32)c);
      }
    }
  }
};
