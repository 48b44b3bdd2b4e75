// Rows of matrices from and to other places: what goes between products. An element a thread, each
// read and written once. Launches: src/cuda/matrix/products.rs.
#pragma once
#include "core/args.cuh"
#include "core/packs.cuh"

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

// to[rows[i]] = from[i], rounded, or added to what is there; 0 where nothing is. Each row comes once.
WL_FN void panel_round_body(const PanelArgs& a) {
  for (Elements at(a.columns); at.row < a.n; at.next()) {
    const bool there = a.from && (!a.marks || wl_ld(a.marks + at.row) >= 0);
    const wl_i64 to = (a.rows ? wl_ld(a.rows + at.row) : at.row) * a.to_stride + at.column;
    const float v = there ? load_float(a.from, a.from_kind, at.row * a.from_stride + at.column) : 0.f;
    store_float(a.to, a.to_kind, to, a.add ? load_float(a.to, a.to_kind, to) + v : v);
  }
}

// to[i] + rest[i] = from[i], or that and what both held: rounded, and what the rounding left, rounded. Of an infinity,
// and of what rounds to one, nothing is left.
WL_FN void panel_compensate_body(const PanelArgs& a) {
  for (Elements at(a.columns); at.row < a.n; at.next()) {
    const wl_i64 to = at.row * a.to_stride + at.column, left = at.row * a.rest_stride + at.column;
    float v = load_float(a.from, a.from_kind, at.row * a.from_stride + at.column);
    if (a.add) v = load_float(a.to, a.to_kind, to) + (load_float(a.rest, a.to_kind, left) + v);
    store_float(a.to, a.to_kind, to, v);
    const float rest = v - load_float(a.to, a.to_kind, to);
    store_float(a.rest, a.to_kind, left, wl_abs(rest) <= 3.402823466e38f ? rest : 0.f);
  }
}

// Eight columns of a row, of which those beyond `columns` are 0.
template <class T>
WL_FN void eight(const PanelArgs& a, wl_i64 row, wl_i64 column, float (&v)[8]) {
  load_columns((const T*)a.from + row * a.from_stride, column, a.columns, 0.f, v);
}

// to[i] = bf16 numbers whose sum from[i] is, `add` of them side by side, each of the next multiple of 8 columns.
// Which part stands where is in `parts`. Parts are those of dtype.cuh, which
// two hold of 16-bit numbers; of an f32 one the first of two is rounded, which leaves the second a bit more.
WL_FN void panel_parts_body(const PanelArgs& a) {
  const wl_i64 each = (a.columns + 7) / 8 * 8;
  const bool rounded_first = a.from_kind == KIND_F32 && (a.parts & 0xaaaaaaaau) == 0;  // no third part
  for (Elements at(each / 8); at.row < a.n; at.next()) {
    float v[8], parts[3][8];
    switch (a.from_kind) {
      case KIND_F16: eight<f16>(a, at.row, 8 * at.column, v); break;
      case KIND_BF16: eight<bf16>(a, at.row, 8 * at.column, v); break;
      default: eight<f32>(a, at.row, 8 * at.column, v);
    }
    WL_UNROLL for (int e = 0; e < 8; e++) {
      const Parts<3> cut(v[e]);
      const float rounded = wl_bf16_to_f32(wl_f32_to_bf16(v[e]));
      const bool rounds = rounded_first && wl_abs(rounded) <= 3.402823466e38f;
      parts[0][e] = rounds ? rounded : cut.part[0];
      parts[1][e] = rounds ? v[e] - rounded : cut.part[1];
      parts[2][e] = cut.part[2];
    }
    const wl_u32x4 packs[3] = {Dtype<bf16>::narrow<0>(parts[0]), Dtype<bf16>::narrow<0>(parts[1]),
                               Dtype<bf16>::narrow<0>(parts[2])};
    bf16* const row = (bf16*)a.to + at.row * a.to_stride + 8 * at.column;
    for (wl_u32 i = 0; i < a.add; i++) {
      const wl_u32 part = a.parts >> (2 * i) & 3u;
      wl_st128(row + i * each, part == 0 ? packs[0] : part == 1 ? packs[1] : packs[2]);
    }
  }
}

// A number of at most 2^15 as the sum of two f16 ones. Both have its sign and, unless it is 0, are not 0 themselves, so
// that products with an infinite number are that of the number (as `Parts`); infinities and NaN are the first.
WL_FN void cut_halves(float v, float (&to)[2]) {
  const float step = 5.9604644775390625e-8f, size = wl_abs(v);  // the smallest f16 number
  if (!(size > 0.f && size <= 3.402823466e38f)) {
    to[0] = v, to[1] = 0.f;
    return;
  }
  const float cut = size < 6.103515625e-5f ? (float)(wl_u32)(size / step) * step : wl_f32(wl_bits(size) & 0xffffe000u);
  const float first = cut > 0.f ? cut : step, rest = size - first;
  const float sign = v < 0.f ? -1.f : 1.f;
  to[0] = sign * first, to[1] = sign * (rest > step ? rest : step);
}

// to[i] = two f16 parts of from[i] · 2^k side by side, each of the next multiple of 8 columns, and rest[i] = 2^k: by
// which the largest is about 2^14, so that of the others 2^-39 of it is seen. A warp a row.
WL_FN void panel_halves_body(const PanelArgs& a) {
  const wl_i64 each = (a.columns + 7) / 8 * 8;
  for (wl_i64 row = first_of_grid() / 32; row < a.n; row += step_of_grid() / 32) {
    const float* const from = (const float*)a.from + row * a.from_stride;
    float most = 0.f;
    for (wl_i64 c = wl_lane(); c < a.columns; c += 32) {
      const float size = wl_abs(wl_ld(from + c));
      most = size <= 3.402823466e38f ? wl_max(most, size) : most;
    }
    WL_UNROLL for (wl_u32 lanes = 16; lanes > 0; lanes /= 2) most = wl_max(most, wl_shfl_xor(WL_FULL_MASK, most, lanes));
    // An exponent of 0 is that of numbers below 2^-126, which 2^126 does not bring further.
    const int k = 14 - ((int)(wl_bits(most) >> 23) - 127);
    const float scale = most > 0.f ? wl_f32((wl_u32)(127 + (k < 126 ? k : 126)) << 23) : 1.f;
    if (wl_lane() == 0) wl_st((float*)a.rest + row, scale);
    f16* const to = (f16*)a.to + row * a.to_stride;
    for (wl_i64 c = 8 * wl_lane(); c < each; c += 256) {
      float v[8], parts[2][8];
      load_columns(from, c, a.columns, 0.f, v);
      WL_UNROLL for (int e = 0; e < 8; e++) {
        float two[2];
        cut_halves(v[e] * scale, two);
        parts[0][e] = two[0], parts[1][e] = two[1];
      }
      WL_UNROLL for (int i = 0; i < 2; i++) wl_st128(to + i * each + c, Dtype<f16>::narrow<0>(parts[i]));
    }
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
