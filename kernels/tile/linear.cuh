// A softmax over products of any number of features, whose logits never reach memory: each pass makes them anew, a
// tile at a time (pipeline.cuh), and hands them to the functor of a loss with a target (schedule/functor.cuh), which
// gives what tile/softmax.cuh asks of it. Hidden rows and weights are of T, logits and their gradient f32.
//
// Blocks own hidden rows, and classes are cut into splits, of which there are as many whatever the rows: what a split
// leaves of a row is a state, and all of them are put together in order. So a row's numbers are its own.
#pragma once
#include "core/args.cuh"
#include "core/reduce.cuh"
#include "tile/fragment.cuh"
#include "tile/pipeline.cuh"

// Row tiles whose blocks come after one another, split by split: together their rows and the classes that they go
// through at a time stay in L2.
#define WL_LINEAR_GROUP 32

struct LinearBlock {
  wl_i64 first;       // row
  wl_i64 split;
  wl_i64 begin, end;  // classes

  WL_FN LinearBlock(const LinearTileArgs& a) {
    const wl_i64 tiles = (a.row.rows.count + WL_PIPE_OWN - 1) / WL_PIPE_OWN, group = WL_LINEAR_GROUP * a.splits;
    const wl_i64 before = wl_block() / group * WL_LINEAR_GROUP, in = wl_block() % group;
    const wl_i64 beside = tiles - before < WL_LINEAR_GROUP ? tiles - before : WL_LINEAR_GROUP;
    first = (before + in % beside) * WL_PIPE_OWN, split = in / beside;
    const wl_i64 others = (a.end - a.begin + WL_PIPE_OTHER - 1) / WL_PIPE_OTHER, each = (others + a.splits - 1) / a.splits;
    begin = a.begin + split * each * WL_PIPE_OTHER;
    const wl_i64 stop = begin + each * WL_PIPE_OTHER;
    end = stop < a.end ? stop : a.end;
  }
};

// A row's columns of a tile that a lane has.
typedef FragmentColumns<16, 2> LinearColumns;

// What a block knows of its rows: where they are in the batch, classes (-1: the row does not count, and is not read)
// and 1/τ.
struct LinearRows {
  wl_shared<wl_i64> places;
  wl_shared<wl_i64> targets;
  wl_shared<float> scales;

  // Returns whether there is a row that counts.
  WL_FN bool load(const LinearTileArgs& a, wl_i64 first) const {
    wl_i64 target = -1;
    if (wl_thread() < WL_PIPE_OWN) {
      const wl_i64 slot = first + wl_thread();
      if (slot < a.row.rows.count) target = wl_ld(a.slot_marks + slot);
      const wl_i64 place = target >= 0 ? wl_ld(a.slot_rows + slot) : -1;
      places[wl_thread()] = place, targets[wl_thread()] = target;
      scales[wl_thread()] = place >= 0 && a.temperature ? 1.f / wl_ld(a.temperature + place) : 1.f;
    }
    return wl_syncthreads_or(target >= 0);  // all rows are known
  }
};
#define WL_LINEAR_ROWS(name)                    \
  WL_SMEM(wl_i64, name##_places, WL_PIPE_OWN);  \
  WL_SMEM(wl_i64, name##_targets, WL_PIPE_OWN); \
  WL_SMEM(float, name##_scales, WL_PIPE_OWN);   \
  const LinearRows name = {name##_places, name##_targets, name##_scales}

// Products begin with the bias of their classes.
WL_FN void begin_with_bias(const LinearTileArgs& a, const LinearColumns& columns, PipeProducts& z) {
  float bias[16];
  WL_UNROLL for (int e = 0; e < 16; e++) bias[e] = 0.f;
  if (a.row.bias) {
    WL_UNROLL for (int e = 0; e < 16; e++) bias[e] = columns.holds(e) ? wl_ld(a.row.bias + columns.column(e)) : 0.f;
  }
  WL_UNROLL for (int m = 0; m < 4; m++) {
    WL_UNROLL for (int n = 0; n < 8; n++) {
      WL_UNROLL for (int e = 0; e < 4; e++) z[m][n][e] = bias[2 * n + e % 2];
    }
  }
}

// Goes through the block's tiles; calls `each(z, columns)` for the warp's products, the lane's columns of which these
// are.
template <class T, class Each>
WL_FN void through_tiles(const LinearTileArgs& a, const LinearBlock& block, const LinearRows& rows, Each each) {
  const MatrixView<T> hidden(a.hidden, a.row.rows.count, a.hidden_stride, a.width);
  const MatrixView<T> weight(a.weight, a.row.rows.classes, a.weight_stride, a.weight_width);
  WL_PIPELINE(T, pipeline, hidden, weight);
  pipeline.start(block.begin, block.end, [&](wl_u32 row) { return rows.places[row]; });
  WL_UNROLL_N(1) for (wl_i64 begin = block.begin; begin < block.end; begin += WL_PIPE_OTHER) {
    const LinearColumns columns(begin + pipeline.other_of_warp() + fragment_column(), block.end);
    PipeProducts z;
    begin_with_bias(a, columns, z);
    pipeline.add_products(z);
    each(z, columns);
  }
  wl_cp_async_wait<0>();
}

// Calls `each(row, x)` for the lane's part of each row of the block: logits, and -inf where there is no column.
template <class Each>
WL_FN void each_row(const LinearRows& rows, const PipeProducts& z, const LinearColumns& columns, Each each) {
  WL_UNROLL for (int m = 0; m < 4; m++) {
    WL_UNROLL for (int r = 0; r < 2; r++) {
      const wl_u32 row = Pipeline<f16>::own_of_warp() + 16 * m + 8 * r + fragment_row();
      const float scale = rows.scales[row];
      float x[16];
      WL_UNROLL for (int e = 0; e < 16; e++) x[e] = z[m][e / 2][2 * r + e % 2] * scale;
      if (!columns.whole()) {
        WL_UNROLL for (int e = 0; e < 16; e++) x[e] = columns.holds(e) ? x[e] : -wl_inf();
      }
      each(row, x);
    }
  }
}

// States of a block's rows, one for each of the warps that share a row.
template <class State>
struct LinearStates {
  wl_shared<float> words;

  static WL_FN wl_u32 place(wl_u32 part, wl_u32 row) { return (part * WL_PIPE_OWN + row) * State::WORDS; }
  WL_FN State get(wl_u32 part, wl_u32 row) const {
    Words<State> of;
    WL_UNROLL for (int i = 0; i < State::WORDS; i++) of.w[i] = words[place(part, row) + i];
    return wl_bit_cast<State>(of);
  }
  WL_FN void put(wl_u32 part, wl_u32 row, const State& state) const {
    const Words<State> of = wl_bit_cast<Words<State>>(state);
    WL_UNROLL for (int i = 0; i < State::WORDS; i++) words[place(part, row) + i] = of.w[i];
  }
};

// What each split's classes leave of each row, and the targets' logits, slot by slot.
template <class Op, class T>
WL_FN void linear_forward(const LinearTileArgs& a) {
  typedef typename Op::State State;
  WL_LINEAR_ROWS(rows);
  WL_SMEM(float, words, WL_PIPE_ACROSS * WL_PIPE_OWN * State::WORDS);
  const LinearBlock block(a);
  const Op op(a.row);
  const LinearStates<State> states = {words};
  for (wl_u32 i = wl_thread(); i < WL_PIPE_ACROSS * WL_PIPE_OWN; i += wl_threads()) {
    states.put(i / WL_PIPE_OWN, i % WL_PIPE_OWN, State::empty());
  }
  // Nobody reads a state of a row that does not count.
  if (!rows.load(a, block.first)) return;
  through_tiles<T>(a, block, rows, [&](const PipeProducts& z, const LinearColumns& columns) {
    each_row(rows, z, columns, [&](wl_u32 row, float (&x)[16]) {
      const typename Op::Row of = op.recalled(rows.targets[row], {});
      const int lane = columns.has(of.target) ? columns.lane(of.target) : -1;
      if (lane >= 0) {
        float at = 0.f;
        WL_UNROLL for (int e = 0; e < 16; e++) at = e == lane ? x[e] : at;
        wl_st(a.targets + block.first + row, at);
      }
      State state = State::empty();
      op.push(state, of, x, columns);
      state = reduce_lanes<4>(state, op.k);
      if (wl_lane() % 4 != 0) return;
      const wl_u32 part = wl_warp() % WL_PIPE_ACROSS;
      State all = states.get(part, row);
      all.merge(state, op.k);
      states.put(part, row, all);
    });
  });
  wl_syncthreads();  // all warps' states are there
  const wl_u32 row = wl_thread();
  if (row >= WL_PIPE_OWN || block.first + row >= a.row.rows.count) return;
  State all = State::empty();
  WL_UNROLL for (wl_u32 part = 0; part < WL_PIPE_ACROSS; part++) all.merge(states.get(part, row), op.k);
  store_words(a.partials + (block.split * a.row.rows.count + block.first + row) * State::WORDS, all);
}

// What a row's piece of WL_PIPE_WARP classes must reach to have a gradient: a bound on |p - [the target]|.
struct LinearLimits {
  static constexpr int WORDS = 2;
  float exponential;  // of any other class, relative to the row's largest
  float target;       // not 0: the target's own does

  // A z-loss has the target's p in the gradient, however near to 1.
  template <class Row>
  static WL_FN LinearLimits of(const Row& row, const LinearTileArgs& a) {
    const float limit = a.bound * row.total;
    const bool reached = !(row.rest < limit) || a.row.options.lambda > 0.;
    return {limit, row.kept && reached ? 1.f : 0.f};
  }
};

// A row a thread: its numbers, and what its gradient is made of.
template <class Op>
WL_FN void linear_finish(const LinearTileArgs& a) {
  typedef typename Op::State State;
  const Op op(a.row);
  for (wl_i64 slot = first_of_grid(); slot < a.row.rows.count; slot += step_of_grid()) {
    const wl_i64 index = wl_ld(a.slot_rows + slot);
    typename Op::Row row = op.begin(index, [&](wl_i64) { return wl_ld(a.targets + slot); });
    if (row.kept) {
      State state = State::empty();
      for (wl_i64 split = 0; split < a.splits; split++) {
        state.merge(load_words<State>(a.partials + (split * a.row.rows.count + slot) * State::WORDS), op.k);
      }
      op.finish(state, row);
    }
    op.write(row);
    if (a.slopes) store_words(a.slopes + Op::Slopes::WORDS * slot, op.slopes(row));
    if (a.limits) store_words(a.limits + LinearLimits::WORDS * slot, LinearLimits::of(row, a));
  }
}
