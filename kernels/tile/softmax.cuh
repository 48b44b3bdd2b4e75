// A softmax whose logits are products, and which never reach memory: each pass makes them again, a tile at a
// time, and hands them to the functor of a loss with a target (schedule/functor.cuh). Logits and their
// gradient are f32; hidden rows are, and weights are of T.
//
// Hidden rows own where losses and their own gradient are made, and classes are cut into splits, which are
// added up in order; classes own where theirs is. Rows of the batch are `a.row`'s, their logits this file's
// affair. Beside what functor.cuh asks, it takes
//
//   Slopes, slopes(row)   what the gradient of a finished row is made of, in few words
//   recalled(t, slopes)   that row once more, for `gradient`
//
// Slopes lie row by row, and behind them all rows' classes, each and one: 0 where a row does not count.
#pragma once
#include "core/args.cuh"
#include "core/reduce.cuh"
#include "tile/fragment.cuh"
#include "tile/product.cuh"

// Rows that there are among these slots.
WL_FN wl_i64 tile_live(const TileArgs& a) {
  if (!a.count) return a.row.rows.count;
  const wl_i64 after = wl_ld(a.count) - a.from;
  return after < 0 ? 0 : after < a.row.rows.count ? after : a.row.rows.count;
}

WL_FN MatrixView<f32> tile_hidden(const TileArgs& a, wl_i64 live) {
  return {a.hidden, live, a.hidden_stride, a.width};
}
template <class T>
WL_FN MatrixView<T> tile_weight(const TileArgs& a) {
  return {a.weight, a.row.rows.classes, a.weight_stride, a.width};
}

// A split's classes.
struct TileSplit {
  wl_i64 begin, end;
  WL_FN TileSplit(const TileArgs& a, wl_i64 split) {
    const wl_i64 tiles = (a.row.rows.classes + WL_TILE_OTHER - 1) / WL_TILE_OTHER, each = (tiles + a.splits - 1) / a.splits;
    begin = split * each * WL_TILE_OTHER;
    const wl_i64 stop = begin + each * WL_TILE_OTHER;
    end = stop < a.row.rows.classes ? stop : a.row.rows.classes;
  }
};

// What a split leaves of a row: its state, and the target's logit or 0.
template <class Op>
constexpr int TILE_PARTIAL = Op::State::WORDS + 1;

// Hidden rows by splits: what a split's classes give of each row.
template <class Op, class T>
WL_FN void tile_forward(const TileArgs& a) {
  const wl_i64 live = tile_live(a), first = wl_block() / a.splits * WL_TILE_OWN, split = wl_block() % a.splits;
  if (first >= live) return;
  WL_TILE(T, tile_weight<T>(a));
  const TileSplit classes(a, split);
  const auto alone = [](wl_i64) {};
  tile.start(classes.begin, classes.end, alone);
  const wl_i64 own_first = first + 16 * wl_warp();
  OwnRows<2> own;
  own.load(tile_hidden(a, live), own_first);
  const Op op(a.row);
  typename Op::State states[2] = {Op::State::empty(), Op::State::empty()};
  typename Op::Row rows[2] = {};
  float at[2] = {0.f, 0.f};
  WL_UNROLL for (int r = 0; r < 2; r++) {
    const wl_i64 row = own_first + fragment_row() + 8 * r;
    if (row < live) rows[r] = op.begin(row, [](wl_i64) { return 0.f; });
  }
  for (wl_i64 begin = classes.begin; begin < classes.end; begin += WL_TILE_OTHER) {
    tile.next(begin, classes.end, alone);
    float z[4][2][4];
    WL_UNROLL for (int j = 0; j < 4; j++) tile.template products<true>(own, j, z[j]);
    const FragmentColumns<16, 2> columns(begin + fragment_column(), a.row.rows.classes);
    WL_UNROLL for (int r = 0; r < 2; r++) {
      if (!rows[r].kept) continue;
      float x[16];
      WL_UNROLL for (int e = 0; e < 16; e++) x[e] = z[e / 4][e / 2 % 2][2 * r + e % 2];
      if (!columns.whole()) {
        WL_UNROLL for (int e = 0; e < 16; e++) x[e] = columns.holds(e) ? x[e] : -wl_inf();
      }
      if (columns.has(rows[r].target)) {
        const int lane = columns.lane(rows[r].target);
        WL_UNROLL for (int e = 0; e < 16; e++) at[r] = e == lane ? x[e] : at[r];
      }
      op.push(states[r], rows[r], x, columns);
    }
  }
  WL_UNROLL for (int r = 0; r < 2; r++) {
    const typename Op::State state = reduce_lanes<4>(states[r], op.k);
    // One lane has it, and of it alone the others' 0 makes nothing else.
    WL_UNROLL for (wl_u32 lanes = 2; lanes > 0; lanes /= 2) at[r] += wl_shfl_xor(WL_FULL_MASK, at[r], lanes);
    const wl_i64 row = own_first + fragment_row() + 8 * r;
    if (wl_lane() % 4 != 0 || row >= live) continue;
    float* to = a.partials + TILE_PARTIAL<Op> * (split * a.row.rows.count + row);
    store_words(to, state);
    wl_st(to + Op::State::WORDS, at[r]);
  }
}

template <class Op>
WL_FN wl_i64* tile_classes(const TileArgs& a) {
  static_assert(Op::Slopes::WORDS == 4, "16 bytes");
  return (wl_i64*)(a.slopes + Op::Slopes::WORDS * a.row.rows.count);
}

// A row a thread: its numbers, and what its gradient is made of. Slots without a row are as ignored ones.
template <class Op>
WL_FN void tile_finish(const TileArgs& a) {
  const wl_i64 live = tile_live(a);
  const Op op(a.row);
  for (wl_i64 index = first_of_grid(); index < a.row.rows.count; index += step_of_grid()) {
    typename Op::State state = Op::State::empty();
    float at = 0.f;
    for (wl_i64 split = 0; index < live && split < a.splits; split++) {
      const float* from = a.partials + TILE_PARTIAL<Op> * (split * a.row.rows.count + index);
      state.merge(load_words<typename Op::State>(from), op.k);
      at += wl_ld(from + Op::State::WORDS);
    }
    typename Op::Row row = {};
    row.index = index;
    if (index < live) row = op.begin(index, [&](wl_i64) { return at; });
    if (row.kept) op.finish(state, row);
    op.write(row);
    if (!a.slopes) continue;
    store_words(a.slopes + Op::Slopes::WORDS * index, op.slopes(row));
    wl_st(tile_classes<Op>(a) + index, row.kept ? row.target + 1 : 0);
  }
}

// The gradient of the hidden rows, split by split.
template <class Op, class T>
WL_FN void tile_hidden_back(const TileArgs& a) {
  const wl_i64 live = tile_live(a), first = wl_block() / a.splits * WL_TILE_OWN, split = wl_block() % a.splits;
  if (first >= live) return;
  WL_TILE(T, tile_weight<T>(a));
  const TileSplit classes(a, split);
  const auto alone = [](wl_i64) {};
  tile.start(classes.begin, classes.end, alone);
  const wl_i64 own_first = first + 16 * wl_warp();
  OwnRows<2> own;
  own.load(tile_hidden(a, live), own_first);
  const Op op(a.row);
  typename Op::Row rows[2] = {};
  float targets[2] = {0.f, 0.f};
  WL_UNROLL for (int r = 0; r < 2; r++) {
    const wl_i64 row = own_first + fragment_row() + 8 * r;
    if (row >= live) continue;
    const typename Op::Slopes slopes = load_words<typename Op::Slopes>(a.slopes + Op::Slopes::WORDS * row);
    rows[r] = op.recalled(wl_ld(tile_classes<Op>(a) + row) - 1, slopes);
    targets[r] = slopes.target;
  }
  float sums[2 * WL_TILE_STEPS][4] = {};
  for (wl_i64 begin = classes.begin; begin < classes.end; begin += WL_TILE_OTHER) {
    tile.next(begin, classes.end, alone);
    // Unrolled it would take more registers than two blocks leave.
    WL_UNROLL_N(1) for (int j = 0; j < 4; j++) {
      float z[2][4];
      tile.template products<true>(own, j, z);
      const FragmentColumns<4, 2> columns(begin + 16 * j + fragment_column(), a.row.rows.classes);
      WL_UNROLL for (int r = 0; r < 2; r++) {
        float x[4], out[4];
        WL_UNROLL for (int e = 0; e < 4; e++) x[e] = z[e / 2][2 * r + e % 2];
        op.gradient(rows[r], x, columns, out);
        columns.set(rows[r].target, out, targets[r]);
        // Of a class that does not exist, or a row that does not count, infinite weights make NaN.
        WL_UNROLL for (int e = 0; e < 4; e++) {
          z[e / 2][2 * r + e % 2] = rows[r].kept && columns.holds(e) ? out[e] : 0.f;
        }
      }
      tile.add(z, j, sums);
    }
  }
  WL_UNROLL for (int f = 0; f < 2 * WL_TILE_STEPS; f++) {
    WL_UNROLL for (int e = 0; e < 4; e++) {
      const wl_i64 row = own_first + fragment_row() + 8 * (e / 2), column = 8 * f + fragment_column() + e % 2;
      if (row < live && column < a.width) wl_st(a.partials + (split * a.row.rows.count + row) * a.width + column, sums[f][e]);
    }
  }
}

// The splits' gradients, added up; 0 where there is no row.
WL_FN void tile_hidden_sum_body(const TileArgs& a) {
  const wl_i64 live = tile_live(a);
  for (Elements at(a.width); at.row < a.row.rows.count; at.next()) {
    float sum = 0.f;
    for (wl_i64 split = 0; at.row < live && split < a.splits; split++) {
      sum += wl_ld(a.partials + (split * a.row.rows.count + at.row) * a.width + at.column);
    }
    store_float(a.to, a.to_kind, at.row * a.to_stride + at.column, sum);
  }
}

// What is needed of a tile's rows where classes own: two tiles' of each, as of bf16 rows.
template <class Op>
struct TileRows {
  wl_shared<typename Op::Slopes> slopes;
  wl_shared<wl_i64> classes;

  static WL_FN wl_u32 first(wl_i64 begin) { return (wl_u32)(begin / WL_TILE_OTHER % 2 * WL_TILE_OTHER); }
  // 16 bytes a thread, of a tile's 64 rows and pairs of rows; of rows that there are not, 0.
  WL_FN void bring(const TileArgs& a, wl_i64 begin, wl_i64 live) const {
    const wl_u32 i = wl_thread(), pair = 2 * (i - WL_TILE_OTHER);
    const wl_i64 left = live - begin;
    if (i < WL_TILE_OTHER) {
      const wl_i64 row = i < left ? begin + i : 0;
      wl_cp_async16_of(slopes, first(begin) + i, a.slopes + Op::Slopes::WORDS * row, i < left ? 16 : 0);
    } else if (pair < WL_TILE_OTHER) {
      const wl_i64 row = pair < left ? begin + pair : 0;
      wl_cp_async16_of(classes, first(begin) + pair, tile_classes<Op>(a) + row, pair + 1 < left ? 16 : pair < left ? 8 : 0);
    }
  }
};

// The gradient of the weights, classes by blocks.
template <class Op, class T>
WL_FN void tile_weight_back(const TileArgs& a) {
  WL_SMEM(typename Op::Slopes, slopes, 2 * WL_TILE_OTHER);
  WL_SMEM(wl_i64, classes, 2 * WL_TILE_OTHER);
  const TileRows<Op> others = {slopes, classes};
  const wl_i64 live = tile_live(a);
  const wl_i64 own_first = (wl_i64)wl_block() * WL_TILE_OWN + 16 * wl_warp();
  WL_TILE(f32, tile_hidden(a, live));
  const auto beside = [&](wl_i64 begin) { others.bring(a, begin, live); };
  tile.start(0, live, beside);
  OwnRows<PARTS_OF<T>> own;
  own.load(tile_weight<T>(a), own_first);
  const Op op(a.row);
  const FragmentColumns<2, 1> columns(own_first + fragment_row(), a.row.rows.classes);
  float sums[2 * WL_TILE_STEPS][4] = {};
  for (wl_i64 begin = 0; begin < live; begin += WL_TILE_OTHER) {
    tile.next(begin, live, beside);
    // Unrolled it would take more registers than two blocks leave.
    WL_UNROLL_N(1) for (int j = 0; j < 4; j++) {
      float z[2][4];
      tile.template products<false>(own, j, z);
      WL_UNROLL for (int n = 0; n < 2; n++) {
        WL_UNROLL for (int c = 0; c < 2; c++) {
          const wl_u32 at = others.first(begin) + 8 * (2 * j + n) + fragment_column() + c;
          const typename Op::Slopes own_slopes = slopes[at];
          const typename Op::Row row = op.recalled(classes[at] - 1, own_slopes);
          float x[2] = {z[n][c], z[n][2 + c]}, out[2];
          op.gradient(row, x, columns, out);
          columns.set(row.target, out, own_slopes.target);
          // A class that does not exist is not written; where there is no row, an infinite weight has no logit.
          WL_UNROLL for (int r = 0; r < 2; r++) z[n][2 * r + c] = row.kept ? out[r] : 0.f;
        }
      }
      tile.add(z, j, sums);
    }
  }
  WL_UNROLL for (int f = 0; f < 2 * WL_TILE_STEPS; f++) {
    WL_UNROLL for (int e = 0; e < 4; e++) {
      const wl_i64 class_ = own_first + fragment_row() + 8 * (e / 2), column = 8 * f + fragment_column() + e % 2;
      if (class_ >= a.row.rows.classes || column >= a.width) continue;
      const wl_i64 to = class_ * a.to_stride + column;
      store_float(a.to, a.to_kind, to, a.add ? load_float(a.to, a.to_kind, to) + sums[f][e] : sums[f][e]);
    }
  }
}
