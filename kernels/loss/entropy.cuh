// Rows with a class each whose entropy is wanted: what log-probability, entropy and their gradients are made
// of once the row is summed.
//
//   logp = z_t - lse           lse = ln sum exp(z)
//   H    = ln sum exp(z - max) + E       E = sum_c p_c * (max - z_c), neither with the largest
//   dz   = a * ([v == t] - p_v) - b * p_v * (z_v - max + E)     for upstream a on logp and b on H
#pragma once
#include "loss/target.cuh"

// Rows: TargetRows of some arguments.
template <class Rows>
struct EntropyRows : Rows {
  using Rows::k;

  WL_FN EntropyRows(const typename Rows::Args& a) : Rows(a) {}

  struct Row : Rows::Row {
    float others;       // sum of e without one copy of the largest, the target included
    float rest_moment;  // sum of e * (max - z) without the target
    float mean;         // E
  };

  WL_FN float finish_entropy(Moments s, Row& row) const {
    const float ref = Rows::total(Lse{s.max, 1.f + s.rest}, row);
    row.others = row.key_t > s.max ? row.rest : s.rest + row.at_target;  // NaN in a target that is
    s.lower(ref, k);
    row.rest_moment = s.moment * WL_LN2;
    row.mean = (row.rest_moment + row.at_target * likely_distance(row)) / row.total;
    return ref;
  }

  // max - z_t, where the target has any probability.
  WL_FN float likely_distance(const Row& row) const {
    return row.at_target == 0.f ? 0.f : this->target_distance(row);
  }

  // ln sum exp(z - max), of what is not the largest, as is the mean distance: both are as small as that.
  WL_FN float log_sum(const Row& row) const { return wl_log1p(row.others); }
  WL_FN float entropy(const Row& row) const { return log_sum(row) + row.mean; }

  // As ln(1 + rest/target) unless the target is negligible, as in cross entropy.
  WL_FN float logprob(const Row& row) const {
    return row.at_target > 1e-30f ? -wl_log1p(row.rest / row.at_target) : -(log_sum(row) + this->target_distance(row));
  }

  // The slope of a * logp + b * H at the target's z. Its own share of E is taken off before anything is added.
  WL_FN float target_slope(const Row& row, float a, float b) const {
    const float inverse = 1.f / row.total, others = row.rest * inverse;
    return a * others + b * (row.at_target * inverse * (likely_distance(row) * others - row.rest_moment * inverse));
  }
};
