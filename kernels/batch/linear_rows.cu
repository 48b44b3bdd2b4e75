// What rows of logits that are products have beside them: marks, upstream gradients with temperatures and weights
// in them; logits over temperatures; losses times weights; what slots have, back in their rows. Values that are out of
// range are the census's affair.
// Launches: src/cuda/loss/linear_cross_entropy/rows.rs.
#pragma once
#include "core/args.cuh"
#include "core/dtype.cuh"
#include "core/scan.cuh"

// In f64: a product of the three may leave f32 on its way to one that does not.
WL_FN void scaled_upstream(const UpstreamArgs& a, wl_i64 row, double factor, float* to) {
  if (!to) return;
  const float given = a.values ? load_float(a.values, a.kind, row * a.stride) : a.number;
  // What has no weight has no gradient, whatever the upstream one.
  wl_st(to, factor == 0. ? 0.f : (float)(given * factor));
}

// The row of a slot, where rows have been packed.
WL_FN wl_i64 row_of(const LinearRowsArgs& a, wl_i64 slot) { return a.slot_rows ? wl_ld(a.slot_rows + slot) : slot; }

// Marks of rows (of several class indices, of the last that counts), and upstream gradients over τ, by slots where there
// are any; that of the loss times the row's weight.
WL_FN void linear_rows_body(const LinearRowsArgs& a) {
  for (wl_i64 at = first_of_grid(); at < a.n; at += step_of_grid()) {
    if (a.target) {
      wl_i64 mark = -1;
      for (wl_i64 i = at * a.positions; i < (at + 1) * a.positions; i++) {
        const wl_i64 target = load_index(a.target, a.target_kind, i);
        const bool kept = target != a.ignore_index && target >= 0 && target < a.classes;
        mark = kept ? target : mark;
      }
      wl_st(a.marks + at, mark);
    }
    const wl_i64 row = row_of(a, at);
    const double weight = a.row_weight ? wl_ld(a.row_weight + row) : 1.f;
    const double scale = a.over_temperature ? 1. / wl_ld(a.temperature + row) : 1.;
    scaled_upstream(a.of_loss, row, weight * scale, a.given_loss ? a.given_loss + at : nullptr);
    scaled_upstream(a.of_logprob, row, scale, a.given_logprob ? a.given_logprob + at : nullptr);
    scaled_upstream(a.of_entropy, row, scale, a.given_entropy ? a.given_entropy + at : nullptr);
  }
}

#define WL_PACKED_EACH 8

// One block: the rows that count in their order, and from the end on those that do not; each with its mark.
WL_FN void linear_pack_body(const LinearRowsArgs& a) {
  WL_SMEM(wl_u32, of_warps, 32);
  wl_i64 count = 0;
  for (wl_i64 base = 0; base < a.n; base += WL_PACKED_EACH * wl_threads()) {
    const wl_i64 first = base + WL_PACKED_EACH * wl_thread();
    wl_i64 marks[WL_PACKED_EACH];
    wl_u32 here = 0;
    WL_UNROLL for (int e = 0; e < WL_PACKED_EACH; e++) {
      marks[e] = first + e < a.n ? wl_ld(a.marks + first + e) : -1;
      here += marks[e] >= 0;
    }
    wl_u32 all;
    wl_i64 before = count + sum_before(here, of_warps, all);
    WL_UNROLL for (int e = 0; e < WL_PACKED_EACH; e++) {
      const wl_i64 row = first + e;
      if (row >= a.n) continue;
      const wl_i64 slot = marks[e] >= 0 ? before : a.n - 1 - (row - before);
      wl_st(a.slot_rows + slot, row);
      wl_st(a.slot_marks + slot, marks[e]);
      before += marks[e] >= 0;
    }
    count += all;
  }
  if (wl_thread() == 0) wl_st(a.count, count);
}

// Rows, or what slots have of them, over their temperatures, in place.
WL_FN void linear_divide_body(const LinearRowsArgs& a) {
  for (Elements at(a.columns); at.row < a.n; at.next()) {
    float* const z = a.z + at.row * a.stride + at.column;
    wl_st(z, wl_ld(z) / wl_ld(a.temperature + row_of(a, at.row)));
  }
}

WL_FN void weigh_loss(void* losses, bool wide, wl_i64 row, double weight) {
  if (!losses) return;
  const double loss = wide ? wl_ld((const double*)losses + row) : (double)wl_ld((const float*)losses + row);
  // -0 is the weight of a class, which leaves a row that is NaN what it is.
  const bool silent = weight == 0. && !(loss != loss && 1. / weight < 0.);
  store_loss(losses, wide, row, silent ? 0. : loss * weight);
}

// Losses times weights, in place. A weight of 0 silences an infinite loss, and what an ignored row has is not used.
WL_FN void linear_losses_body(const LinearRowsArgs& a) {
  for (wl_i64 row = first_of_grid(); row < a.n; row += step_of_grid()) {
    if (a.target && wl_ld(a.marks + row) < 0) continue;
    const double weight = wl_ld(a.row_weight + row);
    weigh_loss(a.loss, a.wide, row, weight);
    weigh_loss(a.z_loss, a.wide, row, weight);
  }
}

// Results of slots, where their rows have them. What rows that do not count have is the same for all.
WL_FN void linear_results_body(const LinearRowsArgs& a) {
  for (Elements at(a.columns); at.row < a.n; at.next()) {
    const bool counts = wl_ld(a.slot_marks + at.row) >= 0;
    const wl_u32 word = counts ? wl_ld((const wl_u32*)a.from + at.row * a.columns + at.column) : a.missing;
    wl_st((wl_u32*)a.to + wl_ld(a.slot_rows + at.row) * a.columns + at.column, word);
  }
}
