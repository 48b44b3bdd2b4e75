// A row in the registers of `width` lanes.
#pragma once
#include "core/reduce.cuh"
#include "schedule/feed.cuh"

template <class Op, int width, bool gradient>
WL_FN void lanes(const typename Op::Args& a, wl_i64 first, RowLosses<Op>& losses) {
  typedef typename Op::In T;
  constexpr int N = 4;  // LANE_PACKS in plan.rs
  constexpr int LANES = Packs<T>::LANES;
  const Op op(a);
  const wl_u32 lane = wl_thread() % width;
  const wl_i64 index = first + wl_thread() / width;
  const bool exists = index < a.rows.count;
  const Packs<T> packs(x_row<Op>(a, exists ? index : 0), exists ? a.rows.classes : 0);
  typename Op::Row row;
  row.kept = false;
  Beginning<Op> beginning = {};
  if (exists) row = beginning.row(op, a, index);

  constexpr int B = OpBeside<Op>::PACKS;
  const OpBeside<Op> beside(BesideOf<Op>::row(op, exists ? index : 0), packs);
  wl_u32x4 v[N], b[BESIDE_PACKS<Op, N>];
  WL_UNROLL for (int i = 0; i < N; i++) v[i] = {};
  WL_UNROLL for (int i = 0; i < BESIDE_PACKS<Op, N>; i++) b[i] = {};
  typename Op::State state = Op::State::empty();
  // A row's packs, each with its place in registers; by one copy of the code they take turns there.
  const auto each = [&](auto use) {
    if constexpr (ONE_BY_ONE<Op>) {
      WL_UNROLL_N(1) for (int i = 0; i < N; i++) {
        use(lane + i * width, v[0], b);
        const wl_u32x4 turn = v[0];
        WL_UNROLL for (int k = 1; k < N; k++) v[k - 1] = v[k];
        v[N - 1] = turn;
        WL_UNROLL for (int j = 0; j < B; j++) {
          const wl_u32x4 first = b[0];
          WL_UNROLL for (int k = 1; k < N * B; k++) b[k - 1] = b[k];
          b[N * B - 1] = first;
        }
      }
    } else {
      WL_UNROLL for (int i = 0; i < N; i++) use(lane + i * width, v[i], b + i * B);
    }
  };
  if (row.kept) {
    WL_UNROLL for (int i = 0; i < N; i++) {
      const wl_u32 p = lane + i * width;
      if (packs.full(p)) {
        v[i] = wl_ld128_stream(packs.at(p));
      } else if (p < packs.count) {
        v[i] = packs.edge(p);
      }
      if (p < packs.count) beside.load(packs, p, b + i * B);
    }
    each([&](wl_u32 p, wl_u32x4 pack, const wl_u32x4* beside) {
      if (p >= packs.count) return;
      const wl_u32x4 one[1] = {pack};
      wl_u32x4 by[BESIDE_PACKS<Op, 1>] = {};
      WL_UNROLL for (int k = 0; k < B; k++) by[k] = beside[k];
      push_packs(op, state, row, one, by, packs, p, 0);
    });
  }
  beginning.arrive(op, row);
  state = reduce_lanes<width>(state, op.k);
  if (row.kept) op.finish(state, row);
  if constexpr (SecondOf<Op>::SOME) {
    typename Op::Second second = Op::Second::empty();
    if (row.kept) {
      each([&](wl_u32 p, wl_u32x4 pack, const wl_u32x4* beside) {
        if (p < packs.count) push_second_of(op, second, row, pack, beside[0], packs, p);
      });
    }
    second = reduce_lanes<width>(second, op.k);
    if (row.kept) op.finish_second(second, row);
  }
  if (exists && lane == 0) op.write(row);
  losses.all_written(a, first, wl_threads() / width);
  if constexpr (SecondOf<Op>::SOME) {
    if (!a.rows.y) return;
  }
  if constexpr (gradient) {
    wl_syncwarp();  // the target was read by all lanes; now it may be overwritten
    if (!exists) return;
    const Sink<T, typename Op::Out> sink(y_row<Op>(a, index), packs);
    each([&](wl_u32 p, wl_u32x4 pack, const wl_u32x4* beside) {
      float out[LANES] = {};
      if (row.kept) gradient_of(op, row, packs, pack, beside, p, out);
      if constexpr (SecondOf<Op>::SOME) {
        if (!row.kept) op.fill_beside(row, PackColumns<T, 1>(packs, p, 0));
      }
      if constexpr (Op::TARGET) {
        if (row.kept && p == packs.pack_of(row.target)) {
          const float g = op.target_gradient(row);
          WL_UNROLL for (int e = 0; e < LANES; e++) {
            out[e] = e == (int)packs.lane_of(row.target) ? g : out[e];
          }
        }
      }
      if (p < packs.count) sink.put(packs.column(p), packs.len, !packs.full(p), out);
    });
  }
}

template <class Op, int width, bool gradient>
WL_FN void lanes_row(const typename Op::Args& a) {
  wl_grid_wait();
  const wl_i64 first = (wl_i64)wl_block() * (wl_threads() / width);
  RowLosses<Op> losses(a);
  lanes<Op, width, gradient>(a, first, losses);
  losses.close();
}
