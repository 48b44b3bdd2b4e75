// A softmax whose logits are products of few features, and which never reach memory: each kernel makes
// them again, a tile at a time on the tensor cores, of f32 hidden rows and 16-bit weights. So a cluster of an
// adaptive softmax costs its products and little else, and only for the rows that it has, whose number is the
// device's. Logits and their gradient are f32. Launches: src/cuda/linear_softmax/narrow.rs.
//
// Tensor cores multiply 16-bit numbers: what is f32 is cut into two bf16 parts (dtype.cuh), and so are f16
// weights, as a product of parts must have one type; each pair of parts is a product.
//
// A block owns 128 rows of one matrix (a warp 16 of them, as fragments in registers) and goes through the
// other, 64 rows at a time in shared memory. Hidden rows own where losses and their own gradient are made,
// and classes are cut into splits, which are added up in order; classes own where theirs is.
#pragma once
#include "core/args.cuh"
#include "core/dtype.cuh"

#define WL_NARROW_STEPS 4   // of 16 features
#define WL_NARROW_OWN 128   // rows of a block
#define WL_NARROW_OTHER 64  // rows of a tile
#define WL_NARROW_PAIRS 36  // 32-bit words between rows of a tile: 32, and 4 against bank conflicts
#define WL_LOG2E 1.4426950408889634f

// How many bf16 parts make an element.
template <class T>
struct NarrowPartsOf {
  static constexpr int count = 2;
};
template <>
struct NarrowPartsOf<bf16> {
  static constexpr int count = 1;
};
template <class T>
constexpr int NARROW_PARTS = NarrowPartsOf<T>::count;

// Two numbers as words of parts.
template <int parts>
WL_FN void narrow_cut(float x, float y, wl_u32 (&to)[parts]) {
  if constexpr (parts == 1) {
    to[0] = wl_pack_bf16x2(x, y);
  } else {
    const Parts<2> a(x), b(y);
    to[0] = wl_pack_bf16x2(a.part[0], b.part[0]), to[1] = wl_pack_bf16x2(a.part[1], b.part[1]);
  }
}

// Rows that are read; zeros outside.
template <class T>
struct NarrowRows {
  static constexpr int PARTS = NARROW_PARTS<T>;
  const T* values;
  wl_i64 rows, stride, width;
  bool paired;  // every pair is one access

  WL_FN NarrowRows(const void* p, wl_i64 rows, wl_i64 stride, wl_i64 width)
      : values((const T*)p), rows(rows), stride(stride), width(width),
        paired((width | stride) % 2 == 0 && (wl_u64)p % 4 == 0) {}

  // Two elements of a row, from an even column on, in parts.
  WL_FN void pair(wl_i64 row, wl_i64 column, wl_u32 (&to)[PARTS]) const {
    WL_UNROLL for (int i = 0; i < PARTS; i++) to[i] = 0;
    if (row >= rows || column >= width) return;
    const T* at = values + row * stride + column;
    if constexpr (PARTS == 1) {
      const wl_u16* bits = (const wl_u16*)at;
      to[0] = paired ? wl_ld((const wl_u32*)bits)
                     : (wl_u32)wl_ld(bits) | (column + 1 < width ? (wl_u32)wl_ld(bits + 1) << 16 : 0u);
    } else {
      narrow_cut(Dtype<T>::load(at), column + 1 < width ? Dtype<T>::load(at + 1) : 0.f, to);
    }
  }
  WL_FN int steps() const { return (int)((width + 15) / 16); }
};

WL_FN NarrowRows<f32> narrow_hidden(const NarrowArgs& a, wl_i64 live) {
  return {a.hidden, live, a.hidden_stride, a.width};
}
template <class T>
WL_FN NarrowRows<T> narrow_weight(const NarrowArgs& a) {
  return {a.weight, a.classes, a.weight_stride, a.width};
}

// Rows that the cluster has among these slots.
WL_FN wl_i64 narrow_live(const NarrowArgs& a) {
  const wl_i64 after = wl_ld(a.count) - a.from;
  return after < 0 ? 0 : after < a.n ? after : a.n;
}

// Where a lane is in a fragment: an accumulator's element e is row `row() + 8 * (e / 2)`, column
// `column() + e % 2` of a tile of 16 by 8.
WL_FN wl_u32 narrow_row() { return wl_lane() / 4; }
WL_FN wl_u32 narrow_column() { return 2 * (wl_lane() % 4); }

// Where `at` is among so many from `begin` on, in few bits; below all of a lane's columns if elsewhere.
WL_FN int narrow_within(wl_i64 at, wl_i64 begin, int n) {
  const wl_i64 place = at - begin;
  return place < 0 || place >= n ? -n : (int)place;
}

// A warp's 16 rows.
template <int parts>
struct NarrowOwn {
  wl_u32 a[parts][WL_NARROW_STEPS][4];

  template <class T>
  WL_FN void load(const NarrowRows<T>& rows, wl_i64 first) {
    WL_UNROLL for (int s = 0; s < WL_NARROW_STEPS; s++) {
      WL_UNROLL for (int r = 0; r < 4; r++) {
        wl_u32 two[parts];
        rows.pair(first + narrow_row() + 8 * (r % 2), 16 * s + narrow_column() + 8 * (r / 2), two);
        WL_UNROLL for (int i = 0; i < parts; i++) a[i][s][r] = two[i];
      }
    }
  }
};

#define WL_NARROW_ROWS (WL_NARROW_OTHER * WL_NARROW_PAIRS)
#define WL_NARROW_TURNED (16 * WL_NARROW_STEPS * WL_NARROW_PAIRS)

// Rows of the other matrix, by pairs of features and, turned, by pairs of rows; a part after the other.
template <int parts>
struct NarrowTile {
  wl_shared<wl_u32> rows, turned;

  template <class T>
  WL_FN void load(const NarrowRows<T>& from, wl_i64 first, bool turn) const {
    const wl_u32 pairs = 8 * from.steps();
    for (wl_u32 i = wl_thread(); i < WL_NARROW_OTHER / 2 * pairs; i += wl_threads()) {
      const wl_u32 two = i / pairs, c = i % pairs;
      wl_u32 lower[parts], upper[parts];
      from.pair(first + 2 * two, 2 * c, lower), from.pair(first + 2 * two + 1, 2 * c, upper);
      WL_UNROLL for (int p = 0; p < parts; p++) {
        const wl_u32 row = p * WL_NARROW_ROWS + 2 * two * WL_NARROW_PAIRS + c;
        rows[row] = lower[p];
        rows[row + WL_NARROW_PAIRS] = upper[p];
        if (!turn) continue;
        const wl_u32 at = p * WL_NARROW_TURNED + 2 * c * WL_NARROW_PAIRS + two;
        turned[at] = (lower[p] & 0xffffu) | upper[p] << 16;
        turned[at + WL_NARROW_PAIRS] = lower[p] >> 16 | (upper[p] & 0xffff0000u);
      }
    }
  }

  // z[e] = the product of an own row with row 8 * n + column of the tile. Whichever of them is the hidden
  // row, its parts come in the same order, so that the products are the same. OWN: it is the own one.
  template <bool OWN, int own_parts>
  WL_FN void products(const NarrowOwn<own_parts>& own, int steps, int n, float (&z)[4]) const {
    WL_UNROLL for (int e = 0; e < 4; e++) z[e] = 0.f;
    const wl_u32 at = (8 * n + wl_lane() / 4) * WL_NARROW_PAIRS + wl_lane() % 4;
    constexpr int HIDDEN = OWN ? own_parts : parts, WEIGHT = OWN ? parts : own_parts;
    WL_UNROLL for (int s = 0; s < WL_NARROW_STEPS; s++) {
      if (s >= steps) continue;
      WL_UNROLL for (int h = 0; h < HIDDEN; h++) {
        WL_UNROLL for (int w = 0; w < WEIGHT; w++) {
          const wl_u32 b = (OWN ? w : h) * WL_NARROW_ROWS + at + 8 * s;
          wl_mma<bf16>(z, own.a[OWN ? h : w][s], rows[b], rows[b + 4]);
        }
      }
    }
  }

  // sums += dz · rows 16 * j to 16 * j + 16 of the tile; dz is two fragments of 8 columns, whose parts are
  // then one of 16.
  WL_FN void add(const float (&dz)[2][4], int steps, int j, float (&sums)[2 * WL_NARROW_STEPS][4]) const {
    wl_u32 a[2][4];
    WL_UNROLL for (int r = 0; r < 4; r++) {
      wl_u32 two[2];
      narrow_cut(dz[r / 2][2 * (r % 2)], dz[r / 2][2 * (r % 2) + 1], two);
      a[0][r] = two[0], a[1][r] = two[1];
    }
    WL_UNROLL for (int f = 0; f < 2 * WL_NARROW_STEPS; f++) {
      if (f >= 2 * steps) continue;
      WL_UNROLL for (int p = 0; p < parts; p++) {
        const wl_u32 at = p * WL_NARROW_TURNED + (8 * f + wl_lane() / 4) * WL_NARROW_PAIRS + 8 * j + wl_lane() % 4;
        WL_UNROLL for (int i = 0; i < 2; i++) wl_mma<bf16>(sums[f], a[i], turned[at], turned[at + 4]);
      }
    }
  }
};

#define WL_NARROW_TILE(parts)                              \
  WL_SMEM(wl_u32, tile_rows, (parts) * WL_NARROW_ROWS);     \
  WL_SMEM(wl_u32, tile_turned, (parts) * WL_NARROW_TURNED); \
  const NarrowTile<(parts)> tile = {tile_rows, tile_turned}

#define WL_NARROW_NOWHERE (-(1 << 30))

// A split's classes.
struct NarrowSplit {
  wl_i64 begin, end;
  WL_FN NarrowSplit(const NarrowArgs& a, wl_i64 split) {
    const wl_i64 tiles = (a.classes + WL_NARROW_OTHER - 1) / WL_NARROW_OTHER, each = (tiles + a.splits - 1) / a.splits;
    begin = split * each * WL_NARROW_OTHER;
    const wl_i64 stop = begin + each * WL_NARROW_OTHER;
    end = stop < a.classes ? stop : a.classes;
  }
  // Where a class is among them, in few bits; nowhere near if elsewhere.
  WL_FN int place(wl_i64 class_) const {
    return class_ < begin || class_ >= end ? WL_NARROW_NOWHERE : (int)(class_ - begin);
  }
};

// A row's logits so far: the largest, the sum of e^(z - max) but for the target's, and the target's.
struct NarrowSum {
  float max, rest, at;

  WL_FN static float base(float max) { return max == -wl_inf() ? 0.f : max; }

  WL_FN void rescale(float to) {
    rest *= wl_ex2((max - base(to)) * WL_LOG2E);
    max = to;
  }
  WL_FN void merge(NarrowSum other) {
    const float both = wl_max(max, other.max);
    rescale(both), other.rescale(both);
    rest += other.rest, at += other.at;
  }
};

// Hidden rows by splits: what a split's classes give of each row's softmax.
template <class T>
WL_FN void narrow_forward(const NarrowArgs& a) {
  WL_NARROW_TILE(NARROW_PARTS<T>);
  const wl_i64 live = narrow_live(a), first = wl_block() / a.splits * WL_NARROW_OWN, split = wl_block() % a.splits;
  if (first >= live) return;
  const NarrowRows<T> weight = narrow_weight<T>(a);
  const wl_i64 own_first = first + 16 * wl_warp();
  NarrowOwn<2> own;
  own.load(narrow_hidden(a, live), own_first);
  NarrowSum sums[2] = {{-wl_inf(), 0.f, 0.f}, {-wl_inf(), 0.f, 0.f}};
  int targets[2];
  const NarrowSplit classes(a, split);
  WL_UNROLL for (int r = 0; r < 2; r++) {
    const wl_i64 row = own_first + narrow_row() + 8 * r;
    targets[r] = row < live ? classes.place((wl_i64)wl_ld(a.targets + row)) : WL_NARROW_NOWHERE;
  }
  for (wl_i64 begin = classes.begin; begin < classes.end; begin += WL_NARROW_OTHER) {
    wl_syncthreads();  // nobody reads the last tile any more
    tile.load(weight, begin, false);
    wl_syncthreads();  // the tile is there
    float z[8][4];
    WL_UNROLL for (int n = 0; n < 8; n++) tile.template products<true>(own, weight.steps(), n, z[n]);
    if (a.classes - begin < WL_NARROW_OTHER) {
      const int left = (int)(a.classes - begin) - (int)narrow_column();
      WL_UNROLL for (int n = 0; n < 8; n++) {
        WL_UNROLL for (int e = 0; e < 4; e++) z[n][e] = 8 * n + e % 2 < left ? z[n][e] : -wl_inf();
      }
    }
    WL_UNROLL for (int r = 0; r < 2; r++) {
      const int target = targets[r] - (int)(begin - classes.begin) - (int)narrow_column();
      float max = sums[r].max;
      WL_UNROLL for (int n = 0; n < 8; n++) max = wl_max(max, wl_max(z[n][2 * r], z[n][2 * r + 1]));
      sums[r].rescale(max);
      const float base = NarrowSum::base(max);
      WL_UNROLL for (int n = 0; n < 8; n++) {
        WL_UNROLL for (int c = 0; c < 2; c++) {
          const bool own_target = 8 * n + c == target;
          const float v = wl_ex2((z[n][2 * r + c] - base) * WL_LOG2E);
          sums[r].rest += own_target ? 0.f : v;
          if (own_target) sums[r].at = z[n][2 * r + c];
        }
      }
    }
  }
  WL_UNROLL for (int r = 0; r < 2; r++) {
    WL_UNROLL for (wl_u32 lanes = 1; lanes < 4; lanes *= 2) {
      sums[r].merge({wl_shfl_xor(WL_FULL_MASK, sums[r].max, lanes), wl_shfl_xor(WL_FULL_MASK, sums[r].rest, lanes),
                     wl_shfl_xor(WL_FULL_MASK, sums[r].at, lanes)});
    }
    const wl_i64 row = own_first + narrow_row() + 8 * r;
    if (wl_lane() % 4 != 0 || row >= live) continue;
    float* to = a.partials + 3 * (split * a.n + row);
    wl_st(to, sums[r].max), wl_st(to + 1, sums[r].rest), wl_st(to + 2, sums[r].at);
  }
}

// A slot a thread: its softmax of all splits. Slots without a row have a loss of 0.
WL_FN void narrow_loss_body(const NarrowArgs& a) {
  const wl_i64 live = narrow_live(a);
  for (wl_i64 slot = first_of_grid(); slot < a.n; slot += step_of_grid()) {
    if (slot >= live) {
      wl_st(a.nll + slot, 0.f);
      continue;
    }
    NarrowSum sum = {-wl_inf(), 0.f, 0.f};
    for (wl_i64 split = 0; split < a.splits; split++) {
      const float* from = a.partials + 3 * (split * a.n + slot);
      sum.merge({wl_ld(from), wl_ld(from + 1), wl_ld(from + 2)});
    }
    const float base = NarrowSum::base(sum.max), at = wl_exp(sum.at - base), total = sum.rest + at;
    wl_st(a.scale + 2 * slot, base);
    wl_st(a.scale + 2 * slot + 1, 1.f / total);
    wl_st(a.miss + slot, sum.rest / total);
    wl_st(a.nll + slot, at > 1e-30f ? wl_log1p(sum.rest / at) : wl_log(total) + (base - sum.at));
  }
}

// A row of the batch, where its logits' gradient is made: of its largest logit and of what the others'
// exponentials relative to it are multiplied by, as a common offset of the logits costs no digits so.
struct NarrowRow {
  float base, factor, own;
  int target;  // its class's place among those at hand

  WL_FN static NarrowRow of(const NarrowArgs& a, wl_i64 row, wl_i64 live) {
    if (row >= live) return {0.f, 0.f, 0.f, -1};
    const float factor = wl_ld(a.factors + row);
    return {wl_ld(a.scale + 2 * row), factor * wl_ld(a.scale + 2 * row + 1), -factor * wl_ld(a.miss + row), -1};
  }
  // The target's is no difference of near numbers.
  WL_FN float slope(float z, int place) const {
    return place == target ? own : factor * wl_ex2((z - base) * WL_LOG2E);
  }
};

// The gradient of the hidden rows, split by split.
template <class T>
WL_FN void narrow_hidden_back(const NarrowArgs& a) {
  WL_NARROW_TILE(NARROW_PARTS<T>);
  const wl_i64 live = narrow_live(a), first = wl_block() / a.splits * WL_NARROW_OWN, split = wl_block() % a.splits;
  if (first >= live) return;
  const NarrowRows<T> weight = narrow_weight<T>(a);
  const wl_i64 own_first = first + 16 * wl_warp();
  NarrowOwn<2> own;
  own.load(narrow_hidden(a, live), own_first);
  const NarrowSplit classes(a, split);
  NarrowRow rows[2];
  WL_UNROLL for (int r = 0; r < 2; r++) {
    const wl_i64 row = own_first + narrow_row() + 8 * r;
    rows[r] = NarrowRow::of(a, row, live);
    rows[r].target = row < live ? classes.place((wl_i64)wl_ld(a.targets + row)) : WL_NARROW_NOWHERE;
  }
  float sums[2 * WL_NARROW_STEPS][4] = {};
  for (wl_i64 begin = classes.begin; begin < classes.end; begin += WL_NARROW_OTHER) {
    wl_syncthreads();  // nobody reads the last tile any more
    tile.load(weight, begin, true);
    wl_syncthreads();  // the tile is there
    const int left = (int)(classes.end - begin < WL_NARROW_OTHER ? classes.end - begin : WL_NARROW_OTHER);
    // Unrolled it would take more registers than two blocks leave.
    WL_UNROLL_N(1) for (int j = 0; j < 4; j++) {
      float z[2][4];
      WL_UNROLL for (int n = 0; n < 2; n++) {
        tile.template products<true>(own, weight.steps(), 2 * j + n, z[n]);
        const int first_place = 8 * (2 * j + n) + (int)narrow_column();
        WL_UNROLL for (int e = 0; e < 4; e++) z[n][e] = rows[e / 2].slope(z[n][e], first_place + e % 2);
        if (left < WL_NARROW_OTHER) {
          WL_UNROLL for (int e = 0; e < 4; e++) z[n][e] = first_place + e % 2 < left ? z[n][e] : 0.f;
        }
      }
      tile.add(z, weight.steps(), j, sums);
    }
    WL_UNROLL for (int r = 0; r < 2; r++) rows[r].target -= WL_NARROW_OTHER;
  }
  WL_UNROLL for (int f = 0; f < 2 * WL_NARROW_STEPS; f++) {
    WL_UNROLL for (int e = 0; e < 4; e++) {
      const wl_i64 row = own_first + narrow_row() + 8 * (e / 2), column = 8 * f + narrow_column() + e % 2;
      if (row < live && column < a.width) wl_st(a.partials + (split * a.n + row) * a.width + column, sums[f][e]);
    }
  }
}

// The splits' gradients, added up; 0 where there is no row.
WL_FN void narrow_hidden_sum_body(const NarrowArgs& a) {
  const wl_i64 live = narrow_live(a);
  for (Elements at(a.width); at.row < a.n; at.next()) {
    float sum = 0.f;
    for (wl_i64 split = 0; at.row < live && split < a.splits; split++) {
      sum += wl_ld(a.partials + (split * a.n + at.row) * a.width + at.column);
    }
    store_float(a.to, a.to_kind, at.row * a.to_stride + at.column, sum);
  }
}

// The gradient of the weights, classes by blocks.
template <class T>
WL_FN void narrow_weight_back(const NarrowArgs& a) {
  WL_NARROW_TILE(2);
  WL_SMEM(NarrowRow, infos, WL_NARROW_OTHER);
  const wl_i64 live = narrow_live(a), block_first = (wl_i64)wl_block() * WL_NARROW_OWN;
  const wl_i64 own_first = block_first + 16 * wl_warp();
  const NarrowRows<f32> hidden = narrow_hidden(a, live);
  NarrowOwn<NARROW_PARTS<T>> own;
  own.load(narrow_weight<T>(a), own_first);
  float sums[2 * WL_NARROW_STEPS][4] = {};
  for (wl_i64 begin = 0; begin < live; begin += WL_NARROW_OTHER) {
    wl_syncthreads();  // nobody reads the last tile any more
    tile.load(hidden, begin, true);
    if (wl_thread() < WL_NARROW_OTHER) {
      const wl_i64 other = begin + wl_thread();
      NarrowRow row = NarrowRow::of(a, other, live);
      if (other < live) row.target = narrow_within(wl_ld(a.targets + other), block_first, WL_NARROW_OWN);
      infos[wl_thread()] = row;
    }
    wl_syncthreads();  // the tile is there
    const int left = (int)(live - begin < WL_NARROW_OTHER ? live - begin : WL_NARROW_OTHER);
    // Unrolled it would take more registers than two blocks leave.
    WL_UNROLL_N(1) for (int j = 0; j < 4; j++) {
      float z[2][4];
      WL_UNROLL for (int n = 0; n < 2; n++) {
        tile.template products<false>(own, hidden.steps(), 2 * j + n, z[n]);
        const int first_row = 8 * (2 * j + n) + (int)narrow_column();
        WL_UNROLL for (int c = 0; c < 2; c++) {
          const NarrowRow row = infos[first_row + c];
          WL_UNROLL for (int r = 0; r < 2; r++) {
            const int place = (int)(16 * wl_warp() + narrow_row()) + 8 * r;
            z[n][2 * r + c] = row.slope(z[n][2 * r + c], place);
          }
        }
        // A class that does not exist is not written; where there is no row, an infinite weight has no logit.
        if (left < WL_NARROW_OTHER) {
          WL_UNROLL for (int e = 0; e < 4; e++) z[n][e] = first_row + e % 2 < left ? z[n][e] : 0.f;
        }
      }
      tile.add(z, hidden.steps(), j, sums);
    }
  }
  WL_UNROLL for (int f = 0; f < 2 * WL_NARROW_STEPS; f++) {
    WL_UNROLL for (int e = 0; e < 4; e++) {
      const wl_i64 class_ = own_first + narrow_row() + 8 * (e / 2), column = 8 * f + narrow_column() + e % 2;
      if (class_ >= a.classes || column >= a.width) continue;
      const wl_i64 to = class_ * a.to_stride + column;
      store_float(a.to, a.to_kind, to, a.add ? load_float(a.to, a.to_kind, to) + sums[f][e] : sums[f][e]);
    }
  }
}

WL_FN void narrow_forward_f16_body(const NarrowArgs& a) { narrow_forward<f16>(a); }
WL_FN void narrow_forward_bf16_body(const NarrowArgs& a) { narrow_forward<bf16>(a); }
WL_FN void narrow_hidden_f16_body(const NarrowArgs& a) { narrow_hidden_back<f16>(a); }
WL_FN void narrow_hidden_bf16_body(const NarrowArgs& a) { narrow_hidden_back<bf16>(a); }
WL_FN void narrow_weight_f16_body(const NarrowArgs& a) { narrow_weight_back<f16>(a); }
WL_FN void narrow_weight_bf16_body(const NarrowArgs& a) { narrow_weight_back<bf16>(a); }
