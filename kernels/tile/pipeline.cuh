// Products of two matrices of 16-bit rows, of any number of features, on the tensor cores: a block owns 128 rows of one
// matrix and goes through the other, 256 rows at a time. A warp makes 64 by 64 products, in registers.
//
// Both come through shared memory, 32 features at a time (a stage). While a stage is multiplied the next ones are on
// their way, those of the next tile too: whoever uses a tile's products does so while its successor comes.
//
// Why these sizes (per 16 features and block, of a multiprocessor that multiplies 1024 pairs a clock): 512 clocks of
// products, 256 to read 32 KiB of fragments, 96 to write 12 KiB that come at 24 bytes a clock. Tiles of 128 by 128
// would read and write for as long as they multiply.
//
// No access has two lanes of a turn in a bank: a row of a stage is 4 pieces of 16 bytes, two rows are 128 bytes, and
// which piece is where changes every two rows (Piece). A turn is 8 lanes of one piece each: of 8 rows where fragments
// are read, of 2 where stages are written.
//
// Own rows may be longer than the others, which then begin again: parts of a row lie side by side, each of the next
// multiple of 8 features, and meet the same other row.
#pragma once
#include "tile/product.cuh"

#define WL_PIPE_OWN 128
#define WL_PIPE_OTHER 256
#define WL_PIPE_FEATURES 32
#define WL_PIPE_STAGES 3
#define WL_PIPE_ROW (WL_PIPE_FEATURES / 2)  // words of a row
#define WL_PIPE_STAGE ((WL_PIPE_OWN + WL_PIPE_OTHER) * WL_PIPE_ROW)
#define WL_PIPE_WORDS (WL_PIPE_STAGES * WL_PIPE_STAGE)
#define WL_PIPE_WARP 64    // rows of either matrix that a warp multiplies
#define WL_PIPE_ACROSS (WL_PIPE_OTHER / WL_PIPE_WARP)  // warps that share their own rows

// A warp's products: element e of fragment [m][n] is own row 16 * m + row_of(e), other row 8 * n + column_of(e).
typedef float PipeProducts[4][8][4];

template <class T>
struct Pipeline {
  wl_shared<wl_u32> memory;
  MatrixView<T> own, other;
  wl_i64 end;             // of the other rows
  const T* own_rows[2];   // of the thread; null: not read
  // What is brought next, and where to; what is multiplied next.
  wl_i64 coming;
  wl_i64 column, other_column;
  wl_u32 to, at;

  // Where a piece of a row lies.
  static WL_FN wl_u32 piece(wl_u32 row, wl_u32 piece) { return row * WL_PIPE_ROW + 4 * (piece ^ (row / 2 % 4)); }
  static WL_FN wl_u32 own_of_warp() { return WL_PIPE_WARP * (wl_warp() / WL_PIPE_ACROSS); }
  static WL_FN wl_u32 other_of_warp() { return WL_PIPE_WARP * (wl_warp() % WL_PIPE_ACROSS); }

  // Of a piece that begins there.
  static WL_FN wl_u32 bytes_from(const MatrixView<T>& of, wl_i64 column) {
    const wl_i64 after = of.width - column;
    return after < 0 ? 0u : after < 8 ? 2 * (wl_u32)after : 16u;
  }

  // The first stages of other rows `begin` to `end` are on their way. `place(i)`: which row is the block's own i-th;
  // below 0: none, and zeros are multiplied.
  template <class Place>
  WL_FN void start(wl_i64 begin, wl_i64 stop, Place place) {
    coming = own.width > 0 ? begin : stop;
    end = stop, column = other_column = 0, to = at = 0;
    WL_UNROLL for (int i = 0; i < 2; i++) {
      const wl_i64 row = place(64 * i + wl_thread() / 4);
      own_rows[i] = row < 0 ? nullptr : own.row(row);
    }
    WL_UNROLL for (int i = 0; i < WL_PIPE_STAGES - 1; i++) bring();
  }

  // A stage, a thread 6 pieces of it.
  WL_FN void bring() {
    if (coming < end) {
      const wl_u32 row = wl_thread() / 4, part = wl_thread() % 4, place = to + piece(row, part);
      const wl_i64 again = (other.width + 7) / 8 * 8, ahead = other_column + 8 * part;
      // Whatever the others begin again with, what an own row has not got takes nothing of.
      const wl_i64 other_at = column + 8 * part >= own.width ? other.width : ahead < again ? ahead : ahead - again;
      if (own.packed && other.packed) {
        const wl_i64 rows = other.rows - coming - row;
        const wl_u32 bytes = bytes_from(own, column + 8 * part), other_bytes = bytes_from(other, other_at);
        const T* const other_row = other.values + (coming + row) * other.stride + other_at;
        WL_UNROLL for (int i = 0; i < 2; i++) {
          const wl_u32 own_bytes = own_rows[i] ? bytes : 0u;
          wl_cp_async16_of(memory, place + OTHERS * i, own_rows[i] + 8 * part + column, own_bytes);
        }
        WL_UNROLL for (int i = 0; i < 4; i++) {
          wl_cp_async16_of(memory, place + OTHERS * (i + 2), other_row + 64 * i * other.stride, 64 * i < rows ? other_bytes : 0u);
        }
      } else {
        WL_UNROLL for (int i = 0; i < 2; i++) {
          own.bring(own_rows[i], column + 8 * part, memory, place + OTHERS * i);
        }
        WL_UNROLL for (int i = 0; i < 4; i++) {
          other.bring(other.row(coming + 64 * i + row), other_at, memory, place + OTHERS * (i + 2));
        }
      }
      to = next(to);
      column += WL_PIPE_FEATURES, other_column += WL_PIPE_FEATURES;
      if (other_column >= again) other_column -= again;
      if (column >= own.width) column = other_column = 0, coming += WL_PIPE_OTHER;
    }
    wl_cp_async_commit();
  }
  static constexpr wl_u32 OTHERS = 64 * WL_PIPE_ROW;  // words to the next row of a thread
  static WL_FN wl_u32 next(wl_u32 stage) { return stage + WL_PIPE_STAGE < WL_PIPE_WORDS ? stage + WL_PIPE_STAGE : 0u; }

  // Adds a tile's products. All threads call it.
  WL_FN void add_products(PipeProducts& z) {
    WL_UNROLL_N(1) for (wl_i64 from = 0; from < own.width; from += WL_PIPE_FEATURES) {
      wl_cp_async_wait<WL_PIPE_STAGES - 2>();
      wl_syncthreads();  // the stage is there, and nobody reads the last one any more
      bring();
      multiply(z);
      at = next(at);
    }
  }

  WL_FN void multiply(PipeProducts& z) const {
    const wl_u32 lane = wl_lane(), own_row = own_of_warp() + lane % 16;
    const wl_u32 other_row = WL_PIPE_OWN + other_of_warp() + lane / 16 * 8 + lane % 8;
    WL_UNROLL for (int s = 0; s < WL_PIPE_FEATURES / 16; s++) {
      const wl_u32 own_at = at + piece(own_row, 2 * s + lane / 16), other_at = at + piece(other_row, 2 * s + lane / 8 % 2);
      wl_u32 a[4][4];
      WL_UNROLL for (int m = 0; m < 4; m++) wl_ldmatrix(a[m], memory, own_at + 16 * WL_PIPE_ROW * m);
      WL_UNROLL for (int n = 0; n < 4; n++) {
        wl_u32 b[4];
        wl_ldmatrix(b, memory, other_at + 16 * WL_PIPE_ROW * n);
        WL_UNROLL for (int m = 0; m < 4; m++) {
          wl_mma<T>(z[m][2 * n], a[m], b[0], b[1]);
          wl_mma<T>(z[m][2 * n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }
};

#define WL_PIPELINE(T, name, own, other)                        \
  WL_DYNAMIC_SMEM(wl_u32, name##_stages, 0, WL_PIPE_WORDS);     \
  Pipeline<T> name = {name##_stages, own, other, 0, {}, 0, 0, 0, 0, 0}
