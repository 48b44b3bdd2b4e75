// Lines along any dimensions of a tensor, gathered to lie one after another, and scattered back.
//
// For tensors whose classes are not the last dimension: one more read and write of each element.
// Where neighbours in the tensor are neighbouring lines ([N, C, d1, ...] along C), tiles of 32 x 32
// are turned in shared memory, so that both sides are read and written along their neighbours;
// otherwise an element a thread, plainly. Launches: src/cuda/schedule/lines.rs.
#pragma once
#include "core/args.cuh"

// Where an outer index lies in the tensor, of the dimensions before `end`.
WL_FN wl_i64 permuted(const PermuteArgs& a, wl_i64 index, int end) {
  wl_i64 at = 0;
  for (int d = end - 1; d >= 0; d--) {
    if (a.sizes[d] == 1) continue;
    at += index % a.sizes[d] * a.strides[d];
    index /= a.sizes[d];
  }
  return at;
}

template <class E>
WL_FN void permute_elements(const PermuteArgs& a) {
  const wl_i64 step = (wl_i64)wl_blocks() * wl_threads();
  for (wl_i64 i = (wl_i64)wl_block() * wl_threads() + wl_thread(); i < a.elements; i += step) {
    const wl_i64 at = permuted(a, i, WL_MAX_DIMS);
    const wl_i64 from = a.back ? i : at, to = a.back ? at : i;
    wl_st((E*)a.to + to, wl_ld((const E*)a.from + from));
  }
}

WL_FN void permute_body(const PermuteArgs& a) {
  if (a.size == 4) {
    permute_elements<wl_u32>(a);
  } else {
    permute_elements<wl_u16>(a);
  }
}

// A tile's rows are a word longer, so that a column of it lies in 32 banks.
#define WL_TILE 32
#define WL_TILE_ROW (WL_TILE + 1)
#define WL_TILE_WARPS 8
#define WL_TILE_STEPS (WL_TILE / WL_TILE_WARPS)

// The last two dimensions, [lines, columns] by their sizes, swapped in each of the matrices that
// the other dimensions number. Lines have stride 1 in the tensor, columns any.
template <class E>
WL_FN void permute_tiles(const PermuteArgs& a, wl_shared<wl_u32> tile) {
  const wl_i64 lines = a.sizes[WL_MAX_DIMS - 2], columns = a.sizes[WL_MAX_DIMS - 1];
  const wl_i64 down = (lines + WL_TILE - 1) / WL_TILE, across = (columns + WL_TILE - 1) / WL_TILE;
  const wl_i64 tiles = a.elements / (lines * columns) * down * across;
  const wl_i64 stride = a.strides[WL_MAX_DIMS - 1];
  // A block has neighbouring tiles, so that it divides once, and not for every tile.
  const wl_i64 begin = tiles * wl_block() / wl_blocks(), end = tiles * (wl_block() + 1) / wl_blocks();
  wl_i64 matrix = begin / (down * across);
  wl_i64 line = begin / across % down * WL_TILE, column = begin % across * WL_TILE;
  wl_i64 tensor = permuted(a, matrix, WL_MAX_DIMS - 2), plain = matrix * lines * columns;
  for (wl_i64 t = begin; t < end; t++) {
    // Element (l, c) is at l + c * stride on one side, at l * columns + c on the other; lanes go
    // along l there, along c here.
    E v[WL_TILE_STEPS];
    WL_UNROLL for (wl_u32 i = 0; i < WL_TILE_STEPS; i++) {
      const wl_u32 at = i * WL_TILE_WARPS + wl_warp();
      const wl_i64 l = line + (a.back ? at : wl_lane()), c = column + (a.back ? wl_lane() : at);
      v[i] = 0;
      if (l >= lines || c >= columns) continue;
      v[i] = wl_ld((const E*)a.from + (a.back ? plain + l * columns + c : tensor + l + c * stride));
    }
    WL_UNROLL for (wl_u32 i = 0; i < WL_TILE_STEPS; i++) {
      tile[(i * WL_TILE_WARPS + wl_warp()) * WL_TILE_ROW + wl_lane()] = v[i];
    }
    wl_syncthreads();  // the tile is there
    WL_UNROLL for (wl_u32 i = 0; i < WL_TILE_STEPS; i++) {
      const wl_u32 at = i * WL_TILE_WARPS + wl_warp();
      const wl_i64 l = line + (a.back ? wl_lane() : at), c = column + (a.back ? at : wl_lane());
      if (l >= lines || c >= columns) continue;
      const wl_i64 to = a.back ? tensor + l + c * stride : plain + l * columns + c;
      wl_st((E*)a.to + to, (E)(wl_u32)tile[wl_lane() * WL_TILE_ROW + at]);
    }
    wl_syncthreads();  // nobody reads the tile any more
    column += WL_TILE;
    if (column < columns) continue;
    column = 0, line += WL_TILE;
    if (line < lines) continue;
    line = 0, matrix++;
    tensor = permuted(a, matrix, WL_MAX_DIMS - 2), plain = matrix * lines * columns;
  }
}

// Blocks of WL_TILE_WARPS warps.
WL_FN void permute_tiled_body(const PermuteArgs& a) {
  WL_SMEM(wl_u32, tile, WL_TILE * WL_TILE_ROW);
  if (a.size == 4) {
    permute_tiles<wl_u32>(a, tile);
  } else {
    permute_tiles<wl_u16>(a, tile);
  }
}
