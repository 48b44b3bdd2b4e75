// Multi-class margin loss over rows of scores; the gradient may overwrite them.
//
//   loss[n] = w_t / classes * sum_{v != t} h_v^p        h_v = max(0, margin - x_t + x_v), 0 for NaN
//   dx[n,v] = g[n] * w_t / classes * p * h_v^(p-1)      dx[n,t] = minus the sum of the others'
//
// x, dx [rows, classes], row strides in elements; p is 1 or 2. The reduction is in g[n]: its 1/rows
// comes from the census on the device.
//
// Traffic: 2 * rows * classes * size where a row stays on chip; split rows 3 *; forward 1 *.
// Launches: src/cuda/loss/multi_margin.rs.
#pragma once
#include "schedule/row.cuh"

// Sums over the classes but the target: of h^p, and of its slopes.
struct MarginSums {
  static constexpr int WORDS = 2;
  float loss, slopes;
  static WL_FN MarginSums empty() { return {0.f, 0.f}; }
  WL_FN void merge(const MarginSums& other, float) { loss += other.loss, slopes += other.slopes; }
};

struct MultiMargin {
  typedef MultiMarginArgs Args;
  typedef MarginSums State;
  static constexpr bool TARGET = true, SUMMED = true;
  struct Row {
    wl_i64 index, target;
    bool kept;
    float x_t, short_of, lost;  // margin - x_t, and what it lost in rounding
    float loss, slopes;         // slopes of squares: halves
    double factor;
    float unit, in_units;  // the factor in units that slopes are multiplied by: src/spec/multi_margin.rs
  };
  static constexpr float k = 1.f;
  const Args& a;

  WL_FN MultiMargin(const Args& a) : a(a) {}
  template <class Logit>
  WL_FN Row begin(wl_i64 index, Logit logit) const {
    Row row = {};
    row.index = index;
    row.target = load_index(a.target.values, a.target.kind, index);
    // The census reports a target that is no class; here it contributes nothing.
    row.kept = row.target >= 0 && row.target < a.rows.classes;
    if (!row.kept) return row;
    set_target(row, logit(row.target));
    return row;
  }
  WL_FN void set_target(Row& row, float x) const {
    row.x_t = x;
    row.short_of = a.margin - x;
    // Of an infinite difference nothing.
    const float minus_t = row.short_of - a.margin;
    const float lost = (a.margin - (row.short_of - minus_t)) + (-x - minus_t);
    row.lost = wl_isnan(lost) ? 0.f : lost;
  }
  // There is no saved result.
  WL_FN bool coarse(wl_i64) const { return true; }

  // max(0, margin - x_t + x), 0 for NaN. What margin - x_t lost in rounding decides where x cancels it.
  static WL_FN float hinge(const Row& row, float x) { return wl_max((x + row.short_of) + row.lost, 0.f); }
  static WL_FN float above(float h) { return h > 0.f ? 1.f : 0.f; }
  WL_FN double weight_of(const Row& row) const {
    const float w = a.weight.values ? load_float(a.weight.values, a.weight.kind, row.target) : 1.f;
    return (double)w / (double)a.rows.classes;
  }

  template <int n, class Columns>
  WL_FN void push(MarginSums& s, const Row& row, float (&x)[n], const Columns& columns) const {
    columns.set(row.target, x, -wl_inf());
    float loss = 0.f, slopes = 0.f;
    WL_UNROLL for (int e = 0; e < n; e++) x[e] = hinge(row, x[e]);
    if (a.square) {
      WL_UNROLL for (int e = 0; e < n; e++) loss = wl_fma(x[e], x[e], loss), slopes += x[e];
    } else {
      WL_UNROLL for (int e = 0; e < n; e++) loss += x[e], slopes += above(x[e]);
    }
    s.loss += loss, s.slopes += slopes;
  }
  WL_FN void finish(const MarginSums& s, Row& row) const {
    row.loss = s.loss, row.slopes = s.slopes;
    const double g = upstream_of(a.upstream, row.index) * weight_of(row) * (a.square ? 2. : 1.);
    row.factor = a.mean ? g * wl_ld(&a.totals->per_weight) : g;
    const double far = 73786976294838206464., unit = 1152921504606846976.;  // 2^66, 2^60
    const double size = row.factor < 0. ? -row.factor : row.factor;
    row.unit = (float)(size > far ? unit : size < 1. / far ? 1. / unit : 1.);
    row.in_units = (float)(row.factor / row.unit);
  }
  WL_FN void write(const Row& row) const {
    if (a.loss) store_loss(a.loss, a.wide, row.index, row.kept ? weight_of(row) * row.loss : 0.);
  }
  template <int n, class Columns>
  WL_FN void gradient(const Row& row, float (&x)[n], const Columns&, float (&out)[n]) const {
    if (a.square) {
      WL_UNROLL for (int e = 0; e < n; e++) out[e] = row.in_units * (row.unit * hinge(row, x[e]));
    } else {
      const float factor = (float)row.factor;
      WL_UNROLL for (int e = 0; e < n; e++) out[e] = factor * above(hinge(row, x[e]));
    }
  }
  WL_FN float target_gradient(const Row& row) const { return (float)(-row.factor * row.slopes); }
};
