// What a batch's rows share: how many are kept and what they weigh, the first bad target, and the
// sum of their losses. Two launches each, chunks and then their total, in f64 and in an order that
// depends on nothing but the number of rows: the same bits every time, and no atomics.
// Launches: src/cuda/schedule/batch.rs.
#pragma once
#include "core/args.cuh"
#include "core/dtype.cuh"
#include "core/block_sum.cuh"

// A chunk of class weights a block: their sum, the largest, and the first that is NaN or infinite.
WL_FN void weights_chunk_body(const BatchArgs& a) {
  WL_BLOCK_SUM_SLOTS;
  float largest = 0.f;
  BlockSums total = {0., 0., -1};
  const wl_i64 begin = wl_block() * a.chunk;
  const wl_i64 end = begin + a.chunk < a.classes ? begin + a.chunk : a.classes;
  for (wl_i64 c = begin + wl_thread(); c < end; c += wl_threads()) {
    const float w = load_float(a.weight, a.weight_kind, c);
    if (!(wl_abs(w) <= 3.402823466e38f)) {
      total.merge({0., 0., c});
    } else {
      total.a += w;
      largest = wl_max(largest, wl_abs(w));
    }
  }
  total.reduce(sums, firsts);
  largest = largest_of_block(largest, sums);
  if (wl_thread() != 0) return;
  wl_st(a.chunks + 2 * wl_block(), total.a);
  wl_st(a.chunks + 2 * wl_block() + 1, (double)largest);
  wl_st(a.bad + wl_block(), total.first);
}

WL_FN wl_i64 chunks_of(const BatchArgs& a, wl_i64 n) { return (n + a.chunk - 1) / a.chunk; }

// What weights are multiplied by, so that the sum of all of them, times whatever f32, leaves it only
// where their mean does: a power of two near 1 / (classes * largest).
WL_FN float weight_unit(double classes, double largest) {
  const double bound = classes * (largest == 0. ? 1. : largest);
  const wl_i32 exponent = (wl_i32)(wl_bit_cast<wl_u64>(bound) >> 52 & 0x7ff) - 1023;
  const wl_i32 opposite = 126 - exponent;
  return wl_f32((wl_u32)(opposite < 1 ? 1 : opposite > 254 ? 254 : opposite) << 23);
}

// One block.
WL_FN void weights_total_body(const BatchArgs& a) {
  WL_BLOCK_SUM_SLOTS;
  BlockSums total = {0., 0., -1};
  float largest = 0.f;
  for (wl_i64 i = wl_thread(); i < chunks_of(a, a.classes); i += wl_threads()) {
    total.merge({wl_ld(a.chunks + 2 * i), 0., wl_ld(a.bad + i)});
    largest = wl_max(largest, (float)wl_ld(a.chunks + 2 * i + 1));
  }
  total.reduce(sums, firsts);
  largest = largest_of_block(largest, sums);
  if (wl_thread() != 0) return;
  wl_st(&a.totals->class_weight, total.a);
  wl_st(&a.totals->weight_unit, weight_unit((double)a.classes, largest));
  if (total.first >= 0 && wl_ld(&a.status->kind) == 0) {
    wl_st(&a.status->kind, (wl_u64)2);
    wl_st(&a.status->index, total.first);
    wl_st(&a.status->value, (wl_i64)wl_bits(load_float(a.weight, a.weight_kind, total.first)));
    wl_st(&a.status->classes, a.classes);
    wl_st(&a.status->ignore_index, a.ignore_index);
  }
}

// A chunk of targets a block.
WL_FN void census_chunk_body(const BatchArgs& a) {
  WL_BLOCK_SUM_SLOTS;
  BlockSums total = {0., 0., -1};
  const wl_i64 begin = wl_block() * a.chunk, end = begin + a.chunk < a.rows ? begin + a.chunk : a.rows;
  for (wl_i64 row = begin + wl_thread(); row < end; row += wl_threads()) {
    const wl_i64 target = load_index(a.target, a.target_kind, row);
    if (a.ignores && target == a.ignore_index) continue;
    if (target < 0 || target >= a.classes) {
      total.merge({0., 0., row});
      continue;
    }
    total.a += a.weight && !a.by_rows ? load_float(a.weight, a.weight_kind, target) : 1.f;
    total.b += 1.;
  }
  total.reduce(sums, firsts);
  if (wl_thread() != 0) return;
  wl_st(a.chunks + 2 * wl_block(), total.a);
  wl_st(a.chunks + 2 * wl_block() + 1, total.b);
  wl_st(a.bad + wl_block(), total.first);
}

// One block. Without targets every row counts, and as 1; rows without classes count for nothing.
WL_FN void census_total_body(const BatchArgs& a) {
  WL_BLOCK_SUM_SLOTS;
  BlockSums total = {0., 0., -1};
  if (a.target) {
    for (wl_i64 i = wl_thread(); i < chunks_of(a, a.rows); i += wl_threads()) {
      total.merge({wl_ld(a.chunks + 2 * i), wl_ld(a.chunks + 2 * i + 1), wl_ld(a.bad + i)});
    }
  } else if (wl_thread() == 0 && a.classes > 0) {
    total.a = total.b = (double)a.rows;
  }
  total.reduce(sums, firsts);
  if (wl_thread() != 0) return;
  const double class_weight = a.weight ? wl_ld(&a.totals->class_weight) : (double)a.classes;
  const wl_i64 value = total.first < 0 ? 0 : load_index(a.target, a.target_kind, total.first);
  wl_st(&a.totals->weight, total.a);
  wl_st(&a.totals->class_weight, class_weight);
  wl_st(&a.totals->kept, (wl_i64)total.b);
  wl_st(&a.totals->bad_row, total.first);
  wl_st(&a.totals->bad_value, value);
  wl_st(&a.totals->per_weight, total.a == 0. ? (double)wl_nan() : 1. / total.a);
  wl_st(&a.totals->per_row, total.b == 0. ? wl_nan() : (float)(1. / total.b));
  if (!a.weight) wl_st(&a.totals->weight_unit, weight_unit((double)a.classes, 1.));
  if (total.first >= 0 && wl_ld(&a.status->kind) == 0) {
    wl_st(&a.status->kind, (wl_u64)a.bad_target);
    wl_st(&a.status->index, total.first);
    wl_st(&a.status->value, value);
    wl_st(&a.status->classes, a.classes);
    wl_st(&a.status->ignore_index, a.ignore_index);
  }
}

WL_FN double load_loss(const void* losses, bool wide, wl_i64 row) {
  return wide ? wl_ld((const double*)losses + row) : (double)wl_ld((const float*)losses + row);
}

// A chunk of rows' losses a block.
WL_FN void sum_chunk_body(const BatchArgs& a) {
  WL_BLOCK_SUM_SLOTS;
  BlockSums total = {0., 0., -1};
  const wl_i64 begin = wl_block() * a.chunk, end = begin + a.chunk < a.rows ? begin + a.chunk : a.rows;
  for (wl_i64 row = begin + wl_thread(); row < end; row += wl_threads()) {
    total.a += load_loss(a.loss, a.wide, row);
    if (a.z_loss) total.b += load_loss(a.z_loss, a.wide, row);
  }
  total.reduce(sums, firsts);
  if (wl_thread() != 0) return;
  wl_st(a.chunks + 2 * wl_block(), total.a);
  wl_st(a.chunks + 2 * wl_block() + 1, total.b);
}

// One block.
WL_FN void sum_total_body(const BatchArgs& a) {
  WL_BLOCK_SUM_SLOTS;
  BlockSums total = {0., 0., -1};
  for (wl_i64 i = wl_thread(); i < chunks_of(a, a.rows); i += wl_threads()) {
    total.merge({wl_ld(a.chunks + 2 * i), wl_ld(a.chunks + 2 * i + 1), -1});
  }
  total.reduce(sums, firsts);
  if (wl_thread() != 0) return;
  double loss = total.a, z_loss = total.b;
  if (a.mean) {
    // No kept row makes NaN, and so does no weight, whatever the sum is.
    const double weight = wl_ld(&a.totals->weight);
    loss = weight == 0. ? (double)wl_nan() : loss / weight;
    z_loss = a.z_loss ? z_loss / (double)wl_ld(&a.totals->kept) : 0.;
  }
  wl_st(a.loss_out, (float)(loss + z_loss));
  if (a.z_loss_out) wl_st(a.z_loss_out, (float)z_loss);
}
