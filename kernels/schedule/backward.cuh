// Split rows, gradient from a saved lse: the schedule of losses whose gradient is made of
// exponentials and of the target's own. Beside what functor.cuh asks of a functor, it takes
//
//   coarse(i)             whether the saved lse cannot serve row i, which is summed again then
//   z_unit                z of a key of 1
//   factors(row, lse)     what the gradient is made of, once max and total are known
//   terms<SUM>(row, x, columns, out, sum)   outputs of logits, and the sum of their exponentials
//                         without the target's
//
// and of its Row: max, total, rest, at_target, key_t.
#pragma once
#include "schedule/row.cuh"

// A float that adds up.
struct Total {
  static constexpr int WORDS = 1;
  float sum;
  static WL_FN Total empty() { return {0.f}; }
  WL_FN void merge(const Total& other, float) { sum += other.sum; }
};

// The row as a saved lse, or else the parts' pairs, have it; `fine` says which.
template <class Op>
WL_FN void from_lse(const Op& op, const typename Op::Args& a, typename Op::Row& row) {
  const float lse = wl_ld(a.out.lse + row.index);
  row.max = lse / op.z_unit;
  row.total = 1.f;
  op.factors(row, lse);
}

// One read. Each part leaves the sum of its exponentials.
template <class Op>
WL_FN void split_backward(const typename Op::Args& a) {
  typedef typename Op::In T;
  WL_SMEM(float, slots, 32 * Op::State::WORDS);
  WL_SMEM(float, sums, 32);
  const Op op(a);
  const wl_i64 index = wl_block() / a.schedule.parts;
  const wl_u32 part = wl_block() % a.schedule.parts;
  const Packs<T> packs(x_row<Op>(a, index), a.rows.classes);
  const Slice<T> slice(packs, part, a.schedule.slice);
  const Sink<T, typename Op::Out> sink(y_row<Op>(a, index), packs);
  typename Op::Row row = begin_row(op, a, index, a.schedule.row_target);
  if (!row.kept) return fill(op, row, packs, slice, sink);
  if (op.coarse(index)) {
    const typename Op::State state = parts_of(op, a, index, wl_thread(), wl_threads());
    op.finish(reduce_block(state, op.k, slots), row);
  } else {
    from_lse(op, a, row);
  }
  Total total = Total::empty();
  const OpBeside<Op> nothing(nullptr, packs);
  write_packs<Op>(packs, slice, nothing, [&](wl_u32 p, bool edge, wl_u32x4 v, const wl_u32x4*) {
    float x[Op::LANES], out[Op::LANES];
    Dtype<T>::template widen<0>(v, x);
    op.template terms<true>(row, x, PackColumns<T, 1>(packs, p, 0), out, total.sum);
    sink.put(packs.column(p), packs.len, edge, out);
  });
  total = reduce_block(total, op.k, sums);
  if (wl_thread() == 0) {
    wl_st(a.schedule.partials + a.rows.count * a.schedule.parts * Op::State::WORDS + wl_block(), total.sum);
  }
}

// The target's element, which needs them all: a warp a row.
template <class Op>
WL_FN void split_target(const typename Op::Args& a) {
  const Op op(a);
  const wl_i64 index = (wl_i64)wl_block() * wl_warps() + wl_warp();
  if (index >= a.rows.count) return;
  typename Op::Row row = begin_row(op, a, index, a.schedule.row_target);
  if (!row.kept) return;  // the whole warp: it has one row
  if (op.coarse(index)) {
    op.finish(reduce_lanes<32>(parts_of(op, a, index, wl_lane(), 32), op.k), row);
  } else {
    from_lse(op, a, row);
    const float* rests = a.schedule.partials + a.rows.count * a.schedule.parts * Op::State::WORDS + index * a.schedule.parts;
    Total rest = Total::empty();
    for (wl_u32 part = wl_lane(); part < a.schedule.parts; part += 32) rest.sum += wl_ld(rests + part);
    rest = reduce_lanes<32>(rest, op.k);
    row.rest = rest.sum;
    row.at_target = wl_ex2((row.key_t - row.max) * op.k);
    row.total = row.rest + row.at_target;
  }
  if (wl_lane() == 0) {
    typedef typename Op::Out U;
    Dtype<U>::store(y_row<Op>(a, index) + row.target, op.target_gradient(row));
  }
}
