// A loss that also names its row's k likeliest classes and their log-probabilities, in the order of ranks
// (ranked.cuh): the larger logit first, NaN before every number, of equals the lower column.
//
// While the row is summed each thread keeps its largest logit alone. Of as many threads as there are, the k
// largest of those are k logits of the row, and so no less than the k-th is; whatever is above goes through a sorted
// list in the second visit, which on chip costs no memory. Few do.
#pragma once
#include "loss/ranked.cuh"

#define WL_MOST_TOP 16  // MOST_LISTED in src/code/args/rows.rs; of more, loss/top_classes.cu has them

// Makes a sorted list of one that rises to some place and falls from there, by `order(i, j)` for i < j.
template <class Order>
WL_FN void sort_bitonic(Order order) {
  WL_UNROLL for (int step = WL_MOST_TOP / 2; step > 0; step /= 2) {
    WL_UNROLL for (int i = 0; i < WL_MOST_TOP; i++) {
      if (!(i & step)) order(i, i + step);
    }
  }
}

// The largest logits so far, sorted.
struct TopList {
  static constexpr int WORDS = 2 * WL_MOST_TOP;
  float value[WL_MOST_TOP];
  wl_u32 column[WL_MOST_TOP];

  static WL_FN TopList empty() {
    TopList list;
    WL_UNROLL for (int i = 0; i < WL_MOST_TOP; i++) list.value[i] = -wl_inf(), list.column[i] = WL_NO_COLUMN;
    return list;
  }

  WL_FN void offer(float x, wl_u32 c) {
    WL_UNROLL for (int i = 0; i < WL_MOST_TOP; i++) {
      if (!beats(x, c, value[i], column[i])) continue;
      const float v = value[i];
      const wl_u32 at = column[i];
      value[i] = x, column[i] = c;
      x = v, c = at;
    }
  }

  // Of an entry and another list's, the one that is ahead; of all, each against the other's last, then last but
  // one, the longest list that there is of both.
  WL_FN void take(int i, float other, wl_u32 at) {
    if (beats(other, at, value[i], column[i])) value[i] = other, column[i] = at;
  }

  WL_FN void merge(const TopList& other, float) {
    WL_UNROLL for (int i = 0; i < WL_MOST_TOP; i++) {
      take(i, other.value[WL_MOST_TOP - 1 - i], other.column[WL_MOST_TOP - 1 - i]);
    }
    sort();
  }

 private:
  WL_FN void sort() {
    sort_bitonic([&](int i, int j) {
      if (!beats(value[j], column[j], value[i], column[i])) return;
      const float v = value[i];
      const wl_u32 c = column[i];
      value[i] = value[j], column[i] = column[j];
      value[j] = v, column[j] = c;
    });
  }
};

template <class Op>
struct Top : Op {
  typedef TopList Second;
  struct State {
    static constexpr int WORDS = Op::State::WORDS + WL_MOST_TOP;
    typename Op::State inner;
    float largest[WL_MOST_TOP];  // of different columns each, sorted; a thread's is the first

    static WL_FN State empty() {
      State s;
      s.inner = Op::State::empty();
      WL_UNROLL for (int i = 0; i < WL_MOST_TOP; i++) s.largest[i] = -wl_inf();
      return s;
    }
    WL_FN void merge(const State& other, float k) {
      inner.merge(other.inner, k);
      WL_UNROLL for (int i = 0; i < WL_MOST_TOP; i++) {
        largest[i] = wl_max(largest[i], other.largest[WL_MOST_TOP - 1 - i]);
      }
      sort_bitonic([&](int i, int j) {
        const float low = wl_min(largest[i], largest[j]);
        largest[i] = wl_max(largest[i], largest[j]), largest[j] = low;
      });
    }
  };

  struct Row : Op::Row {
    float floor;  // no more than the k-th largest
    TopList top;
  };

  WL_FN Top(const typename Op::Args& a) : Op(a) {}

  template <class Logit>
  WL_FN Row begin(wl_i64 index, Logit logit) const {
    Row row = {};
    static_cast<typename Op::Row&>(row) = Op::begin(index, logit);
    row.floor = wl_inf();
    return row;
  }

  template <int n, class Columns>
  WL_FN void push(State& s, const Row& row, float (&x)[n], const Columns& columns) const {
    s.largest[0] = wl_max(s.largest[0], max_of(x));
    Op::push(s.inner, row, x, columns);
  }

  WL_FN void finish(const State& s, Row& row) const {
    Op::finish(s.inner, row);
    WL_UNROLL for (int i = 0; i < WL_MOST_TOP; i++) {
      if (i + 1u == this->a.tokens.k) row.floor = s.largest[i];
    }
  }

  template <class Pack, class Columns>
  WL_FN void push_second(TopList& list, const Row& row, const Pack& pack, const Columns& columns) const {
    float x[Pack::N];
    pack.widen(x);
    bool any = false;
    WL_UNROLL for (int e = 0; e < Pack::N; e++) any |= !(x[e] < row.floor);
    if (!any) return;
    pack.each([&](int e, float value) {
      if (!(value < row.floor) && columns.holds(e)) list.offer(value, (wl_u32)columns.column(e));
    });
  }

  WL_FN void finish_second(const TopList& list, Row& row) const { row.top = list; }

  WL_FN void write(const Row& row) const {
    Op::write(row);
    const TokenArgs& out = this->a.tokens;
    WL_UNROLL for (int i = 0; i < WL_MOST_TOP; i++) {
      if ((wl_u32)i >= out.k) break;
      const wl_i64 at = row.index * out.k + i;
      wl_st(out.top_classes + at, row.kept ? (wl_i64)row.top.column[i] : -1);
      wl_st(out.top_logprob + at, row.kept ? Op::logprob_of(row, row.top.value[i]) : 0.f);
    }
  }

  // Nothing is written beside a row.
  template <class Columns>
  WL_FN void fill_beside(const Row&, const Columns&) const {}
};
