// The gradient of logits that never reach memory (linear.cuh), of a slab of classes: in bf16 parts, as products on the
// tensor cores take it, a tile of 128 rows and 256 classes a block.
//
// With a bound, a row's piece of 64 classes (a warp's) whose every |p - [the target]| is below it is 0. Pieces are the
// same whatever the slab and whatever rows are beside. What is left of a tile is a bit for each 32 rows and 64 classes:
// bit 4 * i + j, where there is any in the i-th 64 classes of the j-th 32 rows. Of a tile without any nothing but that is
// written.
#pragma once
#include "tile/linear.cuh"

WL_FN float rest_of(float v, float first) { return v == first ? 0.f : v - first; }
// Two numbers as bf16 parts: the first rounded, or where that may leave the numbers of f32, cut. Infinities and NaN are
// their first part.
WL_FN void rounded_parts(float x, float y, bool in_range, wl_u32 (&to)[2]) {
  const wl_u32 mask = in_range ? 0xffffffffu : 0xffff0000u;
  to[0] = wl_pack_bf16x2(wl_f32(wl_bits(x) & mask), wl_f32(wl_bits(y) & mask));
  const wl_f32x2 first = wl_unpack_bf16x2(to[0]);
  to[1] = wl_pack_bf16x2(rest_of(x, first.x), rest_of(y, first.y));
}
#define WL_ROUNDS_TO_BF16 3.3895313892515355e38f  // the largest that does

struct LinearGradient {
  const LinearTileArgs& a;
  const LinearBlock& block;

  WL_FN wl_i64 place(wl_u32 row, wl_i64 column) const { return (block.first + row) * a.gradient_stride + (column - a.begin); }

  // That of a block's rows where none counts.
  WL_FN void none() const {
    for (wl_u32 row = wl_warp(); row < WL_PIPE_OWN && block.first + row < a.row.rows.count; row += wl_warps()) {
      for (wl_i64 c = block.begin + 2 * wl_lane(); c < block.end; c += 64) put(place(row, c), {0, 0});
    }
  }
  // Rows begin at, and are, whole pairs.
  WL_FN void put(wl_i64 at, const wl_u32 (&parts)[2]) const {
    wl_st((wl_u32*)((wl_u16*)a.gradient + at), parts[0]);
    if (a.gradient_rest) wl_st((wl_u32*)((wl_u16*)a.gradient_rest + at), parts[1]);
  }
  WL_FN void put_row(wl_u32 row, const LinearColumns& columns, const float (&out)[16]) const {
    float size[16];
    WL_UNROLL for (int e = 0; e < 16; e++) size[e] = wl_abs(out[e]);
    const bool in_range = max_of(size) <= WL_ROUNDS_TO_BF16;
    const wl_i64 first = place(row, columns.first);
    WL_UNROLL for (int e = 0; e < 16; e += 2) {
      if (!columns.holds(e)) continue;
      wl_u32 parts[2];
      rounded_parts(out[e], columns.holds(e + 1) ? out[e + 1] : 0.f, in_range, parts);
      put(first + columns.offset(e), parts);
    }
  }
  // What is left of the block's tile.
  WL_FN void mark(wl_u32 left) const {
    const wl_i64 tiles = (a.end - a.begin + WL_PIPE_OTHER - 1) / WL_PIPE_OTHER;
    const wl_i64 tile = block.first / WL_PIPE_OWN * tiles + (block.begin - a.begin) / WL_PIPE_OTHER;
    if (wl_thread() == 0) wl_st(a.flags + tile, left);
  }
};

// Which pieces of a tile's rows reach their limits.
struct LinearReach {
  wl_shared<LinearLimits> limits;
  wl_shared<wl_u32> pieces;  // not 0: it does
  wl_shared<wl_u32> left;    // of each 32 rows, as the tile's

  static WL_FN wl_u32 place(wl_u32 piece, wl_u32 row) { return piece * WL_PIPE_OWN + row; }
  // The warp's piece of a row.
  WL_FN bool has(wl_u32 row) const { return pieces[place(wl_warp() % WL_PIPE_ACROSS, row)] != 0; }

  // Returns what is left of the tile. All threads call it.
  template <class Op>
  WL_FN wl_u32 find(const Op& op, const LinearBlock& block, const LinearRows& known,
                    wl_shared<typename Op::Slopes> slopes, const PipeProducts& z, const LinearColumns& columns) const {
    each_row(known, z, columns, [&](wl_u32 row, float (&x)[16]) {
      const typename Op::Row of = op.recalled(known.targets[row], slopes[row]);
      const LinearLimits limit = limits[row];
      columns.set(of.target, x, -wl_inf());
      const wl_u32 lanes = wl_ballot(WL_FULL_MASK, of.kept && op.reaches(of, max_of(x), limit.exponential));
      if (wl_lane() % 4 == 0) pieces[place(wl_warp() % WL_PIPE_ACROSS, row)] = lanes >> wl_lane() & 15u;
    });
    wl_syncthreads();  // all warps know of their columns
    if (wl_thread() < WL_PIPE_OWN) {
      const wl_i64 target = known.targets[wl_thread()] - block.begin;
      const LinearLimits limit = limits[wl_thread()];
      wl_u32 bits = 0;
      WL_UNROLL for (int piece = 0; piece < WL_PIPE_ACROSS; piece++) {
        const wl_u32 at = place(piece, wl_thread());
        const bool any = pieces[at] != 0 || (limit.target != 0.f && target >= 0 && target / WL_PIPE_WARP == piece);
        pieces[at] = any;
        if (wl_ballot(WL_FULL_MASK, any) != 0) bits |= 1u << (4 * piece + wl_warp());
      }
      if (wl_lane() == 0) left[wl_warp()] = bits;
    }
    wl_syncthreads();  // all rows are known
    wl_u32 all = 0;
    WL_UNROLL for (int i = 0; i < WL_PIPE_OWN / 32; i++) all |= left[i];
    return all;
  }
};

// The gradient of the logits of classes `begin` to `end`, once rows are finished; a split is a tile.
template <class Op, class T>
WL_FN void linear_gradient(const LinearTileArgs& a) {
  typedef typename Op::Slopes Slopes;
  WL_LINEAR_ROWS(rows);
  WL_SMEM(Slopes, slopes, WL_PIPE_OWN);
  WL_SMEM(LinearLimits, limits, WL_PIPE_OWN);
  WL_SMEM(wl_u32, reached, WL_PIPE_ACROSS * WL_PIPE_OWN);
  WL_SMEM(wl_u32, left_of, WL_PIPE_OWN / 32);
  const LinearBlock block(a);
  const Op op(a.row);
  const LinearGradient gradient = {a, block};
  const LinearReach reach = {limits, reached, left_of};
  if (wl_thread() < WL_PIPE_OWN) {
    const wl_i64 slot = block.first + wl_thread();
    const bool there = slot < a.row.rows.count;
    slopes[wl_thread()] = there ? load_words<Slopes>(a.slopes + Slopes::WORDS * slot) : Slopes{};
    const LinearLimits none = {};
    limits[wl_thread()] = there && a.flags ? load_words<LinearLimits>(a.limits + LinearLimits::WORDS * slot) : none;
  }
  if (!rows.load(a, block.first)) return a.flags ? gradient.mark(0) : gradient.none();
  through_tiles<T>(a, block, rows, [&](const PipeProducts& z, const LinearColumns& columns) {
    if (a.flags) {
      const wl_u32 left = reach.find(op, block, rows, slopes, z, columns);
      gradient.mark(left);
      if (left == 0) return;
    }
    each_row(rows, z, columns, [&](wl_u32 row, float (&x)[16]) {
      if (block.first + row >= a.row.rows.count) return;
      const Slopes made_of = slopes[row];
      const typename Op::Row of = op.recalled(rows.targets[row], made_of);
      float out[16];
      WL_UNROLL for (int e = 0; e < 16; e++) out[e] = 0.f;
      if (of.kept && (!a.flags || reach.has(row))) {
        op.gradient(of, x, columns, out);
        columns.set(of.target, out, made_of.target);
      }
      gradient.put_row(row, columns, out);
    });
  });
}
