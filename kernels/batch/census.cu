// What a batch's rows share: how many are kept and what they weigh, the first bad target, and the sum of
// their losses where whoever writes those does not add them up. A launch each: chunks, a block each, then
// their total by the block that is last. In f64, in an order that depends on nothing but the number of
// rows: the same bits every time, and no float atomics.
// Launches: src/cuda/schedule/batch.rs.
#pragma once
#include "core/block_sum.cuh"
#include "core/dtype.cuh"
#include "core/total.cuh"

// A chunk's elements of this thread, all of them on their way before the first is used; `none` where the
// chunk has no more.
template <class To, class From>
WL_FN void load_turns(const From* p, wl_i64 begin, wl_i64 end, To none, To (&v)[WL_CHUNK_TURNS]) {
  WL_UNROLL for (int j = 0; j < WL_CHUNK_TURNS; j++) {
    const wl_i64 i = begin + wl_thread() + j * wl_threads();
    v[j] = none;
    if (i < end) v[j] = (To)wl_ld(p + i);
  }
}
WL_FN void load_indices(const void* p, wl_u32 kind, wl_i64 begin, wl_i64 end, wl_i64 (&v)[WL_CHUNK_TURNS]) {
  switch (kind) {
    case KIND_I64: return load_turns((const wl_i64*)p, begin, end, (wl_i64)-1, v);
    case KIND_I32: return load_turns((const wl_i32*)p, begin, end, (wl_i64)-1, v);
    case KIND_U32: return load_turns((const wl_u32*)p, begin, end, (wl_i64)-1, v);
    default: return load_turns((const wl_u8*)p, begin, end, (wl_i64)-1, v);
  }
}
// Class weights of classes that are in range; 0 of others.
template <class T>
WL_FN void pick_turns(const T* p, const wl_i64 (&at)[WL_CHUNK_TURNS], wl_i64 classes, float (&v)[WL_CHUNK_TURNS]) {
  WL_UNROLL for (int j = 0; j < WL_CHUNK_TURNS; j++) v[j] = at[j] >= 0 && at[j] < classes ? Dtype<T>::load(p + at[j]) : 0.f;
}
WL_FN void pick_floats(const void* p, wl_u32 kind, const wl_i64 (&at)[WL_CHUNK_TURNS], wl_i64 classes,
                       float (&v)[WL_CHUNK_TURNS]) {
  switch (kind) {
    case KIND_F16: return pick_turns((const f16*)p, at, classes, v);
    case KIND_BF16: return pick_turns((const bf16*)p, at, classes, v);
    default: return pick_turns((const f32*)p, at, classes, v);
  }
}

WL_FN wl_i64 chunk_end(wl_i64 begin, wl_i64 n) { return begin + WL_CHUNK < n ? begin + WL_CHUNK : n; }

// A chunk of class weights: their sum, the largest, and the first that is NaN or infinite.
WL_FN void weights_chunk(const BatchArgs& a, wl_i64 chunk, wl_shared<double> sums, wl_shared<wl_i64> firsts) {
  float largest = 0.f;
  BlockSums total = {0., 0., -1};
  const wl_i64 begin = chunk * WL_CHUNK, end = chunk_end(begin, a.classes);
  wl_i64 at[WL_CHUNK_TURNS];
  float weights[WL_CHUNK_TURNS];
  WL_UNROLL for (int j = 0; j < WL_CHUNK_TURNS; j++) {
    const wl_i64 c = begin + wl_thread() + j * wl_threads();
    at[j] = c < end ? c : -1;
  }
  pick_floats(a.weight, a.weight_kind, at, a.classes, weights);
  WL_UNROLL for (int j = 0; j < WL_CHUNK_TURNS; j++) {
    if (!(wl_abs(weights[j]) <= 3.402823466e38f)) {
      total.merge({0., 0., at[j]});
    } else {
      total.a += weights[j];
      largest = wl_max(largest, wl_abs(weights[j]));
    }
  }
  total.reduce(sums, firsts);
  largest = largest_of_block(largest, sums);
  if (wl_thread() != 0) return;
  wl_st(a.chunks + 2 * chunk, total.a);
  wl_st(a.chunks + 2 * chunk + 1, (double)largest);
  wl_st(a.bad + chunk, total.first);
}

// What weights are multiplied by, so that the sum of all of them, times whatever f32, leaves it only
// where their mean does: a power of two near 1 / (classes * largest).
WL_FN float weight_unit(double classes, double largest) {
  const double bound = classes * (largest == 0. ? 1. : largest);
  const wl_i32 exponent = (wl_i32)(wl_bit_cast<wl_u64>(bound) >> 52 & 0x7ff) - 1023;
  const wl_i32 opposite = 126 - exponent;
  return wl_f32((wl_u32)(opposite < 1 ? 1 : opposite > 254 ? 254 : opposite) << 23);
}

WL_FN void note(const BatchArgs& a, wl_u64 kind, wl_i64 index, wl_i64 value) {
  if (wl_ld(&a.status->kind) != 0) return;
  wl_st(&a.status->kind, kind);
  wl_st(&a.status->index, index);
  wl_st(&a.status->value, value);
  wl_st(&a.status->classes, a.classes);
  wl_st(&a.status->ignore_index, a.ignore_index);
}

// One block: the first chunks' results.
WL_FN void weights_total(const BatchArgs& a, wl_i64 chunks, wl_shared<double> sums, wl_shared<wl_i64> firsts) {
  BlockSums total = {0., 0., -1};
  float largest = 0.f;
  for (wl_i64 i = wl_thread(); i < chunks; i += wl_threads()) {
    total.merge({wl_ld_cg(a.chunks + 2 * i), 0., wl_ld_cg(a.bad + i)});
    largest = wl_max(largest, (float)wl_ld_cg(a.chunks + 2 * i + 1));
  }
  total.reduce(sums, firsts);
  largest = largest_of_block(largest, sums);
  if (wl_thread() == 0) {
    wl_st(&a.totals->class_weight, total.a);
    wl_st(&a.totals->weight_unit, weight_unit((double)a.classes, largest));
    if (total.first >= 0) note(a, 2, total.first, (wl_i64)wl_bits(load_float(a.weight, a.weight_kind, total.first)));
  }
  wl_syncthreads();  // the slots were read
}

// What is wrong with a row.
enum : wl_i64 { WL_WRONG_TARGET, WL_WRONG_TEMPERATURE, WL_WRONG_ROW_WEIGHT, WL_WRONGS = 4 };

// Whether rows are gone through at all.
WL_FN bool by_rows(const BatchArgs& a) { return a.target || a.temperature || a.row_weight; }

WL_FN bool positive(float v) { return v > 0.f && v <= 3.402823466e38f; }

// A chunk of rows; thread 0 gets the result.
WL_FN BlockSums rows_chunk(const BatchArgs& a, wl_i64 chunk, wl_shared<double> sums, wl_shared<wl_i64> firsts) {
  BlockSums total = {0., 0., -1};
  const wl_i64 begin = chunk * WL_CHUNK, end = chunk_end(begin, a.rows);
  wl_i64 targets[WL_CHUNK_TURNS];
  float weights[WL_CHUNK_TURNS];
  if (a.target) {
    load_indices(a.target, a.target_kind, begin, end, targets);
  } else {
    WL_UNROLL for (int j = 0; j < WL_CHUNK_TURNS; j++) targets[j] = 0;
  }
  if (a.target && a.weight && !a.by_rows) {
    pick_floats(a.weight, a.weight_kind, targets, a.classes, weights);
  } else {
    WL_UNROLL for (int j = 0; j < WL_CHUNK_TURNS; j++) weights[j] = 1.f;
  }
  WL_UNROLL for (int j = 0; j < WL_CHUNK_TURNS; j++) {
    const wl_i64 row = begin + wl_thread() + j * wl_threads();
    if (row >= end || (a.target && a.ignores && targets[j] == a.ignore_index)) continue;
    const float temperature = a.temperature ? wl_ld(a.temperature + row) : 1.f;
    const float row_weight = a.row_weight ? wl_ld(a.row_weight + row) : 1.f;
    if (a.target && (targets[j] < 0 || targets[j] >= a.classes)) {
      total.merge({0., 0., WL_WRONGS * row + WL_WRONG_TARGET});
    } else if (!positive(temperature) || !positive(1.f / temperature)) {
      total.merge({0., 0., WL_WRONGS * row + WL_WRONG_TEMPERATURE});
    } else if (!(row_weight == 0.f || positive(row_weight))) {
      total.merge({0., 0., WL_WRONGS * row + WL_WRONG_ROW_WEIGHT});
    } else {
      total.a += (double)weights[j] * row_weight;
      total.b += row_weight;
    }
  }
  total.reduce(sums, firsts);
  return total;
}

// The block that is last: all have left what they found. The whole block calls it.
WL_FN bool last_of_grid(const BatchArgs& a) {
  bool last = false;
  if (wl_thread() == 0) {
    last = wl_ticket(&a.status->ticket, 1) + 1 == wl_blocks();
    if (last) wl_st(&a.status->ticket, 0u);  // for the next call
  }
  last = wl_syncthreads_or(last);
  if (last) wl_threadfence();
  return last;
}

// Thread 0 has the total of the rows. Without targets every row counts; rows without classes count for nothing.
WL_FN void census_total(const BatchArgs& a, const BlockSums& total) {
  if (wl_thread() != 0) return;
  const double class_weight = a.weight ? wl_ld(&a.totals->class_weight) : (double)a.classes;
  const bool bad = total.first >= 0;
  const wl_i64 row = bad ? total.first / WL_WRONGS : -1, wrong = bad ? total.first % WL_WRONGS : 0;
  wl_i64 value = 0;
  wl_u64 kind = a.bad_target;
  if (wrong == WL_WRONG_TEMPERATURE) {
    kind = a.bad_temperature, value = (wl_i64)wl_bits(wl_ld(a.temperature + row));
  } else if (wrong == WL_WRONG_ROW_WEIGHT) {
    kind = 3, value = (wl_i64)wl_bits(wl_ld(a.row_weight + row));
  } else if (bad) {
    value = load_index(a.target, a.target_kind, row);
  }
  wl_st(&a.totals->weight, total.a);
  wl_st(&a.totals->class_weight, class_weight);
  wl_st(&a.totals->kept, total.b);
  wl_st(&a.totals->bad_row, row);
  wl_st(&a.totals->bad_value, value);
  wl_st(&a.totals->per_weight, total.a == 0. ? (double)wl_nan() : 1. / total.a);
  wl_st(&a.totals->per_row, total.b == 0. ? wl_nan() : (float)(1. / total.b));
  if (!a.weight) wl_st(&a.totals->weight_unit, weight_unit((double)a.classes, 1.));
  if (bad) note(a, kind, row, value);
}

// Blocks: chunks of class weights, then chunks of rows; one at the least.
WL_FN void census_body(const BatchArgs& a) {
  WL_BLOCK_SUM_SLOTS;
  wl_grid_launch_dependents();  // the rows' first packs may come meanwhile
  for (wl_i64 i = first_of_grid(); i <= chunks_of(a.rows); i += step_of_grid()) wl_st(a.tickets + i, 0u);
  const wl_i64 weights = a.weight ? chunks_of(a.classes) : 0, chunk = wl_block();
  BlockSums total = {0., 0., -1};
  if (!by_rows(a) && wl_thread() == 0 && a.classes > 0) total.a = total.b = (double)a.rows;
  if (chunk < weights) {
    weights_chunk(a, chunk, sums, firsts);
  } else if (by_rows(a) && a.rows > 0) {
    total = rows_chunk(a, chunk - weights, sums, firsts);
    if (wl_blocks() > 1 && wl_thread() == 0) {
      wl_st(a.chunks + 2 * chunk, total.a);
      wl_st(a.chunks + 2 * chunk + 1, total.b);
      wl_st(a.bad + chunk, total.first);
    }
  }
  if (wl_blocks() > 1) {
    if (!last_of_grid(a)) return;
  } else {
    wl_syncthreads();  // slots were read, and what a chunk has left is written
  }
  if (a.weight) weights_total(a, weights, sums, firsts);
  if (by_rows(a) && wl_blocks() > 1) {
    total = {0., 0., -1};
    for (wl_i64 i = weights + wl_thread(); i < wl_blocks(); i += wl_threads()) {
      total.merge({wl_ld_cg(a.chunks + 2 * i), wl_ld_cg(a.chunks + 2 * i + 1), wl_ld_cg(a.bad + i)});
    }
    total.reduce(sums, firsts);
  }
  census_total(a, total);
}

// A chunk of rows' losses a block; one at the least.
WL_FN void sum_losses_body(const BatchArgs& a) { add_up(a.sum, wl_block()); }
