// Rows whose state leaves the launch: a shard of a vocabulary leaves the states of its blocks of
// classes; lists of all blocks are finished, and make gradients of shards. The rule, and how a row's
// numbers lie: src/spec/row_state.rs. Launches: src/cuda/loss/cross_entropy/shards.rs.
//
// A warp has a block of classes. Which lane has which class depends on the class alone, neither on the
// shard nor on where it lies in memory, and blocks are merged in one order: so the bits of a result
// depend on neither.
#pragma once
#include "core/reduce.cuh"
#include "schedule/feed.cuh"

// ---- a state as numbers ------------------------------------------------------------------------
WL_FN void store_state(const Lse& s, float* to, wl_u32) {
  wl_st(to, s.max);
  wl_st(to + 1, s.sum);
}
WL_FN void store_state(const Smoothed& s, float* to, wl_u32 fields) {
  store_state(Lse{s.max, s.sum}, to, fields);
  if (fields < 5) return;
  wl_st(to + 2, reference(s.max));
  wl_st(to + 3, s.deviation);
  wl_st(to + 4, s.weight);
}
WL_FN Lse load_state(Lse, const float* from, wl_u32) { return {wl_ld(from), wl_ld(from + 1)}; }
WL_FN Smoothed load_state(Smoothed, const float* from, wl_u32 fields) {
  Smoothed s = {load_state(Lse{}, from, fields), 0.f, 0.f};
  if (fields == 5) s.deviation = wl_ld(from + 3), s.weight = wl_ld(from + 4);
  return s;
}

// A row's numbers: those of its blocks, then whether the target is here and its logit.
struct StateNumbers {
  float* blocks;
  float* target;
  WL_FN StateNumbers(const ShardArgs& a, wl_i64 row) {
    blocks = a.state + row * a.numbers;
    target = blocks + (wl_i64)a.listed * a.fields;
  }
};

// ---- a shard's row -----------------------------------------------------------------------------
// The row's packs as counted from class 0 of the vocabulary.
template <class T>
struct ShardRow {
  Packs<T> packs;
  bool aligned;
  WL_FN ShardRow(const T* row, const ShardArgs& a)
      : packs(row - a.first, a.first + a.len, 0), aligned((wl_u64)row % 16 == 0) {}
  WL_FN wl_u32x4 load(wl_u32 p) const {
    return aligned && packs.full(p) ? wl_ld128_stream(packs.at(p)) : packs.edge(p);
  }
};

// A warp's place: a row, and a block of its classes.
template <class T>
struct ClassBlock {
  wl_i64 row;
  wl_u32 block;
  wl_u32 p, last, to;  // the lane's first pack; full ones end before `last`, all before `to`

  WL_FN explicit ClassBlock(const ShardArgs& a) {
    const wl_i64 warp = (wl_i64)wl_block() * wl_warps() + wl_warp();
    row = warp / a.blocks;
    block = (wl_u32)(warp % a.blocks);
    const wl_i64 end = a.first + a.len, from = a.first + block * a.block;
    const wl_i64 until = from + a.block < end ? from + a.block : end;
    constexpr int LANES = Dtype<T>::LANES;
    p = (wl_u32)(from / LANES) + wl_lane();
    last = (wl_u32)(until / LANES);
    to = (wl_u32)((until + LANES - 1) / LANES);
  }

  // Calls `full(Count<n>, p)` for n packs p, p + 32, ... that are full, then `one(p)` for each that is left.
  template <int n, class Full, class One>
  WL_FN void each(Full full, One one) {
    if constexpr (n > 1) {
      for (; p + (n - 1) * 32 < last; p += n * 32) full(Count<n>{}, p);
    }
    WL_UNROLL_N(1) for (; p < to; p += 32) one(p);
  }
};

// ---- launches ----------------------------------------------------------------------------------
template <class Op>
WL_FN void state_sum(const typename Op::Args& a) {
  typedef typename Op::In T;
  ClassBlock<T> own(a.shard);
  if (own.row >= a.rows.count) return;
  const Op op(a);
  const ShardRow<T> shard(x_row<Op>(a, own.row), a.shard);
  bool here = false;
  const typename Op::Row row = op.begin(own.row, [&](wl_i64 target) {
    here = target >= a.shard.first && target < a.shard.first + a.shard.len;
    return here ? Dtype<T>::load(shard.packs.row + target) : -wl_inf();
  });
  typename Op::State state = Op::State::empty();
  if (row.kept) {
    const wl_u32x4 nothing[1] = {};
    own.template each<Together<Op>::packs>(
        [&](auto count, wl_u32 p) {
          constexpr int n = decltype(count)::value;
          wl_u32x4 v[n];
          WL_UNROLL for (int i = 0; i < n; i++) v[i] = shard.load(p + i * 32);
          push_packs(op, state, row, v, nothing, shard.packs, p, 32);
        },
        [&](wl_u32 p) {
          const wl_u32x4 v[1] = {shard.load(p)};
          push_packs(op, state, row, v, nothing, shard.packs, p, 0);
        });
  }
  state = reduce_lanes<32>(state, op.k);
  if (wl_lane() != 0) return;
  const StateNumbers numbers(a.shard, own.row);
  float* to = numbers.blocks + own.block * a.shard.fields;
  if (row.kept) {
    store_state(state, to, a.shard.fields);
  } else {
    for (wl_u32 i = 0; i < a.shard.fields; i++) wl_st(to + i, 0.f);
  }
  if (own.block != 0) return;
  wl_st(numbers.target, here ? 1.f : 0.f);
  wl_st(numbers.target + 1, here ? row.x_t : 0.f);
  for (wl_u32 i = 0; i < a.shard.fields; i++) wl_st(numbers.target + 2 + i, 0.f);
}

// A warp's row from the states of all blocks. NaN, if none of them has had the target.
template <class Op>
WL_FN typename Op::Row row_of_states(const Op& op, const typename Op::Args& a, wl_i64 index) {
  const StateNumbers numbers(a.shard, index);
  typename Op::Row row = op.begin(index, [&](wl_i64) {
    return wl_ld(numbers.target) == 1.f ? wl_ld(numbers.target + 1) : wl_nan();
  });
  typename Op::State state = Op::State::empty();
  if (row.kept) {
    for (wl_u32 i = wl_lane(); i < a.shard.listed; i += 32) {
      state.merge(load_state(typename Op::State(), numbers.blocks + i * a.shard.fields, a.shard.fields), op.k);
    }
  }
  state = reduce_lanes<32>(state, op.k);
  if (row.kept) op.finish(state, row);
  return row;
}

template <class Op>
WL_FN void state_finish(const typename Op::Args& a) {
  const Op op(a);
  const wl_i64 index = (wl_i64)wl_block() * wl_warps() + wl_warp();
  if (index >= a.rows.count) return;
  const typename Op::Row row = row_of_states(op, a, index);
  if (wl_lane() == 0) op.write(row);
}

// Where what a row's gradient is made of lies from launch to launch.
template <class Op>
WL_FN float* slopes_of(const typename Op::Args& a, wl_i64 index) {
  return a.schedule.partials + index * Op::Slopes::WORDS;
}

template <class Op>
WL_FN void state_slopes(const typename Op::Args& a) {
  const Op op(a);
  const wl_i64 index = (wl_i64)wl_block() * wl_warps() + wl_warp();
  if (index >= a.rows.count) return;
  const typename Op::Row row = row_of_states(op, a, index);
  if (wl_lane() != 0) return;
  store_words(slopes_of<Op>(a, index), op.slopes(row));
}

// Each pack is written by the lane that read it: y may be x.
template <class Op>
WL_FN void state_gradient(const typename Op::Args& a) {
  typedef typename Op::In T;
  ClassBlock<T> own(a.shard);
  if (own.row >= a.rows.count) return;
  const Op op(a);
  const ShardRow<T> shard(x_row<Op>(a, own.row), a.shard);
  const Sink<T, typename Op::Out> sink(y_row<Op>(a, own.row) - a.shard.first, shard.packs);
  const typename Op::Slopes slopes = load_words<typename Op::Slopes>(slopes_of<Op>(a, own.row));
  const wl_i64 target = op.kept_target(own.row);
  const typename Op::Row row = op.recalled(target, slopes);
  const wl_u32 of_target = row.kept ? shard.packs.pack_of(target) : WL_NO_PACK;
  const auto write = [&](wl_u32 p, wl_u32x4 v) {
    float out[Op::LANES] = {};
    if (row.kept) gradient_of(op, row, shard.packs, v, nullptr, p, out);
    if (p == of_target) {
      const int lane = (int)shard.packs.lane_of(target);
      WL_UNROLL for (int e = 0; e < Op::LANES; e++) out[e] = e == lane ? slopes.target : out[e];
    }
    sink.put(shard.packs.column(p), shard.packs.len, !shard.packs.full(p), out);
  };
  own.template each<WRITTEN<Op>>(
      [&](auto count, wl_u32 p) {
        constexpr int n = decltype(count)::value;
        wl_u32x4 v[n];
        WL_UNROLL for (int i = 0; i < n; i++) v[i] = row.kept ? shard.load(p + i * 32) : wl_u32x4{};
        WL_UNROLL for (int i = 0; i < n; i++) write(p + i * 32, v[i]);
      },
      [&](wl_u32 p) { write(p, row.kept ? shard.load(p) : wl_u32x4{}); });
}
