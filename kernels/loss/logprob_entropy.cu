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
#include "loss/ranked.cuh"
#include "loss/target.cuh"

struct LogprobEntropy : TargetRows<LogprobEntropyArgs, true> {
  typedef TargetRows<LogprobEntropyArgs, true> Rows;
  typedef Moments State;
  static constexpr int TOGETHER = 1;
  static constexpr bool LATE = true;
  using Rows::a;
  using Rows::k;
  using Rows::capped;
  using Rows::z_unit;

  WL_FN LogprobEntropy(const LogprobEntropyArgs& a) : Rows(a) {}

  struct Row : Rows::Row {
    float others;           // sum of e without one copy of the largest, the target included
    float rest_moment;      // sum of e * (max - z) without the target
    float mean;             // E
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

  WL_FN void finish(Moments s, Row& row) const {
    const float ref = Rows::total(Lse{s.max, 1.f + s.rest}, row);
    row.others = row.key_t > s.max ? row.rest : s.rest + row.at_target;  // NaN in a target that is
    s.lower(ref, k);
    row.rest_moment = s.moment * WL_LN2;
    row.mean = (row.rest_moment + row.at_target * likely_distance(row)) / row.total;
    factors(row, 0.f);
    if (Rows::undefined(row)) row.constant = wl_nan();
  }

  // max - z_t, where the target has any probability.
  WL_FN float likely_distance(const Row& row) const {
    return row.at_target == 0.f ? 0.f : this->target_distance(row);
  }

  WL_FN void factors(Row& row, float) const {
    const float b = grad_entropy(row.index), unit = capped ? 1.f : a.logits.scale;
    row.constant = -(grad_logprob(row.index) + b * row.mean) / row.total * unit;
    row.slope = b * (WL_LN2 / row.total) * unit;
  }

  WL_FN void write(const Row& row) const {
    float logprob = 0.f, entropy = 0.f, lse = 0.f;
    if (row.kept) {
      // Of what is not the largest, as is the mean distance: both are as small as that.
      const float log_sum = wl_log1p(row.others);
      lse = (float)((double)z_unit * row.max + log_sum);
      // As ln(1 + rest/target) unless the target is negligible, as in cross entropy.
      logprob = row.at_target > 1e-30f ? -wl_log1p(row.rest / row.at_target)
                                       : -(log_sum + this->target_distance(row));
      entropy = log_sum + row.mean;
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
    float part = 0.f;
    WL_UNROLL for (int e = 0; e < n; e++) {
      float bend = 1.f;
      if (capped) {
        const Capped z(x[e], a.logits);
        x[e] = z.key, bend = a.logits.scale * z.slope;
      }
      const float d = (row.max - x[e]) * k;
      const float exponential = wl_ex2(-d);
      if (SUM) part += target && e == columns.lane(row.target) ? 0.f : exponential;
      out[e] = exponential * wl_fma(row.slope, wl_min(d, WL_FARTHEST), row.constant) * bend;
    }
    if (SUM) sum += part;
  }

  template <int n, class Columns>
  WL_FN void gradient(const Row& row, float (&x)[n], const Columns& columns, float (&out)[n]) const {
    float sum;
    terms<false>(row, x, columns, out, sum);
  }

  // The target's own share of E is taken off before anything is added.
  WL_FN float target_gradient(const Row& row) const {
    if (wl_isnan(row.constant)) return row.constant;
    const float inverse = 1.f / row.total, others = row.rest * inverse;
    const float entropy = row.at_target * inverse * (likely_distance(row) * others - row.rest_moment * inverse);
    return (grad_logprob(row.index) * others + grad_entropy(row.index) * entropy) * row.slope_t;
  }
};
