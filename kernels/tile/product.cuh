// Products of two matrices on the tensor cores: a block owns 128 rows of one matrix (a warp 16 of them, as
// fragments in registers) and goes through the other, 64 rows at a time in shared memory.
//
// Tensor cores multiply 16-bit numbers: what is f32 is cut into two bf16 parts (dtype.cuh), and so are f16
// weights, as a product of parts must have one type; each pair of parts is a product.
#pragma once
#include "core/dtype.cuh"

#define WL_TILE_STEPS 4   // of 16 features
#define WL_TILE_OWN 128   // rows of a block
#define WL_TILE_OTHER 64  // rows of a tile
#define WL_TILE_PAIRS 36  // 32-bit words between rows of a tile: 32, and 4 against bank conflicts

// How many bf16 parts make an element.
template <class T>
struct PartsOf {
  static constexpr int count = 2;
};
template <>
struct PartsOf<bf16> {
  static constexpr int count = 1;
};
template <class T>
constexpr int PARTS_OF = PartsOf<T>::count;

// Two numbers as words of parts.
template <int parts>
WL_FN void cut_parts(float x, float y, wl_u32 (&to)[parts]) {
  if constexpr (parts == 1) {
    to[0] = wl_pack_bf16x2(x, y);
  } else {
    const Parts<2> a(x), b(y);
    to[0] = wl_pack_bf16x2(a.part[0], b.part[0]), to[1] = wl_pack_bf16x2(a.part[1], b.part[1]);
  }
}

// Rows that are read; zeros outside.
template <class T>
struct MatrixView {
  static constexpr int PARTS = PARTS_OF<T>;
  const T* values;
  wl_i64 rows, stride, width;
  bool paired;  // every pair is one access

  WL_FN MatrixView(const void* p, wl_i64 rows, wl_i64 stride, wl_i64 width)
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
      cut_parts(Dtype<T>::load(at), column + 1 < width ? Dtype<T>::load(at + 1) : 0.f, to);
    }
  }
  WL_FN int steps() const { return (int)((width + 15) / 16); }
};

// Where a lane is in a fragment: an accumulator's element e is row `row() + 8 * (e / 2)`, column
// `column() + e % 2` of a tile of 16 by 8.
WL_FN wl_u32 fragment_row() { return wl_lane() / 4; }
WL_FN wl_u32 fragment_column() { return 2 * (wl_lane() % 4); }

// A warp's 16 rows.
template <int parts>
struct OwnRows {
  wl_u32 a[parts][WL_TILE_STEPS][4];

  template <class T>
  WL_FN void load(const MatrixView<T>& rows, wl_i64 first) {
    WL_UNROLL for (int s = 0; s < WL_TILE_STEPS; s++) {
      WL_UNROLL for (int r = 0; r < 4; r++) {
        wl_u32 two[parts];
        rows.pair(first + fragment_row() + 8 * (r % 2), 16 * s + fragment_column() + 8 * (r / 2), two);
        WL_UNROLL for (int i = 0; i < parts; i++) a[i][s][r] = two[i];
      }
    }
  }
};

#define WL_TILE_ROWS (WL_TILE_OTHER * WL_TILE_PAIRS)
#define WL_TILE_TURNED (16 * WL_TILE_STEPS * WL_TILE_PAIRS)

// Rows of the other matrix, by pairs of features and, turned, by pairs of rows; a part after the other.
template <int parts>
struct Tile {
  wl_shared<wl_u32> rows, turned;

  template <class T>
  WL_FN void load(const MatrixView<T>& from, wl_i64 first, bool turn) const {
    const wl_u32 pairs = 8 * from.steps();
    for (wl_u32 i = wl_thread(); i < WL_TILE_OTHER / 2 * pairs; i += wl_threads()) {
      const wl_u32 two = i / pairs, c = i % pairs;
      wl_u32 lower[parts], upper[parts];
      from.pair(first + 2 * two, 2 * c, lower), from.pair(first + 2 * two + 1, 2 * c, upper);
      WL_UNROLL for (int p = 0; p < parts; p++) {
        const wl_u32 row = p * WL_TILE_ROWS + 2 * two * WL_TILE_PAIRS + c;
        rows[row] = lower[p];
        rows[row + WL_TILE_PAIRS] = upper[p];
        if (!turn) continue;
        const wl_u32 at = p * WL_TILE_TURNED + 2 * c * WL_TILE_PAIRS + two;
        turned[at] = (lower[p] & 0xffffu) | upper[p] << 16;
        turned[at + WL_TILE_PAIRS] = lower[p] >> 16 | (upper[p] & 0xffff0000u);
      }
    }
  }

  // z[e] = the product of an own row with row 8 * n + column of the tile. Whichever of them is the hidden
  // row, its parts come in the same order, so that the products are the same. OWN: it is the own one.
  template <bool OWN, int own_parts>
  WL_FN void products(const OwnRows<own_parts>& own, int steps, int n, float (&z)[4]) const {
    WL_UNROLL for (int e = 0; e < 4; e++) z[e] = 0.f;
    const wl_u32 at = (8 * n + wl_lane() / 4) * WL_TILE_PAIRS + wl_lane() % 4;
    constexpr int HIDDEN = OWN ? own_parts : parts, WEIGHT = OWN ? parts : own_parts;
    WL_UNROLL for (int s = 0; s < WL_TILE_STEPS; s++) {
      if (s >= steps) continue;
      WL_UNROLL for (int h = 0; h < HIDDEN; h++) {
        WL_UNROLL for (int w = 0; w < WEIGHT; w++) {
          const wl_u32 b = (OWN ? w : h) * WL_TILE_ROWS + at + 8 * s;
          wl_mma<bf16>(z, own.a[OWN ? h : w][s], rows[b], rows[b + 4]);
        }
      }
    }
  }

  // sums += dz · rows 16 * j to 16 * j + 16 of the tile; dz is two fragments of 8 columns, whose parts are
  // then one of 16.
  WL_FN void add(const float (&dz)[2][4], int steps, int j, float (&sums)[2 * WL_TILE_STEPS][4]) const {
    wl_u32 a[2][4];
    WL_UNROLL for (int r = 0; r < 4; r++) {
      wl_u32 two[2];
      cut_parts(dz[r / 2][2 * (r % 2)], dz[r / 2][2 * (r % 2) + 1], two);
      a[0][r] = two[0], a[1][r] = two[1];
    }
    WL_UNROLL for (int f = 0; f < 2 * WL_TILE_STEPS; f++) {
      if (f >= 2 * steps) continue;
      WL_UNROLL for (int p = 0; p < parts; p++) {
        const wl_u32 at = p * WL_TILE_TURNED + (8 * f + wl_lane() / 4) * WL_TILE_PAIRS + 8 * j + wl_lane() % 4;
        WL_UNROLL for (int i = 0; i < 2; i++) wl_mma<bf16>(sums[f], a[i], turned[at], turned[at + 4]);
      }
    }
  }
};

#define WL_TILE(parts)                              \
  WL_SMEM(wl_u32, tile_rows, (parts) * WL_TILE_ROWS);     \
  WL_SMEM(wl_u32, tile_turned, (parts) * WL_TILE_TURNED); \
  const Tile<(parts)> tile = {tile_rows, tile_turned}
