// The rows of a layer by cluster, of which there may be none.
//
// A target has a column of the head: its own, or its cluster's. One pass maps targets, one places
// each cluster's rows in its slots (counted, scanned and scattered in their order, so that sums are
// the same every time), and takes stock of what counts. Products are the driver's; each cluster's
// logits are a cross entropy whose slots without a row are ignored rows. The number of a cluster's rows
// stays on the device. Launches: src/cuda/matrix/clusters.rs.
#pragma once
#include "core/args.cuh"
#include "core/dtype.cuh"
#include "core/scan.cuh"
#include "core/block_sum.cuh"

WL_FN float row_weight(const BinArgs& a, wl_i64 row) {
  return a.weight ? load_float(a.weight, a.weight_kind, row) : 1.f;
}

// Each row's column of the head, its cluster and its class there.
WL_FN void bin_columns_body(const BinArgs& a) {
  for (wl_i64 row = first_of_grid(); row < a.n; row += step_of_grid()) {
    const wl_i64 target = load_index(a.target, a.target_kind, row);
    wl_i64 column = -1, local = -1, cluster;
    const float weight = row_weight(a, row);
    if (a.ignores && target == a.ignore_index) {
      cluster = WL_ROW_IGNORED;
    } else if (target < 0 || target >= a.classes) {
      cluster = WL_ROW_BAD_TARGET;
    } else if (!(weight >= 0.f && weight <= 3.402823466e38f)) {
      cluster = WL_ROW_BAD_WEIGHT;
    } else {
      const wl_i64 place = a.places ? (wl_i64)wl_ld(a.places + target) : target;
      cluster = WL_ROW_HEAD;
      while (cluster + 1 < a.clusters && place >= a.cutoffs[cluster + 1]) cluster++;
      local = cluster < 0 ? place : place - a.cutoffs[cluster];
      column = cluster < 0 ? place : a.shortlist + cluster;
    }
    wl_st(a.column + row, column);
    wl_st(a.local + row, local);
    wl_st(a.cluster + row, cluster);
  }
}

// What counts, and the first row that is bad, with what is wrong in its low bits.
WL_FN void bin_totals(const BinArgs& a) {
  WL_BLOCK_SUM_SLOTS;
  BlockSums total = {0., 0., -1};
  for (wl_i64 row = wl_thread(); row < a.n; row += wl_threads()) {
    const wl_i64 cluster = wl_ld(a.cluster + row);
    if (cluster >= WL_ROW_HEAD) {
      total.merge({(double)row_weight(a, row), 1., -1});
    } else if (cluster != WL_ROW_IGNORED) {
      total.merge({0., 0., 4 * row + (WL_ROW_BAD_TARGET - cluster)});
    }
  }
  total.reduce(sums, firsts);
  if (wl_thread() != 0) return;
  wl_st(&a.totals->weight, total.a);
  wl_st(&a.totals->kept, total.b);
  wl_st(&a.totals->per_weight, total.a == 0. ? (double)wl_nan() : 1. / total.a);
  if (total.first < 0 || wl_ld(&a.status->kind) != 0) return;
  const wl_i64 row = total.first / 4, wrong = WL_ROW_BAD_TARGET - total.first % 4;
  const bool of_weight = wrong == WL_ROW_BAD_WEIGHT;
  wl_st(&a.status->kind, (wl_u64)(of_weight ? 3 : wrong == WL_ROW_NEVER_DRAWN ? 7 : a.bad_target));
  wl_st(&a.status->index, row);
  wl_st(&a.status->value, of_weight ? (wl_i64)wl_bits(row_weight(a, row)) : load_index(a.target, a.target_kind, row));
  wl_st(&a.status->classes, a.classes);
  wl_st(&a.status->ignore_index, a.ignore_index);
}

#define WL_BIN_EACH 4

// The slots of a cluster a block, in the order of the rows; one block more takes stock.
WL_FN void bin_slots_body(const BinArgs& a) {
  WL_SMEM(wl_u32, of_warps, 32);
  const wl_i64 cluster = wl_block();
  if (cluster == a.clusters) {
    bin_totals(a);
    return;
  }
  const wl_i64 begin = a.begins[cluster], capacity = a.begins[cluster + 1] - begin;
  wl_i64 count = 0;
  for (wl_i64 base = 0; base < a.n; base += WL_BIN_EACH * wl_threads()) {
    const wl_i64 first = base + WL_BIN_EACH * wl_thread();
    wl_u32 here = 0;
    bool in[WL_BIN_EACH];
    WL_UNROLL for (int e = 0; e < WL_BIN_EACH; e++) {
      in[e] = first + e < a.n && wl_ld(a.cluster + first + e) == cluster;
      here += in[e];
    }
    wl_u32 all;
    wl_i64 slot = count + sum_before(here, of_warps, all);
    WL_UNROLL for (int e = 0; e < WL_BIN_EACH; e++) {
      if (!in[e]) continue;
      if (slot < capacity) {
        wl_st(a.rows + begin + slot, first + e);
        wl_st(a.locals + begin + slot, wl_ld(a.local + first + e));
      }
      slot++;
    }
    count += all;
  }
  for (wl_i64 slot = count + wl_thread(); slot < capacity; slot += wl_threads()) {
    wl_st(a.rows + begin + slot, (wl_i64)0);
    wl_st(a.locals + begin + slot, (wl_i64)-1);
  }
  if (wl_thread() == 0) wl_st(a.counts + cluster, count);
}

WL_FN float bin_factor(const BinArgs& a, wl_i64 row) {
  const float given = a.upstream ? load_float(a.upstream, a.upstream_kind, a.upstream_rows ? row : 0) : a.number;
  // In f64: a product of the three may leave f32 on its way to one that does not.
  const double weighted = (double)given * row_weight(a, row);
  return (float)(a.mean ? weighted * wl_ld(&a.totals->per_weight) : weighted);
}

// Upstream gradients of rows and of slots.
WL_FN void bin_factors_body(const BinArgs& a) {
  const wl_i64 slots = a.begins[a.clusters];
  for (wl_i64 i = first_of_grid(); i < a.n + slots; i += step_of_grid()) {
    if (i < a.n) {
      wl_st(a.factor + i, wl_ld(a.column + i) < 0 ? 0.f : bin_factor(a, i));
    } else {
      const wl_i64 slot = i - a.n;
      wl_st(a.factors + slot, wl_ld(a.locals + slot) < 0 ? 0.f : bin_factor(a, wl_ld(a.rows + slot)));
    }
  }
}

// One block: outputs, the loss, and whether a cluster had more rows than slots.
WL_FN void bin_finish_body(const BinArgs& a) {
  WL_BLOCK_SUM_SLOTS;
  BlockSums total = {0., 0., -1};
  for (wl_i64 row = wl_thread(); row < a.n; row += wl_threads()) {
    const bool kept = wl_ld(a.column + row) >= 0;
    const float nll = kept ? wl_ld(a.nll + row) : 0.f, weight = kept ? row_weight(a, row) : 0.f;
    // A weight of 0 silences an infinite loss.
    const double loss = weight == 0.f ? 0. : (double)weight * nll;
    wl_st(a.output + row, kept ? -nll : 0.f);
    if (a.whole) wl_st(a.loss + row, (float)loss);
    total.merge({loss, 0., -1});
  }
  total.reduce(sums, firsts);
  if (wl_thread() != 0) return;
  if (!a.whole) {
    const double weight = wl_ld(&a.totals->weight);
    const double mean = weight == 0. ? (double)wl_nan() : total.a / weight;
    wl_st(a.loss, (float)(a.mean ? mean : total.a));
  }
  for (wl_i64 i = 0; i < a.clusters; i++) {
    const wl_i64 count = wl_ld(a.counts + i), capacity = a.begins[i + 1] - a.begins[i];
    if (count <= capacity || wl_ld(&a.status->kind) != 0) continue;
    wl_st(&a.status->kind, (wl_u64)5);
    wl_st(&a.status->index, i);
    wl_st(&a.status->value, count);
    wl_st(&a.status->classes, capacity);
  }
}
