// Products of a matrix of which pieces are zeros, with one that is whole, on the tensor cores. A flag says of a tile of
// 128 by 256 what is none: bit 4 * i + j, if the i-th 64 columns of the j-th 32 rows are. A block makes 128 by 256 sums,
// a warp 64 by 64 of them, in registers, and goes through what is not zeros in its rows by 64 columns (TURNED: in its
// columns by 32 rows); the rest is neither read nor multiplied.
//
//   C = A B, or with TURNED  C = A^T B      A: bf16 parts, B: the same; C: of T, or added to what is there
//
// Each pair of parts but the lesser ones' is a product of its own, one after another within a tile: so sums have one
// order, and zeros that are gone by leave every bit.
//
// Both come through shared memory, 32 of what is summed over at a time (a stage), as in pipeline.cuh. B, and A where it
// is turned, lie there by rows of that, which ldmatrix turns: 16 bytes of one place in eight rows lie in all banks, as
// pieces change places row by row. A turn writes eight pieces of a row.
#pragma once
#include "core/args.cuh"
#include "tile/pipeline.cuh"

#define WL_SPARSE_ROWS 128  // of a tile
#define WL_SPARSE_COLUMNS 256
#define WL_SPARSE_DEPTH WL_PIPE_FEATURES
#define WL_SPARSE_OTHER (WL_PIPE_OWN * WL_PIPE_ROW)  // words of A's share of a stage

template <bool TURNED>
struct BlockSparse {
  static constexpr int TILE = TURNED ? WL_SPARSE_ROWS : WL_SPARSE_COLUMNS;  // of what is summed over
  wl_shared<wl_u32> memory;
  MatrixView<bf16> a, b;  // the parts that come next
  const BlockSparseArgs& args;
  wl_i64 first, column;  // of the sums
  // Tiles on their way: the 32 before `after`, a lane the stages of one, of which `mask` still come; the next one.
  wl_i64 after, tile;
  wl_u32 stages_of_lane, mask;
  wl_u32 stages, left;  // of the tile, and those that this pair of parts still has, a bit each
  wl_u32 pair;
  wl_u32 to, at;  // in shared memory
  wl_u32 ahead;   // stages that have come and were not multiplied

  WL_FN BlockSparse(wl_shared<wl_u32> memory, const BlockSparseArgs& args, wl_i64 first, wl_i64 column)
      : memory(memory), a(args.a, TURNED ? args.k : args.m, args.a_stride, TURNED ? args.m : args.k),
        b(args.b, args.k, args.b_stride, args.n), args(args), first(first), column(column), after(0),
        stages_of_lane(0), mask(0), stages(0), left(0), pair(0), to(0), at(0), ahead(0) {
    next_tile();
    WL_UNROLL for (int i = 0; i < WL_PIPE_STAGES - 1; i++) bring();
  }

  // What a tile has for the block's sums.
  WL_FN wl_u32 stages_of(wl_i64 of) const {
    const wl_i64 row = TURNED ? of : first / WL_SPARSE_ROWS, along = TURNED ? first / WL_SPARSE_COLUMNS : of;
    const wl_u32 flag = wl_ld(args.flags + row * args.tiles + along);
    if (TURNED) {
      const wl_u32 half = flag >> (first % WL_SPARSE_COLUMNS / WL_PIPE_OWN * 8);
      return (half | half >> 4) & 15u;
    }
    wl_u32 stages = 0;
    WL_UNROLL for (int i = 0; i < 4; i++) stages |= (flag >> 4 * i & 15u) != 0 ? 3u << 2 * i : 0u;
    const wl_i64 there = (args.k - of * TILE + WL_SPARSE_DEPTH - 1) / WL_SPARSE_DEPTH;
    return there < 8 ? stages & ((1u << there) - 1) : stages;
  }
  WL_FN void next_tile() {
    const wl_i64 tiles = (args.k + TILE - 1) / TILE;
    while (mask == 0 && after < tiles) {
      const wl_i64 of = after + wl_lane();
      stages_of_lane = of < tiles ? stages_of(of) : 0u;
      mask = wl_ballot(WL_FULL_MASK, stages_of_lane != 0);
      after += 32;
    }
    const wl_u32 lane = mask == 0 ? 0u : wl_ffs(mask) - 1;
    stages = left = mask == 0 ? 0u : wl_shfl(WL_FULL_MASK, stages_of_lane, lane);
    tile = after - 32 + lane;
    mask &= mask - 1;
  }
  WL_FN void next_pair() {
    pair++;
    const bool of_a = args.a_rest != nullptr;
    left = stages;
    if (pair > (wl_u32)of_a + (args.b_rest != nullptr)) pair = 0, next_tile();
    a.values = (const bf16*)(pair == 1 && of_a ? args.a_rest : args.a);
    b.values = (const bf16*)(pair == 2 || (pair == 1 && !of_a) ? args.b_rest : args.b);
  }

  static WL_FN wl_u32 piece_of_a(wl_u32 row, wl_u32 piece) {
    return TURNED ? row * (WL_PIPE_OWN / 2) + 4 * (piece ^ (row % 8)) : Pipeline<bf16>::piece(row, piece);
  }
  static WL_FN wl_u32 piece_of_b(wl_u32 row, wl_u32 piece) {
    return WL_SPARSE_OTHER + row * (WL_PIPE_OTHER / 2) + 4 * (piece ^ (row % 8));
  }

  // A stage, a thread 6 pieces of it.
  WL_FN void bring() {
    if (left != 0) {
      const wl_i64 from = tile * TILE + WL_SPARSE_DEPTH * (wl_ffs(left) - 1);
      const wl_u32 row_of_a = wl_thread() / PIECES, piece_in_a = wl_thread() % PIECES;
      const wl_u32 row_of_b = wl_thread() / 32, piece_in_b = wl_thread() % 32;
      const wl_i64 a_row = (TURNED ? from : first) + row_of_a, a_column = (TURNED ? first : from) + 8 * piece_in_a;
      const wl_i64 b_row = from + row_of_b, b_column = column + 8 * piece_in_b;
      const wl_u32 a_to = to + piece_of_a(row_of_a, piece_in_a), b_to = to + piece_of_b(row_of_b, piece_in_b);
      if (a.packed && b.packed) {
        const bf16 *const a_at = a.values + a_row * a.stride + a_column, *const b_at = b.values + b_row * b.stride + b_column;
        const wl_u32 a_bytes = bytes_of(a.width - a_column), b_bytes = bytes_of(b.width - b_column);
        const wl_i64 a_left = a.rows - a_row, b_left = b.rows - b_row;
        WL_UNROLL for (int i = 0; i < 2; i++) {
          wl_cp_async16_of(memory, a_to + 1024 * i, a_at + ROWS * i * a.stride, ROWS * i < a_left ? a_bytes : 0u);
        }
        WL_UNROLL for (int i = 0; i < 4; i++) {
          wl_cp_async16_of(memory, b_to + 1024 * i, b_at + 8 * i * b.stride, 8 * i < b_left ? b_bytes : 0u);
        }
      } else {
        WL_UNROLL for (int i = 0; i < 2; i++) a.bring(a.row(a_row + ROWS * i), a_column, memory, a_to + 1024 * i);
        WL_UNROLL for (int i = 0; i < 4; i++) b.bring(b.row(b_row + 8 * i), b_column, memory, b_to + 1024 * i);
      }
      to = Pipeline<bf16>::next(to), ahead++;
      left &= left - 1;
      if (left == 0) next_pair();
    }
    wl_cp_async_commit();
  }
  // A thread's pieces of A are so many rows apart, those of B eight: 1024 words, in the same place of a row.
  static constexpr wl_u32 PIECES = TURNED ? WL_PIPE_OWN / 8 : WL_SPARSE_DEPTH / 8;
  static constexpr wl_i64 ROWS = 256 / PIECES;
  static WL_FN wl_u32 bytes_of(wl_i64 elements) { return elements < 0 ? 0u : elements < 8 ? 2 * (wl_u32)elements : 16u; }

  // All threads call it.
  WL_FN void add_products(PipeProducts& z) {
    WL_UNROLL_N(1) for (; ahead > 0; ahead--) {
      wl_cp_async_wait<WL_PIPE_STAGES - 2>();
      wl_syncthreads();  // the stage is there, and nobody reads the last one any more
      bring();
      multiply(z);
      at = Pipeline<bf16>::next(at);
    }
    wl_cp_async_wait<0>();
  }

  WL_FN void multiply(PipeProducts& z) const {
    const wl_u32 lane = wl_lane(), own = Pipeline<bf16>::own_of_warp(), other = Pipeline<bf16>::other_of_warp();
    WL_UNROLL for (wl_u32 s = 0; s < WL_SPARSE_DEPTH / 16; s++) {
      wl_u32 f[4][4];
      WL_UNROLL for (wl_u32 m = 0; m < 4; m++) {
        if constexpr (TURNED) {
          const wl_u32 row = 16 * s + lane / 16 * 8 + lane % 8;
          wl_ldmatrix_turned(f[m], memory, at + piece_of_a(row, own / 8 + 2 * m + lane / 8 % 2));
        } else {
          wl_ldmatrix(f[m], memory, at + piece_of_a(own + lane % 16, 2 * s + lane / 16) + 16 * WL_PIPE_ROW * m);
        }
      }
      WL_UNROLL for (wl_u32 n = 0; n < 4; n++) {
        wl_u32 g[4];
        wl_ldmatrix_turned(g, memory, at + piece_of_b(16 * s + lane % 16, other / 8 + 2 * n + lane / 16));
        WL_UNROLL for (int m = 0; m < 4; m++) {
          wl_mma<bf16>(z[m][2 * n], f[m], g[0], g[1]);
          wl_mma<bf16>(z[m][2 * n + 1], f[m], g[2], g[3]);
        }
      }
    }
  }
};

WL_FN void put_pair(f32* to, float x, float y) {
  const wl_f32x2 two = {x, y};
  wl_st((wl_u64*)to, wl_bit_cast<wl_u64>(two));
}
WL_FN void put_pair(f16* to, float x, float y) { wl_st((wl_u32*)to, wl_pack_f16x2(x, y)); }
WL_FN void put_pair(bf16* to, float x, float y) { wl_st((wl_u32*)to, wl_pack_bf16x2(x, y)); }

// Two neighbours of C, the second of which may not be there.
template <class T>
WL_FN void put_two(const BlockSparseArgs& args, bool paired, wl_i64 at, float x, float y, bool both) {
  T* const to = (T*)args.c + at;
  if (args.add) x += Dtype<T>::load(to), y += both ? Dtype<T>::load(to + 1) : 0.f;
  if (both && paired) return put_pair(to, x, y);
  Dtype<T>::store(to, x);
  if (both) Dtype<T>::store(to + 1, y);
}

template <bool TURNED, class T>
WL_FN void block_sparse(const BlockSparseArgs& args) {
  WL_DYNAMIC_SMEM(wl_u32, stages, 0, WL_PIPE_WORDS);
  const wl_i64 across = (args.n + WL_PIPE_OTHER - 1) / WL_PIPE_OTHER;
  BlockSparse<TURNED> sparse(stages, args, wl_block() / across * WL_PIPE_OWN, wl_block() % across * WL_PIPE_OTHER);
  if (sparse.ahead == 0 && args.add) return;
  PipeProducts z = {};
  sparse.add_products(z);
  const bool paired = args.c_stride % 2 == 0 && (wl_u64)args.c % (2 * sizeof(T)) == 0;
  WL_UNROLL for (int m = 0; m < 4; m++) {
    WL_UNROLL for (int r = 0; r < 2; r++) {
      const wl_i64 row = sparse.first + Pipeline<bf16>::own_of_warp() + 16 * m + 8 * r + fragment_row();
      if (row >= args.m) continue;
      WL_UNROLL for (int n = 0; n < 8; n++) {
        const wl_i64 column = sparse.column + Pipeline<bf16>::other_of_warp() + 8 * n + fragment_column();
        if (column >= args.n) continue;
        put_two<T>(args, paired, row * args.c_stride + column, z[m][n][2 * r], z[m][n][2 * r + 1], column + 1 < args.n);
      }
    }
  }
}
