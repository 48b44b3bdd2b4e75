// Negative log-likelihood: one element of each row, and a gradient of zeros with one element a row.
//
//   loss[n] = -w_t * x[n,t]      dx[n,v] = -g[n] * w_t * [v == t]
//
// Positions lie as `NllArgs` says, classes at any distance: nothing is permuted. The reduction is
// in g[n]: its 1/W comes from the census on the device. Elements are written as bits, so that
// their size is all a kernel is compiled for.
//
// Traffic: an element a row forward; the gradient once. Launches: src/cuda/loss/nll.rs.
#pragma once
#include "core/dtype.cuh"
#include "core/total.cuh"

// Classes that a thread writes for the positions that it has read the targets of.
#define WL_NLL_CLASSES 32

// The census reports a target that is no class; here its row is as an ignored one.
WL_FN bool nll_kept(const NllArgs& a, wl_i64 target) {
  return target != a.ignore_index && target >= 0 && target < a.classes;
}

WL_FN void nll_pick_row(const NllArgs& a, wl_i64 row) {
  if (row >= a.rows) return;
  const wl_i64 target = load_index(a.target, a.target_kind, row);
  double loss = 0.;
  if (nll_kept(a, target)) {
    const wl_i64 block = row / a.positions, position = row % a.positions;
    const float x = load_float(a.x, a.kind, block * a.stride + target * a.class_stride + position);
    const float w = a.weight ? load_float(a.weight, a.weight_kind, target) : 1.f;
    if (!(w == 0.f && x == -wl_inf())) loss = -(double)w * x;
  }
  store_loss(a.loss, a.wide, row, loss);
}

// A thread a row.
WL_FN void nll_pick_body(const NllArgs& a) {
  const wl_i64 step = step_of_grid();
  for (wl_i64 first = (wl_i64)wl_block() * wl_threads(); first < a.rows; first += step) {
    nll_pick_row(a, first + wl_thread());
    if (!a.sum.tickets) continue;
    wl_syncthreads();  // the losses are written
    Losses losses(a.sum);
    const wl_i64 left = a.rows - first;
    if (wl_thread() == 0) losses.written(first, left < wl_threads() ? (wl_u32)left : wl_threads());
    losses.close();
    wl_syncthreads();  // what was shared is read
  }
}

// The gradient of a row's picked element, as bits.
WL_FN wl_u32 nll_gradient(const NllArgs& a, wl_i64 row, wl_i64 target) {
  // In f64: a product of the three may leave f32 on its way to one that does not.
  double g = a.upstream ? load_float(a.upstream, a.upstream_kind, a.upstream_rows ? row : 0) : a.number;
  if (a.mean) g *= wl_ld(&a.totals->per_weight);
  const float v = (float)(-g * (a.weight ? load_float(a.weight, a.weight_kind, target) : 1.f));
  if (a.kind == KIND_F16) return wl_f32_to_f16(v).bits;
  if (a.kind == KIND_BF16) return wl_f32_to_bf16(v).bits;
  return wl_bits(v);
}

template <class E>
WL_FN wl_u32x4 nll_pack(const wl_u32 (&lane)[16 / sizeof(E)]) {
  if constexpr (sizeof(E) == 4) {
    return {lane[0], lane[1], lane[2], lane[3]};
  } else {
    return {lane[0] | lane[1] << 16, lane[2] | lane[3] << 16, lane[4] | lane[5] << 16, lane[6] | lane[7] << 16};
  }
}

// Rows whose classes are neighbours: a warp a stretch of a row, in packs that begin where memory's do.
template <class E>
WL_FN void nll_rows(const NllArgs& a) {
  constexpr int LANES = 16 / sizeof(E);
  const wl_i64 units = a.rows * a.parts, step = (wl_i64)wl_blocks() * wl_warps();
  for (wl_i64 unit = (wl_i64)wl_block() * wl_warps() + wl_warp(); unit < units; unit += step) {
    const wl_i64 row = unit / a.parts, part = unit % a.parts;
    E* y = (E*)a.y + row * a.stride;
    const wl_i64 target = load_index(a.target, a.target_kind, row);
    const bool kept = nll_kept(a, target);
    const wl_u32 value = kept ? nll_gradient(a, row, target) : 0;
    const wl_i64 skip = (wl_i64)((wl_u64)y / sizeof(E) % LANES);
    const wl_i64 packs = (skip + a.classes + LANES - 1) / LANES;
    const wl_i64 end = (part + 1) * a.slice < packs ? (part + 1) * a.slice : packs;
    for (wl_i64 p = part * a.slice + wl_lane(); p < end; p += 32) {
      const wl_i64 column = p * LANES - skip;
      wl_u32 lane[LANES];
      WL_UNROLL for (int e = 0; e < LANES; e++) lane[e] = kept && column + e == target ? value : 0;
      if (column >= 0 && column + LANES <= a.classes) {
        wl_st128_stream(y + column, nll_pack<E>(lane));
      } else {
        WL_UNROLL for (int e = 0; e < LANES; e++) {
          if (column + e >= 0 && column + e < a.classes) wl_st(y + column + e, (E)lane[e]);
        }
      }
    }
  }
}

// Classes at a distance from one another: a thread has a pack of neighbouring positions, whose
// targets it reads once for many classes.
template <class E>
WL_FN void nll_positions(const NllArgs& a) {
  constexpr int LANES = 16 / sizeof(E);
  const wl_i64 packs = (a.positions + LANES - 1) / LANES;
  const wl_i64 parts = (a.classes + WL_NLL_CLASSES - 1) / WL_NLL_CLASSES;
  const wl_i64 units = a.rows / a.positions * parts * packs, step = (wl_i64)wl_blocks() * wl_threads();
  for (wl_i64 unit = (wl_i64)wl_block() * wl_threads() + wl_thread(); unit < units; unit += step) {
    const wl_i64 position = unit % packs * LANES, rest = unit / packs;
    const wl_i64 block = rest / parts, first = rest % parts * WL_NLL_CLASSES;
    const wl_i64 end = first + WL_NLL_CLASSES < a.classes ? first + WL_NLL_CLASSES : a.classes;
    wl_i64 target[LANES];
    wl_u32 value[LANES];
    WL_UNROLL for (int e = 0; e < LANES; e++) {
      target[e] = -1, value[e] = 0;
      if (position + e < a.positions) {
        const wl_i64 row = block * a.positions + position + e;
        const wl_i64 t = load_index(a.target, a.target_kind, row);
        if (nll_kept(a, t)) target[e] = t, value[e] = nll_gradient(a, row, t);
      }
    }
    for (wl_i64 c = first; c < end; c++) {
      E* y = (E*)a.y + block * a.stride + c * a.class_stride + position;
      wl_u32 lane[LANES];
      WL_UNROLL for (int e = 0; e < LANES; e++) lane[e] = target[e] == c ? value[e] : 0;
      if (position + LANES <= a.positions && (wl_u64)y % 16 == 0) {
        wl_st128_stream(y, nll_pack<E>(lane));
      } else {
        WL_UNROLL for (int e = 0; e < LANES; e++) {
          if (position + e < a.positions) wl_st(y + e, (E)lane[e]);
        }
      }
    }
  }
}

WL_FN void nll_spread_body(const NllArgs& a) {
  if (a.class_stride == 1) {
    a.kind == KIND_F32 ? nll_rows<wl_u32>(a) : nll_rows<wl_u16>(a);
  } else {
    a.kind == KIND_F32 ? nll_positions<wl_u32>(a) : nll_positions<wl_u16>(a);
  }
}
