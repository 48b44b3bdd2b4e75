// A row split over blocks that meet in global memory, launch by launch.
#pragma once
#include "core/reduce.cuh"
#include "schedule/feed.cuh"

// A part's pair, and the target's x before anyone overwrites it.
template <class Op>
WL_FN void sum_part(const typename Op::Args& a, wl_u32 at) {
  typedef typename Op::In T;
  WL_SMEM(float, slots, 32 * Op::State::WORDS);
  const Op op(a);
  const wl_i64 index = at / a.schedule.parts;
  const wl_u32 part = at % a.schedule.parts;
  const typename Op::Row row = begin_row(op, a, index, nullptr);
  if (!row.kept) return;
  if constexpr (Op::TARGET) {
    if (part == 0 && wl_thread() == 0) wl_st(a.schedule.row_target + index, row.x_t);
    if (a.schedule.coarse && !op.coarse(index)) return;
  }
  const Packs<T> packs(x_row<Op>(a, index), a.rows.classes);
  const Slice<T> slice(packs, part, a.schedule.slice);
  const OpBeside<Op> beside(BesideOf<Op>::row(op, index), packs);
  const typename Op::State state = reduce_block(stream_sum(op, row, packs, slice, beside), op.k, slots);
  if (wl_thread() == 0) {
    store_words(a.schedule.partials + (wl_i64)at * Op::State::WORDS, state);
  }
}

// First launch: each part's.
template <class Op>
WL_FN void split_sum(const typename Op::Args& a) {
  wl_grid_wait();
  sum_part<Op>(a, wl_block());
}

// A row's parts, every `step`th from `first` on.
template <class Op>
WL_FN typename Op::State parts_of(const Op& op, const typename Op::Args& a, wl_i64 index, wl_u32 first, wl_u32 step) {
  typename Op::State state = Op::State::empty();
  for (wl_u32 part = first; part < a.schedule.parts; part += step) {
    const float* in = a.schedule.partials + (index * a.schedule.parts + part) * Op::State::WORDS;
    state.merge(load_words<typename Op::State, true>(in), op.k);
  }
  return state;
}

// Where the parts' second sums lie: behind all parts' states.
template <class Op>
WL_FN float* second_parts(const typename Op::Args& a) {
  return a.schedule.partials + a.rows.count * a.schedule.parts * Op::State::WORDS;
}

// With sums that need the whole state, second launch: each part's.
template <class Op>
WL_FN void split_second(const typename Op::Args& a) {
  typedef typename Op::In T;
  WL_SMEM(float, slots, 32 * WORDS_OF<Op>);
  const Op op(a);
  const wl_i64 index = wl_block() / a.schedule.parts;
  const wl_u32 part = wl_block() % a.schedule.parts;
  typename Op::Row row = begin_row(op, a, index, nullptr);
  if (!row.kept) return;
  const Packs<T> packs(x_row<Op>(a, index), a.rows.classes);
  const Slice<T> slice(packs, part, a.schedule.slice);
  const OpBeside<Op> beside(BesideOf<Op>::row(op, index), packs);
  op.finish(reduce_block(parts_of(op, a, index, wl_thread(), wl_threads()), op.k, slots), row);
  typename Op::Second second = Op::Second::empty();
  stream_packs<Op>(packs, slice, beside, [&](wl_u32 p, bool, const auto& v, const auto& b) {
    push_second_of(op, second, row, v[0], b[0], packs, p);
  });
  wl_syncthreads();  // all have read the slots
  second = reduce_block(second, op.k, slots);
  if (wl_thread() == 0) {
    store_words(second_parts<Op>(a) + (wl_i64)wl_block() * Op::Second::WORDS, second);
  }
}

// A row's second sums, every `step`th part from `first` on.
template <class Op>
WL_FN typename Op::Second second_of(const Op& op, const typename Op::Args& a, wl_i64 index, wl_u32 first, wl_u32 step) {
  typename Op::Second second = Op::Second::empty();
  for (wl_u32 part = first; part < a.schedule.parts; part += step) {
    const float* in = second_parts<Op>(a) + (index * a.schedule.parts + part) * Op::Second::WORDS;
    second.merge(load_words<typename Op::Second>(in), op.k);
  }
  return second;
}

template <class Op>
WL_FN void finish_warp(const typename Op::Args& a, wl_i64 index) {
  const Op op(a);
  if (index >= a.rows.count) return;
  typename Op::Row row = begin_row(op, a, index, a.schedule.row_target);
  typename Op::State state = Op::State::empty();
  if (row.kept) state = parts_of(op, a, index, wl_lane(), 32);
  state = reduce_lanes<32>(state, op.k);
  if (row.kept) op.finish(state, row);
  if (wl_lane() == 0) op.write(row);
}

// Forward, second launch: a warp a row.
template <class Op>
WL_FN void split_finish(const typename Op::Args& a) {
  const wl_i64 first = (wl_i64)wl_block() * wl_warps();
  RowLosses<Op> losses(a);
  finish_warp<Op>(a, first + wl_warp());
  losses.all_written(a, first, wl_warps());
  losses.close();
}

template <class Op>
WL_FN void gradient_part(const typename Op::Args& a, wl_i64 index, wl_u32 part, RowLosses<Op>& losses) {
  typedef typename Op::In T;
  WL_SMEM(float, slots, 32 * WORDS_OF<Op>);
  const Op op(a);
  const Packs<T> packs(x_row<Op>(a, index), a.rows.classes);
  const Slice<T> slice(packs, part, a.schedule.slice);
  const Sink<T, typename Op::Out> sink(y_row<Op>(a, index), packs);
  typename Op::Row row = begin_row(op, a, index, a.schedule.row_target);
  if (row.kept) {
    const typename Op::State state = parts_of(op, a, index, wl_thread(), wl_threads());
    op.finish(reduce_block(state, op.k, slots), row);
    if constexpr (SecondOf<Op>::SOME) {
      wl_syncthreads();  // all have read the slots
      const typename Op::Second second = second_of(op, a, index, wl_thread(), wl_threads());
      op.finish_second(reduce_block(second, op.k, slots), row);
    }
  }
  if (part == 0 && wl_thread() == 0) losses.write(op, row, index);
  if constexpr (SecondOf<Op>::SOME) {
    if (!a.rows.y) return;
  }
  if (!row.kept) return fill(op, row, packs, slice, sink);
  const OpBeside<Op> beside(BesideOf<Op>::row(op, index), packs);
  write_packs<Op>(packs, slice, beside, [&](wl_u32 p, bool edge, wl_u32x4 v, const wl_u32x4* b) {
    float out[Packs<T>::LANES];
    gradient_of(op, row, packs, v, b, p, out);
    sink.put(packs.column(p), packs.len, edge, out);
  });
  write_target(op, row, packs, slice, sink);
}

// With a gradient, second launch: each part again.
template <class Op>
WL_FN void split_gradient(const typename Op::Args& a) {
  const wl_i64 index = wl_block() / a.schedule.parts;
  const wl_u32 part = wl_block() % a.schedule.parts;
  RowLosses<Op> losses(a);
  gradient_part<Op>(a, index, part, losses);
  losses.close();
}

// Both visits in one launch, a block for either of a part: which it is for, its turn says. First come `lead` parts
// to be summed, then by turns one to be written and one to be summed. So a part is written soon after it was
// summed, while L2 still has it. Before, all parts of its row have to be summed: those took their turns earlier, so
// that their blocks are running or done, and wait for nobody (`lead` is no less than a row's parts).
template <class Op>
WL_FN void split_twice(const typename Op::Args& a) {
  WL_SMEM(wl_u32, taken, 4);
  wl_grid_wait();
  RowLosses<Op> losses(a);
  const wl_u32 parts = (wl_u32)a.rows.count * a.schedule.parts;
  const wl_u32 lead = a.schedule.lead < parts ? a.schedule.lead : parts;
  if (wl_thread() == 0) taken[0] = wl_atomic_add(a.schedule.turns, 1u);
  wl_syncthreads();
  const wl_u32 turn = taken[0], later = turn - lead, mixed = 2 * (parts - lead);
  const bool sums = turn < lead || (later < mixed && later % 2 == 1);
  if (sums) {
    const wl_u32 at = turn < lead ? turn : lead + later / 2;
    sum_part<Op>(a, at);
    // Of a row that does not count, too. Thread 0 has written what the others wait for.
    if (wl_thread() == 0) wl_ticket(a.schedule.turns + 1 + at / a.schedule.parts, 1);
    return;
  }
  const wl_u32 at = later < mixed ? later / 2 : later - mixed / 2, index = at / a.schedule.parts;
  if (wl_thread() == 0) {
    while (wl_ld_acquire(a.schedule.turns + 1 + index) < a.schedule.parts) wl_pause();
  }
  wl_syncthreads();
  gradient_part<Op>(a, index, at % a.schedule.parts, losses);
  losses.close();
}
