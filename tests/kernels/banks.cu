// Shared memory by banks: accesses that lose turns which are known, and tiles of products, which lose none
// (tests/device/banks.rs).
#include "tile/pipeline.cuh"

struct BankArgs {
  const void* x;
  float* y;
  wl_i64 rows, stride, width;
};

// A word a lane, `stride` words apart: written, then read.
WL_KERNEL(test_strided_words, BankArgs, 32, 1) {
  WL_SMEM(wl_u32, words, 2048);
  const wl_u32 at = wl_lane() * (wl_u32)args.stride;
  words[at] = at;
  wl_syncthreads();
  wl_st(args.y + wl_lane(), (float)words[at]);
}

// A tile by pairs of features and pairs of rows, 36 words between features: as wide as it has to be, and yet a warp's
// words lie in four banks.
WL_KERNEL(test_turned_words, BankArgs, 256, 1) {
  WL_SMEM(wl_u32, turned, 64 * 36);
  for (wl_u32 i = wl_thread(); i < 32 * 32; i += wl_threads()) {
    const wl_u32 two = i / 32, c = i % 32;
    turned[2 * c * 36 + two] = i;
    turned[(2 * c + 1) * 36 + two] = i;
  }
  wl_syncthreads();
  if (wl_thread() == 0) wl_st(args.y, (float)turned[0]);
}

// (x·xᵀ)·x of the first 128 rows, by tiles. SOON: brings what is to come to where the tile is that is read.
template <class T, bool SOON>
WL_FN void through_tiles(const BankArgs& args) {
  WL_TILE(T, MatrixView<T>(args.x, args.rows, args.stride, args.width));
  const auto alone = [](wl_i64) {};
  tile.start(0, args.rows, alone);
  OwnRows<PARTS_OF<T>> own;
  own.load(tile.from, 16 * wl_warp());
  float sums[2 * WL_TILE_STEPS][4] = {};
  for (wl_i64 begin = 0; begin < args.rows; begin += WL_TILE_OTHER) {
    tile.next(begin, args.rows, alone);
    for (int j = 0; j < 4; j++) {
      float z[2][4];
      tile.template products<true>(own, j, z);
      tile.add(z, j, sums);
    }
    if (SOON) tile.bring(begin, tile.begins), wl_cp_async_commit(), wl_cp_async_wait();
  }
  for (int f = 0; f < 2 * WL_TILE_STEPS; f++) {
    for (int e = 0; e < 4; e++) {
      const wl_i64 row = 16 * wl_warp() + fragment_row() + 8 * (e / 2), column = 8 * f + fragment_column() + e % 2;
      if (row < args.rows && column < args.width) wl_st(args.y + row * args.width + column, sums[f][e]);
    }
  }
}
WL_KERNEL(test_tiles_f32, BankArgs, 256, 1) { through_tiles<f32, false>(args); }
WL_KERNEL(test_tiles_f16, BankArgs, 256, 1) { through_tiles<f16, false>(args); }
WL_KERNEL(test_tiles_bf16, BankArgs, 256, 1) { through_tiles<bf16, false>(args); }
WL_KERNEL(fault_tiles_too_soon, BankArgs, 256, 1) { through_tiles<bf16, true>(args); }

// x·xᵀ of the first 128 rows, by stages. SOON: the first is multiplied by who has brought a share of it, without a
// barrier.
template <class T, bool SOON>
WL_FN void through_stages(const BankArgs& args) {
  const MatrixView<T> x(args.x, args.rows, args.stride, args.width);
  WL_PIPELINE(T, pipeline, x, x);
  pipeline.start(0, args.rows, [&](wl_u32 row) { return row < args.rows ? (wl_i64)row : -1; });
  for (wl_i64 begin = 0; begin < args.rows; begin += WL_PIPE_OTHER) {
    PipeProducts z = {};
    if (SOON) wl_cp_async_wait<0>(), pipeline.multiply(z);
    pipeline.add_products(z);
    for (int m = 0; m < 4; m++) {
      for (int n = 0; n < 8; n++) {
        for (int e = 0; e < 4; e++) {
          const wl_i64 row = pipeline.own_of_warp() + 16 * m + fragment_row() + 8 * (e / 2);
          const wl_i64 column = begin + pipeline.other_of_warp() + 8 * n + fragment_column() + e % 2;
          if (row < args.rows && column < args.rows) wl_st(args.y + row * args.rows + column, z[m][n][e]);
        }
      }
    }
  }
  wl_cp_async_wait<0>();
}
WL_KERNEL(test_stages_f16, BankArgs, 256, 1) { through_stages<f16, false>(args); }
WL_KERNEL(test_stages_bf16, BankArgs, 256, 1) { through_stages<bf16, false>(args); }
WL_KERNEL(fault_stages_too_soon, BankArgs, 256, 1) { through_stages<bf16, true>(args); }
