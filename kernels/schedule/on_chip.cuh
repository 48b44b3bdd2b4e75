// A block a row that is read once: streamed, or kept in shared memory, by a block or a cluster of them.
#pragma once
#include "core/reduce.cuh"
#include "schedule/feed.cuh"

// ---- stream: a block a row, read once, nothing written but numbers ----------------------------
template <class Op>
WL_FN void stream_row(const typename Op::Args& a) {
  typedef typename Op::In T;
  WL_SMEM(float, slots, 32 * Op::State::WORDS);
  const wl_i64 index = wl_block();
  const Packs<T> packs(x_row<Op>(a, index), a.rows.classes);
  // On its way before anything is known of the row; of one that does not count it is all that is read.
  if (packs.first + wl_thread() < packs.last) wl_prefetch(packs.at(packs.first + wl_thread()));
  wl_grid_wait();
  const Op op(a);
  Beginning<Op> beginning;
  typename Op::Row row = beginning.row(op, a, index);
  if (row.kept) {
    const Slice<T> slice(packs, 0, packs.count);
    const OpBeside<Op> beside(BesideOf<Op>::row(op, index), packs);
    const typename Op::State state = stream_sum(op, row, packs, slice, beside);
    beginning.arrive(op, row);
    op.finish(reduce_block(state, op.k, slots), row);
  }
  RowLosses<Op> losses(a);
  if (wl_thread() == 0) losses.write(op, row, index);
  losses.close();
}

// ---- on chip: a block, or a cluster of them, keeps the row in shared memory -------------------
template <class Op, bool cluster>
WL_FN void on_chip(const typename Op::Args& a, wl_i64 index, wl_u32 rank, RowLosses<Op>& losses) {
  typedef typename Op::In T;
  WL_SMEM(float, slots, 32 * WORDS_OF<Op>);
  typedef Exchange<WORDS_OF<Op>, SecondOf<Op>::SOME ? 2 : 1> Peers;
  WL_SMEM(wl_u64, places, Peers::PLACES);
  WL_SMEM(wl_u64, counts, 2);
  WL_SMEM(float, logits, 32);
  const Peers peers = {places, counts};
  constexpr int LANES = Packs<T>::LANES, B = OpBeside<Op>::PACKS;
  // The slice's packs, then what lies beside them.
  WL_DYNAMIC_SMEM(wl_u32, kept, 0, 4 * (1 + B) * a.schedule.slice);
  const Packs<T> packs(x_row<Op>(a, index), a.rows.classes);
  const Slice<T> slice(packs, rank, a.schedule.slice);
  const auto place = [&](wl_u32 p) { return 4 * (p - slice.from); };
  // A thread's first pack is on its way before anything is known of the row; of one that does not count it is
  // all that is read.
  const wl_u32 first = (slice.from > packs.first ? slice.from : packs.first) + wl_anew(wl_thread());
  if (first < slice.to && first < packs.last) wl_cp_async16(kept, place(first), packs.at(first));
  wl_grid_wait();
  const Op op(a);
  const Sink<T, typename Op::Out> sink(y_row<Op>(a, index), packs);
  Beginning<Op> beginning;
  typename Op::Row row = beginning.row(op, a, index);
  if (!row.kept) {
    wl_cp_async_commit();
    wl_cp_async_wait<0>();  // it may be overwritten now
    if (rank == 0 && wl_thread() == 0) losses.write(op, row, index);
    if constexpr (SecondOf<Op>::SOME) {
      if (!a.rows.y) return;
    }
    return fill(op, row, packs, slice, sink);
  }

  // A thread reads back what it brought itself, so it waits for nobody else here.
  const OpBeside<Op> beside(BesideOf<Op>::row(op, index), packs);
  const auto place_beside = [&](wl_u32 p) { return 4 * (a.schedule.slice + B * (p - slice.from)); };
  const auto bring_beside = [&](wl_u32 p) {
    if constexpr (B > 0) {
      if (beside.aligned) {
        WL_UNROLL for (int i = 0; i < B; i++) {
          wl_cp_async16(kept, place_beside(p) + 4 * i, beside.at(packs, p) + i * beside.STEP);
        }
      } else {
        wl_u32x4 b[B];
        beside.load(packs, p, b);
        WL_UNROLL for (int i = 0; i < B; i++) wl_sts128(kept, place_beside(p) + 4 * i, b[i]);
      }
    }
  };
  const Turn turn(packs, slice.from, slice.to);
  if (turn.p < turn.last) bring_beside(turn.p);
  for (wl_u32 p = turn.p + wl_threads(); p < turn.last; p += wl_threads()) {
    wl_cp_async16(kept, place(p), packs.at(p));
    bring_beside(p);
  }
  wl_cp_async_commit();
  if constexpr (cluster) peers.open();
  wl_cp_async_wait<0>();
  if constexpr (cluster) peers.opened();
  const auto beside_of = [&](wl_u32 p, wl_u32x4* to) {
    WL_UNROLL for (int i = 0; i < B; i++) to[i] = wl_lds128(kept, place_beside(p) + 4 * i);
  };

  typename Op::State state = Op::State::empty();
  each_pack<Together<Op>::packs>(
      packs, slice.from, slice.to,
      [&](auto count, wl_u32 p) {
        constexpr int n = decltype(count)::value;
        wl_u32x4 v[n], b[BESIDE_PACKS<Op, n>];
        WL_UNROLL for (int i = 0; i < n; i++) {
          v[i] = wl_lds128(kept, place(p + i * wl_threads()));
          beside_of(p + i * wl_threads(), b + i * B);
        }
        push_packs(op, state, row, v, b, packs, p, wl_threads());
      },
      [&](wl_u32 p, bool edge) {
        if (edge) {
          wl_u32x4 b[BESIDE_PACKS<Op, 1>];
          beside.load(packs, p, b);
          wl_sts128(kept, place(p), packs.edge(p));
          WL_UNROLL for (int i = 0; i < B; i++) wl_sts128(kept, place_beside(p) + 4 * i, b[i]);
        }
        const wl_u32x4 v[1] = {wl_lds128(kept, place(p))};
        wl_u32x4 b[BESIDE_PACKS<Op, 1>];
        beside_of(p, b);
        push_packs(op, state, row, v, b, packs, p, 0);
      });
  if constexpr (cluster) beginning.lay_down(logits);
  else beginning.arrive(op, row);
  state = reduce_block(state, op.k, slots);
  if (wl_warps() == 1) wl_syncthreads();  // the target was read by all; now it may be overwritten
  if constexpr (cluster) {
    beginning.take_up(op, row, logits);
    state = peers.template reduce<0>(state, op.k);
  }
  op.finish(state, row);
  if constexpr (SecondOf<Op>::SOME) {
    typename Op::Second second = Op::Second::empty();
    each_pack<1>(
        packs, slice.from, slice.to, [](auto, wl_u32) {},
        [&](wl_u32 p, bool) {
          wl_u32x4 b[BESIDE_PACKS<Op, 1>];
          beside_of(p, b);
          push_second_of(op, second, row, wl_lds128(kept, place(p)), b[0], packs, p);
        });
    wl_syncthreads();  // all have read the slots
    second = reduce_block(second, op.k, slots);
    if constexpr (cluster) second = peers.template reduce<1>(second, op.k);
    op.finish_second(second, row);
  }
  if (rank == 0 && wl_thread() == 0) losses.write(op, row, index);
  if constexpr (SecondOf<Op>::SOME) {
    if (!a.rows.y) return;
  }

  const auto write = [&](wl_u32 p, bool edge) {
    float out[LANES];
    wl_u32x4 b[BESIDE_PACKS<Op, 1>];
    beside_of(p, b);
    gradient_of(op, row, packs, wl_lds128(kept, place(p)), b, p, out);
    sink.put(packs.column(p), packs.len, edge, out);
  };
  each_pack<WRITTEN<Op>>(
      packs, slice.from, slice.to,
      [&](auto count, wl_u32 p) {
        WL_UNROLL for (int i = 0; i < decltype(count)::value; i++) write(p + i * wl_threads(), false);
      },
      write);
  write_target(op, row, packs, slice, sink);
}

template <class Op, bool cluster>
WL_FN void on_chip_row(const typename Op::Args& a) {
  const wl_u32 rank = cluster ? wl_cluster_rank() : 0;
  const wl_i64 index = cluster ? wl_block() / wl_cluster_size() : wl_block();
  RowLosses<Op> losses(a);
  on_chip<Op, cluster>(a, index, rank, losses);
  losses.close();
}
