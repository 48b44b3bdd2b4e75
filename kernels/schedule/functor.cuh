// What a loss of rows is: a functor over (logit, column), in vectors whose length is its feeder's
// affair. Here the feeder is packs in memory; kernels/tile has that of products.
//
//   Args              the kernel's argument: a RowOperands `rows`, a RowSchedule `schedule`, and its own
//   State             the mergeable pair; `k` scales its keys
//   Row               what a thread knows of the row, and later what the gradient is made of
//   begin(i, logit)   reads what the row has beside its logits; logit(c) is that of column c
//   row.kept          false: the row is never read, its outputs are 0
//   push(s, row, x, columns)          logits into the state; x is the functor's to change
//   finish(s, row)    the state of the whole row is known
//   write(row)        one thread: the row's numbers
//   gradient(row, x, columns, out)    outputs of logits
//
// and, where it says so:
//
//   TARGET            a column is the row's target, row.target, whose output target_gradient(row) is
//                     written last. A feeder that meets its logit on the way tells it before `finish`:
//                     set_target(row, x), a second time maybe
//   LATE              nobody needs the target's logit before `finish`
//   TOGETHER          packs whose loads go together (4); 1: one after another, as more would only add code
//   AT_ONCE           packs that are loaded together are pushed as one vector: one rescaling for all
//   BESIDE            another tensor is read column by column, whose rows `beside()` says; push and
//                     gradient take what lies beside their logits, y, after x. Where there is no
//                     column it is 0
//   SUMMED            its rows have losses, which may be added up (core/total.cuh)
//   Second            sums that need the whole row's state first: after finish, push_second(s, row,
//                     x, y, columns) for all logits again, or push_second(s, row, pack, columns) where nothing
//                     lies beside them (PackOf), then finish_second(s, row). Without a y in
//                     the arguments no gradient is written; fill_beside(row, columns) writes what a
//                     row that is not kept has besides
//
// Every schedule reads a row in the same packs (packs.cuh), merges by reduce.cuh, and writes each
// pack by the thread that read it: in place needs no more order than that all have read their
// part and the target before anyone writes, which the reduction's barrier gives.
#pragma once
#include "core/args.cuh"
#include "core/lse.cuh"
#include "core/total.cuh"
#include "schedule/columns.cuh"

// A functor over rows of T; what it writes is of U, what it reads beside them of A.
template <class Op, class T, class U = T, class A = T>
struct Over : Op {
  typedef T In;
  typedef U Out;
  typedef A Aside;
  static constexpr int LANES = Dtype<T>::LANES;
  WL_FN explicit Over(const typename Op::Args& a) : Op(a) {}
};

// A row's gradient of a result.
WL_FN float upstream_of(const UpstreamArgs& a, wl_i64 index) {
  return a.values ? load_float(a.values, a.kind, index * a.stride) : a.number;
}

// The other tensor that a functor reads: void where there is none.
template <class Op, class = int>
struct BesideOf {
  typedef void Type;
  static WL_FN const void* row(const Op&, wl_i64) { return nullptr; }
};
template <class Op>
struct BesideOf<Op, decltype((int)Op::BESIDE)> {
  typedef typename Op::Aside Type;
  static WL_FN const Type* row(const Op& op, wl_i64 index) { return op.beside().template row<Type>(index); }
};
template <class Op>
using OpBeside = Beside<typename Op::In, typename BesideOf<Op>::Type>;

// Packs of a thread that are worked on together: the fewer, the larger what lies beside them. A functor
// that takes them one by one has its code once in a loop.
template <class Op, class = int>
struct Together {
  static constexpr int packs = OpBeside<Op>::PACKS > 1 ? 4 / OpBeside<Op>::PACKS : 4;
};
template <class Op>
struct Together<Op, decltype((int)Op::TOGETHER)> {
  static constexpr int packs = Op::TOGETHER;
};
template <class Op>
constexpr bool ONE_BY_ONE = Together<Op>::packs == 1;
template <class Op>
constexpr int WRITTEN = ONE_BY_ONE<Op> ? 1 : 2;
template <class Op, class = int>
struct AtOnce {
  static constexpr bool yes = false;
};
template <class Op>
struct AtOnce<Op, decltype((int)Op::AT_ONCE)> {
  static constexpr bool yes = Op::AT_ONCE;
};
template <class Op, class = int>
struct Summed {
  static constexpr bool yes = false;
};
template <class Op>
struct Summed<Op, decltype((int)Op::SUMMED)> {
  static constexpr bool yes = Op::SUMMED;
};
#define WL_NO_PACK 0xffffffffu

// The losses of a block's rows, where the functor has any.
template <class Op>
struct RowLosses {
  Losses losses;
  WL_FN explicit RowLosses(const typename Op::Args& a) : losses(a.schedule.sum) {}
  // One thread writes a row's numbers.
  WL_FN void write(const Op& op, const typename Op::Row& row, wl_i64 index) {
    op.write(row);
    if constexpr (Summed<Op>::yes) losses.written(index, 1);
  }
  // The whole block, of whose rows from `first` on `n` at the most exist, and are written.
  WL_FN void all_written(const typename Op::Args& a, wl_i64 first, wl_u32 n) {
    if constexpr (Summed<Op>::yes) {
      if (!a.schedule.sum.tickets) return;
      wl_syncthreads();  // they are written
      const wl_i64 left = a.rows.count - first;
      if (wl_thread() == 0) losses.written(first, left < n ? (wl_u32)left : n);
    }
  }
  // The whole block, at its end.
  WL_FN void close() {
    if constexpr (Summed<Op>::yes) losses.close();
  }
};

// What the functor knows of a row; `saved` has the targets' logits where the row itself may be overwritten
// by now, or is null.
template <class Op>
WL_FN typename Op::Row begin_row(const Op& op, const typename Op::Args& a, wl_i64 index, const float* saved) {
  typedef typename Op::In T;
  return op.begin(index, [&](wl_i64 target) {
    return saved ? wl_ld_cg(saved + index) : Dtype<T>::load((const T*)a.rows.x + index * a.rows.x_stride + target);
  });
}

template <class Op, class = int>
struct Late {
  static constexpr bool yes = false;
};
template <class Op>
struct Late<Op, decltype((int)Op::LATE)> {
  static constexpr bool yes = Op::LATE;
};

// A row whose target's logit is on its way while the row is read, where the functor can wait for it: widened
// early, it would be waited for there.
template <class Op>
struct Beginning {
  typename Op::In logit;
  // `at(target)`: where its logit lies.
  template <class At>
  WL_FN typename Op::Row row(const Op& op, wl_i64 index, At at) {
    return op.begin(index, [&](wl_i64 target) {
      logit = wl_ld(at(target));
      return Late<Op>::yes ? 0.f : widened(logit);
    });
  }
  WL_FN typename Op::Row row(const Op& op, const typename Op::Args& a, wl_i64 index) {
    return row(op, index, [&](wl_i64 target) {
      return (const typename Op::In*)a.rows.x + index * a.rows.x_stride + target;
    });
  }
  // Before the row is finished, and before anyone may overwrite it.
  WL_FN void arrive(const Op& op, typename Op::Row& row) const {
    if constexpr (Late<Op>::yes) {
      if (row.kept) op.set_target(row, widened(logit));
    }
  }
  // The same where another block may overwrite it once it has this one's state: by way of shared memory, a place
  // a warp, between which lies a barrier. What is stored has come, and a load alone might still be on its way.
  WL_FN void lay_down(wl_shared<float> logits) const {
    if constexpr (Op::TARGET) {
      if (wl_lane() == 0) logits[wl_warp()] = widened(logit);
    }
  }
  WL_FN void take_up(const Op& op, typename Op::Row& row, wl_shared<float> logits) const {
    if constexpr (Op::TARGET) op.set_target(row, logits[wl_warp()]);
  }
};

// Packs as the functors' vectors, with what lies beside them: b[] beside v[]. An array has one element at
// least.
template <class Op, int packs>
constexpr int BESIDE_PACKS = packs * OpBeside<Op>::PACKS > 0 ? packs * OpBeside<Op>::PACKS : 1;

template <class T, int i, int n, int m>
WL_FN void widen_packs(const wl_u32x4 (&v)[n], float (&x)[m]) {
  if constexpr (i < n) {
    Dtype<T>::template widen<i * Dtype<T>::LANES>(v[i], x);
    widen_packs<T, i + 1>(v, x);
  }
}

template <class Op, int n, int m>
WL_FN void push_vector(const Op& op, typename Op::State& state, const typename Op::Row& row, const wl_u32x4 (&v)[n],
                       const wl_u32x4 (&b)[m], const Packs<typename Op::In>& packs, wl_u32 p, wl_u32 step) {
  typedef typename Op::In T;
  constexpr int N = n * Dtype<T>::LANES;
  const PackColumns<T, n> columns(packs, p, step);
  float x[N];
  widen_packs<T, 0>(v, x);
  if constexpr (OpBeside<Op>::PACKS > 0) {
    float y[N];
    widen_beside<typename Op::Aside, 0>(b, y);
    op.push(state, row, x, y, columns);
  } else {
    op.push(state, row, x, columns);
  }
}

template <class Op, int n, int m>
WL_FN void push_packs(const Op& op, typename Op::State& state, const typename Op::Row& row, const wl_u32x4 (&v)[n],
                      const wl_u32x4 (&b)[m], const Packs<typename Op::In>& packs, wl_u32 p, wl_u32 step) {
  if constexpr (n == 1 || AtOnce<Op>::yes) {
    push_vector(op, state, row, v, b, packs, p, step);
  } else {
    constexpr int B = OpBeside<Op>::PACKS;
    WL_UNROLL for (int i = 0; i < n; i++) {
      const wl_u32x4 one[1] = {v[i]};
      wl_u32x4 by[BESIDE_PACKS<Op, 1>] = {};
      WL_UNROLL for (int k = 0; k < B; k++) by[k] = b[i * B + k];
      push_vector(op, state, row, one, by, packs, p + i * step, 0);
    }
  }
}

// A pack as it came from memory, for who looks at most of them and at the elements of few: widened they would be in
// registers all the while.
template <class T>
struct PackOf {
  static constexpr int N = Dtype<T>::LANES;
  wl_u32x4 v;
  WL_FN void widen(float (&x)[N]) const { Dtype<T>::template widen<0>(v, x); }
  // Calls `one(e, x)` for its elements by one copy of the code: they move down, one by one, to the first.
  template <class One>
  WL_FN void each(One one) const {
    wl_u32x4 left = v;
    WL_UNROLL_N(1) for (int e = 0; e < N; e++) {
      float x[N];
      Dtype<T>::template widen<0>(left, x);
      one(e, x[0]);
      if constexpr (sizeof(T) == 4) {
        left = {left.y, left.z, left.w, 0u};
      } else {
        left = {left.x >> 16 | left.y << 16, left.y >> 16 | left.z << 16, left.z >> 16 | left.w << 16, left.w >> 16};
      }
    }
  }
};

template <class Op>
WL_FN void push_second_of(const Op& op, typename Op::Second& second, const typename Op::Row& row, wl_u32x4 v, wl_u32x4 b,
                          const Packs<typename Op::In>& packs, wl_u32 p) {
  typedef typename Op::In T;
  const PackColumns<T, 1> columns(packs, p, 0);
  if constexpr (OpBeside<Op>::PACKS > 0) {
    float x[Op::LANES], y[Op::LANES];
    Dtype<T>::template widen<0>(v, x);
    Dtype<typename Op::Aside>::template widen<0>(b, y);
    op.push_second(second, row, x, y, columns);
  } else {
    op.push_second(second, row, PackOf<T>{v}, columns);
  }
}

template <class Op, int lanes>
WL_FN void gradient_of(const Op& op, const typename Op::Row& row, const Packs<typename Op::In>& packs, wl_u32x4 v,
                       const wl_u32x4* b, wl_u32 p, float (&out)[lanes]) {
  typedef typename Op::In T;
  const PackColumns<T, 1> columns(packs, p, 0);
  float x[lanes];
  Dtype<T>::template widen<0>(v, x);
  if constexpr (OpBeside<Op>::PACKS > 0) {
    float y[lanes];
    widen_beside<typename Op::Aside, 0>(b, y);
    op.gradient(row, x, y, columns, out);
  } else {
    op.gradient(row, x, columns, out);
  }
}

// Whether a functor has sums that need the whole row's state first.
template <class Op, class = int>
struct SecondOf {
  static constexpr bool SOME = false;
  static constexpr int WORDS = 0;
};
template <class Op>
struct SecondOf<Op, decltype((void)sizeof(typename Op::Second), 0)> {
  static constexpr bool SOME = true;
  static constexpr int WORDS = Op::Second::WORDS;
};
// Words a warp's place in a reduction needs.
template <class Op>
constexpr int WORDS_OF = Op::State::WORDS > SecondOf<Op>::WORDS ? Op::State::WORDS : SecondOf<Op>::WORDS;
