// The schedules: how one row is spread over threads. A loss is a functor that says what to do
// with packs of it:
//
//   In, Out           element types of what is read and written
//   State             the mergeable pair
//   Row               what a thread knows of the row, and later what the gradient is made of
//   begin(i, x_t)     reads the row's target and upstream gradient (x_t: the target's x where
//                     the row itself may be overwritten by now, or null)
//   row.kept          false: the row is never read, its outputs are 0
//   push(s, row, v, packs, p, step)   packs p, p + step, ... into the state; v[] is theirs
//   finish(s, row)    the state of the whole row is known
//   write(row)        one thread: the row's numbers
//   gradient(row, pack, v, p, out)    one pack's outputs
//   target_gradient(row)              the target's output, written last (Op::TARGET)
//
// and, where it says so:
//
//   TOGETHER          packs pushed together (4); 1: one after another, as more would only add code
//   Beside            element type of another tensor read column by column; then beside(i) is its
//                     row, and push and gradient take what lies beside their packs after v
//   Second            sums that need the whole row's state first: after finish, push_second(s, row,
//                     v, b, packs, p) for each pack again, then finish_second(s, row). Without a y
//                     no gradient is written; fill_beside(row, packs, p) writes what a row that is
//                     not kept has besides
//
// Every schedule reads a row in the same packs (dtype.cuh), merges by reduce.cuh, and writes each
// pack by the thread that read it: in place needs no more order than that all have read their
// part and the target before anyone writes, which the reduction's barrier gives.
#pragma once
#include "core/args.cuh"
#include "core/lse.cuh"
#include "core/packs.cuh"

// Packs of a thread that are worked on together. A functor that takes them one by one has its code
// once in a loop.
template <class Op, class = int>
struct Together {
  static constexpr int packs = 4;
};
template <class Op>
struct Together<Op, decltype((int)Op::TOGETHER)> {
  static constexpr int packs = Op::TOGETHER;
};
template <class Op>
constexpr bool ONE_BY_ONE = Together<Op>::packs == 1;
template <class Op>
constexpr int WRITTEN = ONE_BY_ONE<Op> ? 1 : 2;
#define WL_NO_PACK 0xffffffffu

// The other tensor that a functor reads: void where there is none.
template <class Op, class = int>
struct BesideOf {
  typedef void Type;
  static WL_FN const void* row(const Op&, wl_i64) { return nullptr; }
};
template <class Op>
struct BesideOf<Op, decltype((void)sizeof(typename Op::Beside), 0)> {
  typedef typename Op::Beside Type;
  static WL_FN const Type* row(const Op& op, wl_i64 index) { return op.beside(index); }
};
template <class Op>
using OpBeside = Beside<typename Op::In, typename BesideOf<Op>::Type>;

// What the functors are called with, whether or not they read another tensor. b[] holds what lies
// beside v[], and an array has one element at least.
template <class Op, int packs>
constexpr int BESIDE_PACKS = packs * OpBeside<Op>::PACKS > 0 ? packs * OpBeside<Op>::PACKS : 1;
template <class Op, int n, int m>
WL_FN void push_packs(const Op& op, typename Op::State& state, const typename Op::Row& row, const wl_u32x4 (&v)[n],
                      const wl_u32x4 (&b)[m], const Packs<typename Op::In>& packs, wl_u32 p, wl_u32 step) {
  if constexpr (OpBeside<Op>::PACKS > 0) {
    op.push(state, row, v, b, packs, p, step);
  } else {
    op.push(state, row, v, packs, p, step);
  }
}
template <class Op, int lanes>
WL_FN void gradient_of(const Op& op, const typename Op::Row& row, const Packs<typename Op::In>& packs, wl_u32x4 v,
                       const wl_u32x4* b, wl_u32 p, float (&out)[lanes]) {
  if constexpr (OpBeside<Op>::PACKS > 0) {
    op.gradient(row, packs, v, b, p, out);
  } else {
    op.gradient(row, packs, v, p, out);
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
