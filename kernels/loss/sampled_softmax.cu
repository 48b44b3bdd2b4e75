// What sampled softmax does between its products: the logits of a row's negatives and, behind them, of
// its target, each less the log of how often the class is expected (a negative's where it is read, biased.cuh).
// Launches: src/cuda/loss/sampled_softmax.rs.
#pragma once
#include "core/args.cuh"
#include "core/dtype.cuh"
#include "core/scan.cuh"

// ln of a class's expected number among the negatives; -inf if it is never drawn.
WL_FN double log_expected(const SampledArgs& a, wl_i64 class_) {
  const double p = a.probabilities ? wl_ld(a.probabilities + class_)
                                   : wl_log1p(1. / ((double)class_ + 1.)) / wl_log1p((double)a.classes);
  return wl_log(a.tries == 0. ? (double)a.samples * p : -wl_expm1(a.tries * wl_log1p(-p)));
}

WL_FN float sampled_offset(const SampledArgs& a, wl_i64 class_, double log_e) {
  const double bias = a.bias ? (double)load_float(a.bias, a.kind, class_) : 0.;
  return (float)(bias - log_e);
}

// Rows, then negatives, then the column behind them, where a row's own logit has all that it lacks. A target that
// is never drawn is an error, and its row counts no more.
WL_FN void sampled_offsets_body(const SampledArgs& a) {
  for (wl_i64 i = first_of_grid(); i <= a.n + a.samples; i += step_of_grid()) {
    if (i == a.n + a.samples) {
      wl_st(a.offsets + a.samples, 0.f);
      continue;
    }
    if (i >= a.n) {
      const wl_i64 class_ = wl_ld(a.drawn + i - a.n);
      wl_st(a.offsets + i - a.n, sampled_offset(a, class_, log_expected(a, class_)));
      continue;
    }
    const wl_i64 target = wl_ld(a.column + i);
    const double log_e = target < 0 ? 0. : log_expected(a, target);
    const bool drawn = log_e >= -1.7976931348623157e308, kept = target >= 0 && drawn;
    if (!drawn) {
      wl_st(a.column + i, (wl_i64)-1);
      wl_st(a.cluster + i, (wl_i64)WL_ROW_NEVER_DRAWN);
    }
    wl_st(a.marks + i, kept ? a.samples : (wl_i64)-1);
    wl_st(a.target_offsets + i, kept ? sampled_offset(a, target, log_e) : 0.f);
  }
}

// A row a block: negatives that are its target have no part in it, and the target's logit. What the other products
// lack is added where they are read.
WL_FN void sampled_logits_body(const SampledArgs& a) {
  WL_SMEM(float, of_warps, 32);
  const wl_i64 row = wl_block(), target = wl_ld(a.column + row);
  float* z = a.z + row * a.z_stride;
  if (target < 0) {
    if (wl_thread() == 0) wl_st(z + a.samples, 0.f);
    return;
  }
  for (wl_i64 s = wl_thread(); !a.keep_hits && s < a.samples; s += wl_threads()) {
    if (wl_ld(a.drawn + s) == target) wl_st(z + s, -wl_inf());
  }
  float own = 0.f, sum;
  for (wl_i64 d = wl_thread(); d < a.features; d += wl_threads()) {
    own += load_float(a.weight, a.kind, target * a.weight_stride + d) * load_float(a.x, a.kind, row * a.x_stride + d);
  }
  sum_before(own, of_warps, sum);
  if (wl_thread() == 0) wl_st(z + a.samples, sum + wl_ld(a.target_offsets + row));
}

// The gradient of the input: that of the negatives, and the target's.
WL_FN void sampled_input_body(const SampledArgs& a) {
  for (Elements at(a.features); at.row < a.n; at.next()) {
    const wl_i64 target = wl_ld(a.column + at.row);
    float v = 0.f;
    if (target >= 0) {
      const float of_target = wl_ld(a.z + at.row * a.z_stride + a.samples);
      v = wl_ld(a.products + at.row * a.products_stride + at.column) +
          of_target * load_float(a.weight, a.kind, target * a.weight_stride + at.column);
    }
    store_float(a.grad, a.kind, at.row * a.grad_stride + at.column, v);
  }
}
