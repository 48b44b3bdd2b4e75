// Products of two matrices on the tensor cores: a block owns 128 rows of one matrix (a warp 16 of them, as
// fragments in registers) and goes through the other, 64 rows at a time in shared memory.
//
// Tensor cores multiply 16-bit numbers: what is f32 is cut into two bf16 parts (dtype.cuh), and so are f16
// weights, as a product of parts must have one type; each pair of parts is a product.
//
// While a tile is multiplied the next one is on its way: bf16 rows to a second tile, what has to be cut to memory of
// its own, from where it is cut when all have done with the last tile. Registers hold none of it.
//
// No access has two lanes of a turn in a bank. 16 bytes are a turn of 8 lanes: rows of a tile are 4 banks of 32 apart,
// so that 8 of them cover all; units that 8 lanes write are 2 of 16 bytes in each of 4 rows, every other one.
#pragma once
#include "core/dtype.cuh"
#include "core/tensor_cores.cuh"

#define WL_TILE_STEPS 4   // of 16 features
#define WL_TILE_OWN 128   // rows of a block
#define WL_TILE_OTHER 64  // rows of a tile
#define WL_TILE_PAIRS 36  // 32-bit words between rows of a tile: 32, and 4 against bank conflicts
#define WL_TILE_ROWS (WL_TILE_OTHER * WL_TILE_PAIRS)
#define WL_TILE_UNITS (2 * WL_TILE_OTHER * WL_TILE_STEPS)  // of 8 features

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
  bool packed;  // every row begins at a multiple of 16 bytes

  WL_FN MatrixView(const void* p, wl_i64 rows, wl_i64 stride, wl_i64 width)
      : values((const T*)p), rows(rows), stride(stride), width(width),
        paired((width | stride) % 2 == 0 && (wl_u64)p % 4 == 0),
        packed(((wl_u64)p | (wl_u64)stride * sizeof(T)) % 16 == 0) {}

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

  WL_FN const T* row(wl_i64 index) const { return index < rows ? values + index * stride : nullptr; }
  // 16 bytes of a row on their way to shared memory; of null, zeros.
  WL_FN void bring(const T* row, wl_i64 column, wl_shared<wl_u32> to, wl_u32 at) const {
    constexpr int LANES = Dtype<T>::LANES;
    const wl_i64 after = row ? width - column : 0;
    const int left = after < 0 ? 0 : after < LANES ? (int)after : LANES;
    const T* from = left > 0 ? row + column : values;
    if (packed) return wl_cp_async16_of(to, at, from, left * (int)sizeof(T));
    float v[LANES];
    WL_UNROLL for (int e = 0; e < LANES; e++) v[e] = e < left ? Dtype<T>::load(from + e) : 0.f;
    wl_sts128(to, at, Dtype<T>::template narrow<0>(v));
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

// A tile of rows by pairs of features, a part after the other; of bf16 rows two tiles, which take turns.
template <class T>
struct Tile {
  static constexpr int PARTS = PARTS_OF<T>, PIECES = 8 / Dtype<T>::LANES;
  static constexpr bool CUT = PARTS > 1;
  static constexpr int WORDS = 2 * WL_TILE_ROWS, RAW = CUT ? 4 * PIECES * WL_TILE_UNITS : 4;
  wl_shared<wl_u32> rows, raw;
  MatrixView<T> from;
  wl_u32 begins;  // the tile that is multiplied

  // Eight features of a row, which a thread brings and cuts.
  struct Unit {
    wl_u32 row, column;
    WL_FN Unit(wl_u32 u) : row(u / 16 % 8 * 8 + u / 2 % 4 * 2 + u / 8 % 2), column(u / 128 * 16 + u % 2 * 8) {}
    WL_FN wl_u32 at() const { return row * WL_TILE_PAIRS + column / 2; }
  };
  WL_FN wl_u32 units() const { return 2 * WL_TILE_OTHER * from.steps(); }

  // Products need the registers: what is made of a thread's number is not kept beside them.
  WL_FN void bring(wl_i64 first, wl_u32 to) const {
    WL_UNROLL_N(1) for (wl_u32 u = wl_anew(wl_thread()); u < units(); u += wl_threads()) {
      const Unit unit(u);
      WL_UNROLL for (int i = 0; i < PIECES; i++) {
        from.bring(from.row(first + unit.row), unit.column + i * Dtype<T>::LANES, CUT ? raw : rows,
                   CUT ? 4 * (i * WL_TILE_UNITS + u) : to + unit.at());
      }
    }
  }

  // What the thread has brought itself.
  WL_FN void cut() const {
    WL_UNROLL_N(1) for (wl_u32 u = wl_anew(wl_thread()); u < units(); u += wl_threads()) {
      float v[8];
      wl_u32 words[4][PARTS];
      Dtype<T>::template widen<0>(wl_lds128(raw, 4 * u), v);
      if constexpr (PIECES > 1) Dtype<T>::template widen<4>(wl_lds128(raw, 4 * (WL_TILE_UNITS + u)), v);
      WL_UNROLL for (int i = 0; i < 4; i++) cut_parts(v[2 * i], v[2 * i + 1], words[i]);
      WL_UNROLL for (int p = 0; p < PARTS; p++) {
        wl_sts128(rows, p * WL_TILE_ROWS + Unit(u).at(), {words[0][p], words[1][p], words[2][p], words[3][p]});
      }
    }
  }

  // The first tile is on its way, if there is one. `beside` brings what goes with a tile.
  template <class Beside>
  WL_FN void start(wl_i64 begin, wl_i64 end, Beside beside) {
    begins = CUT ? 0 : WL_TILE_ROWS;
    if (begin < end) bring(begin, 0), beside(begin);
    wl_cp_async_commit();
  }

  // The tile from row `begin` on is there, and the next one on its way.
  template <class Beside>
  WL_FN void next(wl_i64 begin, wl_i64 end, Beside beside) {
    wl_cp_async_wait();
    wl_syncthreads();  // nobody reads the last tile any more, and of bf16 this one is there
    if constexpr (CUT) {
      cut();
      wl_syncthreads();  // the tile is there
    } else {
      begins = WL_TILE_ROWS - begins;
    }
    if (begin + WL_TILE_OTHER < end) bring(begin + WL_TILE_OTHER, WL_TILE_ROWS - begins), beside(begin + WL_TILE_OTHER);
    wl_cp_async_commit();
  }

  // z[n][e] = the product of an own row with row 16 * j + 8 * n + column of the tile. Whichever of them is the hidden
  // row, its parts come in the same order, so that the products are the same. OWN: it is the own one.
  template <bool OWN, int own_parts>
  WL_FN void products(const OwnRows<own_parts>& own, int j, float (&z)[2][4]) const {
    WL_UNROLL for (int e = 0; e < 8; e++) z[e / 4][e % 4] = 0.f;
    const wl_u32 lane = wl_anew(wl_lane());
    const wl_u32 at = begins + (16 * j + lane / 16 * 8 + lane % 8) * WL_TILE_PAIRS + lane / 8 % 2 * 4;
    WL_UNROLL for (int s = 0; s < WL_TILE_STEPS; s++) {
      if (s >= from.steps()) continue;
      wl_u32 b[PARTS][4];
      WL_UNROLL for (int p = 0; p < PARTS; p++) wl_ldmatrix(b[p], rows, p * WL_TILE_ROWS + at + 8 * s);
      constexpr int HIDDEN = OWN ? own_parts : PARTS, WEIGHT = OWN ? PARTS : own_parts;
      WL_UNROLL for (int h = 0; h < HIDDEN; h++) {
        WL_UNROLL for (int w = 0; w < WEIGHT; w++) {
          WL_UNROLL for (int n = 0; n < 2; n++) {
            const wl_u32(&two)[4] = b[OWN ? w : h];
            wl_mma<bf16>(z[n], own.a[OWN ? h : w][s], two[2 * n], two[2 * n + 1]);
          }
        }
      }
    }
  }

  // sums += dz · rows 16 * j to 16 * j + 16 of the tile; dz is two fragments of 8 columns, whose parts are
  // then one of 16.
  WL_FN void add(const float (&dz)[2][4], int j, float (&sums)[2 * WL_TILE_STEPS][4]) const {
    wl_u32 a[2][4];
    WL_UNROLL for (int r = 0; r < 4; r++) {
      wl_u32 two[2];
      cut_parts(dz[r / 2][2 * (r % 2)], dz[r / 2][2 * (r % 2) + 1], two);
      a[0][r] = two[0], a[1][r] = two[1];
    }
    const wl_u32 lane = wl_anew(wl_lane());
    const wl_u32 at = begins + (16 * j + lane % 16) * WL_TILE_PAIRS + lane / 16 * 4;
    WL_UNROLL for (int s = 0; s < WL_TILE_STEPS; s++) {
      if (s >= from.steps()) continue;
      WL_UNROLL for (int p = 0; p < PARTS; p++) {
        wl_u32 b[4];
        wl_ldmatrix_turned(b, rows, p * WL_TILE_ROWS + at + 8 * s);
        WL_UNROLL for (int i = 0; i < 2; i++) {
          WL_UNROLL for (int n = 0; n < 2; n++) wl_mma<bf16>(sums[2 * s + n], a[i], b[2 * n], b[2 * n + 1]);
        }
      }
    }
  }
};

#define WL_TILE(T, from)                    \
  WL_SMEM(wl_u32, tile_rows, Tile<T>::WORDS); \
  WL_SMEM(wl_u32, tile_raw, Tile<T>::RAW);    \
  Tile<T> tile = {tile_rows, tile_raw, from, 0}
