// Rows of matrices from and to other places: what goes between products. An element a thread, each
// read and written once. Launches: src/cuda/products.rs.
#pragma once
#include "args.cuh"
#include "dtype.cuh"

// to[i] = from[rows[i]], 0 where nothing is.
WL_FN void panel_gather_body(const PanelArgs& a) {
  for (Elements at(a.columns); at.row < a.n; at.next()) {
    const bool there = !a.marks || wl_ld(a.marks + at.row) >= 0;
    const wl_i64 row = a.rows ? wl_ld(a.rows + at.row) : at.row;
    const float v = there ? load_float(a.from, a.from_kind, row * a.from_stride + at.column) : 0.f;
    store_float(a.to, a.to_kind, at.row * a.to_stride + at.column, v);
  }
}

// to[rows[i]] += from[i]; each row comes once.
WL_FN void panel_scatter_add_body(const PanelArgs& a) {
  for (Elements at(a.columns); at.row < a.n; at.next()) {
    if (a.marks && wl_ld(a.marks + at.row) < 0) continue;
    const wl_i64 to = (a.rows ? wl_ld(a.rows + at.row) : at.row) * a.to_stride + at.column;
    const float v = load_float(a.from, a.from_kind, at.row * a.from_stride + at.column);
    store_float(a.to, a.to_kind, to, load_float(a.to, a.to_kind, to) + v);
  }
}

// to[i] = from[i], rounded, or added to what is there; 0 where nothing is.
WL_FN void panel_round_body(const PanelArgs& a) {
  for (Elements at(a.columns); at.row < a.n; at.next()) {
    const bool there = a.from && (!a.marks || wl_ld(a.marks + at.row) >= 0);
    const wl_i64 to = at.row * a.to_stride + at.column;
    const float v = there ? load_float(a.from, a.from_kind, at.row * a.from_stride + at.column) : 0.f;
    store_float(a.to, a.to_kind, to, a.add ? load_float(a.to, a.to_kind, to) + v : v);
  }
}

// to[column] = the sum of from[i][column], or that added to it. 32 columns a block: each warp adds every
// eighth row, and the warps' sums are added in order.
WL_FN void panel_column_sums_body(const PanelArgs& a) {
  WL_SMEM(float, sums, 8 * 32);
  const wl_i64 column = (wl_i64)wl_block() * 32 + wl_lane();
  float sum = 0.f;
  if (column < a.columns) {
    WL_UNROLL_N(8) for (wl_i64 row = wl_warp(); row < a.n; row += 8) {
      sum += load_float(a.from, a.from_kind, row * a.from_stride + column);
    }
  }
  sums[wl_thread()] = sum;
  wl_syncthreads();  // the warps' sums are there
  if (wl_warp() != 0 || column >= a.columns) return;
  float* to = (float*)a.to + column;
  float all = a.add ? wl_ld(to) : 0.f;
  for (wl_u32 w = 0; w < 8; w++) all += sums[32 * w + wl_lane()];
  wl_st(to, all);
}
