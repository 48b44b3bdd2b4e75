// Rows with a class each: what the losses with a target have in common.
#pragma once
#include "loss/logits.cuh"
#include "schedule/row.cuh"

// z = scale * x, or capped. A key is x itself (or z under a cap), so that a common offset of the
// logits costs no digits. CAP: with a soft-cap, which may be off.
template <class Arguments, bool CAP>
struct TargetRows {
  typedef Arguments Args;
  static constexpr bool TARGET = true;

  const Args& a;
  float k;       // log2(e) times what keys lack to be z
  float z_unit;  // z of a key of 1
  bool capped;

  WL_FN TargetRows(const Args& a) : a(a) {
    capped = CAP && a.logits.cap > 0.f;
    z_unit = capped ? 1.f : a.logits.scale;
    k = z_unit * WL_LOG2E;
  }

  struct Row {
    wl_i64 index, target;
    bool kept;
    float x_t, key_t, slope_t;
    // Once the row is summed, relative to the largest key:
    float max, rest, at_target, total;
  };

  template <class Logit>
  WL_FN bool begin(Row& row, wl_i64 index, Logit logit) const {
    row.index = index;
    row.target = load_index(a.target.values, a.target.kind, index);
    // The census reports a target that is no class; here it contributes nothing.
    row.kept = row.target != a.target.ignore_index && row.target >= 0 && row.target < a.rows.classes;
    if (!row.kept) return false;
    set_target(row, logit(row.target));
    return true;
  }

  WL_FN void set_target(Row& row, float x) const {
    row.x_t = row.key_t = x;
    row.slope_t = a.logits.scale;
    if (CAP && capped) {
      const Capped z(x, a.logits);
      row.key_t = z.key;
      row.slope_t = a.logits.scale * z.slope;
    }
  }

  // The saved lse cannot serve as the row's normaliser.
  WL_FN bool coarse_lse(wl_i64 index) const {
    return !(wl_abs(wl_ld(a.out.lse + index)) <= WL_COARSE_LSE) || z_unit < WL_SMALLEST_SCALE;
  }

  // The row's class, or -1 where it does not count.
  WL_FN wl_i64 kept_target(wl_i64 index) const {
    const wl_i64 target = load_index(a.target.values, a.target.kind, index);
    return target != a.target.ignore_index && target >= 0 && target < a.rows.classes ? target : -1;
  }

  // Logits to keys; the target is no part of the rest.
  template <int n, class Columns>
  WL_FN void keys(float (&x)[n], const Columns& columns, const Row& row) const {
    if (CAP && capped) cap_logits(x, a.logits);
    columns.set(row.target, x, -wl_inf());
  }

  // The pair of the row without its target, and the target: returns what they are relative to.
  template <class S>
  WL_FN float total(const S& s, Row& row) const {
    row.max = wl_max(s.max, row.key_t);
    const float ref = reference(row.max);
    row.rest = s.sum * wl_ex2((s.max - ref) * k);
    row.at_target = wl_ex2((row.key_t - ref) * k);
    row.total = row.rest + row.at_target;
    return ref;
  }

  // The target's z below the maximum: in f32, though the keys' distance may be beyond it.
  WL_FN float target_distance(const Row& row) const { return (float)(z_unit * ((double)row.max - row.key_t)); }

  // All -inf, or +inf or NaN among the logits: no probabilities.
  static WL_FN bool undefined(const Row& row) {
    return !(wl_abs(row.max) <= WL_FLT_MAX) || wl_isnan(row.total);
  }
};
