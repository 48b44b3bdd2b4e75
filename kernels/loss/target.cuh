// Rows with a class each: what the losses with a target have in common.
#pragma once
#include "loss/logits.cuh"
#include "schedule/row.cuh"

// z = scale * x, or capped. A key is x itself (or z under a cap), so that a common offset of the
// logits costs no digits. CAP: with a soft-cap, which may be off.
template <class T, bool CAP>
struct TargetRows {
  typedef T In;
  typedef T Out;
  static constexpr bool TARGET = true;
  static constexpr int LANES = Dtype<T>::LANES;

  const RowArgs& a;
  float k;       // log2(e) times what keys lack to be z
  float z_unit;  // z of a key of 1
  bool capped;

  WL_FN TargetRows(const RowArgs& a) : a(a) {
    capped = CAP && a.cap > 0.f;
    z_unit = capped ? 1.f : a.scale;
    k = z_unit * WL_LOG2E;
  }

  struct Row {
    wl_i64 index, target;
    bool kept;
    float x_t, key_t, slope_t;
    // Once the row is summed, relative to the largest key:
    float max, rest, at_target, total;
  };

  WL_FN bool begin(Row& row, wl_i64 index, const float* saved) const {
    row.index = index;
    row.target = load_index(a.target, a.target_kind, index);
    // The census reports a target that is no class; here it contributes nothing.
    row.kept = row.target != a.ignore_index && row.target >= 0 && row.target < a.classes;
    if (!row.kept) return false;
    row.x_t = saved ? wl_ld(saved + index) : Dtype<T>::load((const T*)a.x + index * a.x_stride + row.target);
    row.key_t = row.x_t;
    row.slope_t = a.scale;
    if (CAP && capped) {
      const Capped z(row.x_t, a);
      row.key_t = z.key;
      row.slope_t = a.scale * z.slope;
    }
    return true;
  }

  // The saved lse cannot serve as the row's normaliser.
  WL_FN bool coarse_lse(wl_i64 index) const {
    return !(wl_abs(wl_ld(a.lse + index)) <= WL_COARSE_LSE) || z_unit < WL_SMALLEST_SCALE;
  }

  // The keys of packs p, p + step, ...; the target is no part of the rest. One comparison a pack,
  // not one an element.
  template <int n>
  WL_FN void keys(const wl_u32x4 (&v)[n], const Packs<T>& packs, const Row& row, wl_u32 p, wl_u32 step,
                  float (&x)[n * LANES]) const {
    const wl_u32 target = packs.pack_of(row.target);
    widen_all<0>(v, x);
    if (CAP && capped) {
      WL_UNROLL for (int e = 0; e < n * LANES; e++) x[e] = Capped(x[e], a).key;
    }
    WL_UNROLL for (int i = 0; i < n; i++) {
      if (p + i * step == target) mask(x, i * LANES + packs.lane_of(row.target));
    }
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

  template <int n>
  static WL_FN void mask(float (&x)[n], wl_u32 lane) {
    WL_UNROLL for (int e = 0; e < n; e++) x[e] = e == (int)lane ? -wl_inf() : x[e];
  }

 private:
  template <int i, int n>
  static WL_FN void widen_all(const wl_u32x4 (&v)[n], float (&x)[n * LANES]) {
    if constexpr (i < n) {
      Dtype<T>::template widen<i * LANES>(v[i], x);
      widen_all<i + 1>(v, x);
    }
  }
};
