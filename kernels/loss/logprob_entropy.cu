// Log-probability of the target and entropy over rows of logits; the gradient may overwrite them.
//
//   logp[n] = z_t - lse                     lse = ln sum exp(z), z as in cross_entropy.cu
//   H[n]    = ln sum exp(z - max) + E       E = sum_c p_c * (max - z_c), neither with the largest
//   dx[n,v] = (a[n] * ([v == t] - p_v) - b[n] * p_v * (z_v - max + E)) * dz/dx
//
// x, dx [rows, classes], row strides in elements; results per row are f32, a and b one number or
// one a row. The target's exponential is kept apart, as in cross entropy. Options and rules:
// src/loss/logprob_entropy.rs.
//
// Traffic: 2 * rows * classes * size where a row stays on chip; split rows 3 *, 2 * from a saved
// lse where b is 0 (lse and H in f32 are too coarse to make z - lse + H of); forward 1 *.
// Launches: src/cuda/loss/logprob_entropy.rs.
#pragma once
#include "schedule/backward.cuh"
#include "loss/entropy.cuh"
#include "loss/ranked.cuh"

struct LogprobEntropy : EntropyRows<TargetRows<LogprobEntropyArgs, true>> {
  typedef EntropyRows<TargetRows<LogprobEntropyArgs, true>> Rows;
  typedef Moments State;
  static constexpr int TOGETHER = 1;
  static constexpr bool LATE = true;
  using Rows::a;
  using Rows::k;
  using Rows::capped;
  using Rows::z_unit;

  WL_FN LogprobEntropy(const LogprobEntropyArgs& a) : Rows(a) {}

  struct Row : Rows::Row {
    float constant, slope;  // the gradient is e * (constant + slope * log2(1/e)) * dz/dx
  };

  template <class Logit>
  WL_FN Row begin(wl_i64 index, Logit logit) const {
    Row row = {};
    Rows::begin(row, index, logit);
    return row;
  }

  WL_FN float grad_logprob(wl_i64 index) const {
    return upstream_of(a.upstream, index);
  }
  WL_FN float grad_entropy(wl_i64 index) const {
    return upstream_of(a.of_entropy, index);
  }

  WL_FN bool coarse(wl_i64 index) const { return grad_entropy(index) != 0.f || this->coarse_lse(index); }

  template <int n, class Columns>
  WL_FN void push(Moments& s, const Row& row, float (&x)[n], const Columns& columns) const {
    Rows::keys(x, columns, row);
    s.push(x, k);
  }

  WL_FN void finish(const Moments& s, Row& row) const {
    Rows::finish_entropy(s, row);
    factors(row, 0.f);
    if (Rows::undefined(row)) row.constant = wl_nan();
  }

  WL_FN void factors(Row& row, float) const {
    const float b = grad_entropy(row.index), unit = capped ? 1.f : a.logits.scale;
    row.constant = -(grad_logprob(row.index) + b * row.mean) / row.total * unit;
    row.slope = b * (WL_LN2 / row.total) * unit;
  }

  WL_FN void write(const Row& row) const {
    float logprob = 0.f, entropy = 0.f, lse = 0.f;
    if (row.kept) {
      lse = (float)((double)z_unit * row.max + Rows::log_sum(row));
      logprob = Rows::logprob(row);
      entropy = Rows::entropy(row);
      if (Rows::undefined(row)) logprob = entropy = wl_nan();
    }
    if (a.out.logprob) wl_st(a.out.logprob + row.index, logprob);
    if (a.out.entropy) wl_st(a.out.entropy + row.index, entropy);
    if (a.out.lse) wl_st(a.out.lse + row.index, lse);
  }

  // The gradient, but for the target. SUM: adds up the exponentials without the target's.
  template <bool SUM, int n, class Columns>
  WL_FN void terms(const Row& row, float (&x)[n], const Columns& columns, float (&out)[n], float& sum) const {
    const bool target = SUM && columns.has(row.target);
    float part = 0.f, slope[n];
    WL_UNROLL for (int e = 0; e < n; e++) slope[e] = 1.f;
    if (capped) cap_logits<true>(x, a.logits, slope);
    WL_UNROLL for (int e = 0; e < n; e++) {
      const float d = (row.max - x[e]) * k;
      const float exponential = wl_ex2(-d);
      if (SUM) part += target && e == columns.lane(row.target) ? 0.f : exponential;
      out[e] = exponential * wl_fma(row.slope, wl_min(d, WL_FARTHEST), row.constant) * slope[e];
    }
    if (SUM) sum += part;
  }

  template <int n, class Columns>
  WL_FN void gradient(const Row& row, float (&x)[n], const Columns& columns, float (&out)[n]) const {
    float sum;
    terms<false>(row, x, columns, out, sum);
  }

  WL_FN float target_gradient(const Row& row) const {
    if (wl_isnan(row.constant)) return row.constant;
    return Rows::target_slope(row, grad_logprob(row.index), grad_entropy(row.index)) * row.slope_t;
  }
};
