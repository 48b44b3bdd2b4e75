// Cross entropy over rows of logits against rows of probabilities, or of a teacher's logits.
//
//   u[n,v]  = w_v * (hard * q[n,v] + soft)     q as given, or softmax(s_T * y[n,v])
//   loss[n] = sum_v u * (lse - z)              z, lse: kernels/loss/cross_entropy.cu
//   dx[n,v] = g[n] * (M * p_v - u) * dz/dx     M = sum_v u; with the z-loss's share
//   dq[n,v] = g[n] * hard * w_v * (lse - z)    for probabilities, where asked for
//
// Both rows are read once where they stay on chip: one pass sums the logits' normaliser, the
// teacher's, and the cross term, each relative to the maxima so far. A target is as a rule near
// the prediction; where one class has nearly all of p, its difference M * p - u is formed as
// (M - u) - M * (1 - p), 1 - p being a sum over the others.
//
// Traffic: 3 * rows * classes * size on chip; split rows 5 *; forward 2 *; one more write for dq.
// Launches: src/cuda/loss/soft_cross_entropy.rs.
#pragma once
#include "loss/logits.cuh"
#include "core/peak.cuh"
#include "schedule/row.cuh"

// Against probabilities: the mass M, and the distance from the maximum that it lies at.
struct SoftSums {
  static constexpr int WORDS = 4;
  Peak peak;
  float mass;
  float deviation;  // sum of u * distance of reference(max) from key

  static WL_FN SoftSums empty() { return {Peak::empty(), 0.f, 0.f}; }

  WL_FN void merge(const SoftSums& other, float k) {
    const float before = reference(peak.max), other_before = reference(other.peak.max);
    peak.merge(other.peak, k);
    const float ref = reference(peak.max);
    const float unit = distance_unit(k);
    deviation = shifted(deviation, mass, distance(ref, before, unit)) +
                shifted(other.deviation, other.mass, distance(ref, other_before, unit));
    mass += other.mass;
  }

  // Nothing has mass before the first key that is not masked, unless its distance is infinite.
  static WL_FN float shifted(float deviation, float mass, float by) {
    return mass != 0.f ? deviation + mass * by : deviation;
  }
};

// Against a teacher's logits: mass and deviation relative to the teacher's maximum, and what label
// smoothing adds. `k_t` is log2(e) times the teacher's scale.
struct TeacherSums {
  static constexpr int WORDS = 9;
  Peak peak, teacher;
  float k_t;
  float mass, deviation;
  float weight, smooth;  // sum of w, and of w * distance

  // No scale yet: less than any, and yet a factor that leaves -inf what it is.
  static WL_FN TeacherSums empty() { return {Peak::empty(), Peak::empty(), 1e-38f, 0.f, 0.f, 0.f, 0.f}; }

  // To another teacher's maximum. What has no share left there says nothing.
  WL_FN void scale(float share) {
    mass *= share;
    deviation = share == 0.f ? 0.f : deviation * share;
  }
  WL_FN void shift(float by) {
    deviation = SoftSums::shifted(deviation, mass, by);
    smooth = SoftSums::shifted(smooth, weight, by);
  }

  WL_FN void merge(const TeacherSums& other, float k) {
    TeacherSums b = other;
    k_t = wl_max(k_t, b.k_t);
    const float before = reference(peak.max), b_before = reference(b.peak.max);
    peak.merge(b.peak, k);
    const float ref = reference(peak.max), unit = distance_unit(k);
    shift(distance(ref, before, unit)), b.shift(distance(ref, b_before, unit));
    const float top = reference(wl_max(teacher.max, b.teacher.max));
    scale(wl_ex2((teacher.max - top) * k_t)), b.scale(wl_ex2((b.teacher.max - top) * k_t));
    teacher.merge(b.teacher, k_t);
    mass += b.mass, deviation += b.deviation;
    weight += b.weight, smooth += b.smooth;
  }
};

template <bool TEACHER>
struct SoftSumsOf {
  typedef SoftSums Type;
};
template <>
struct SoftSumsOf<true> {
  typedef TeacherSums Type;
};

// FULL: with class weights, label smoothing, soft-cap and a gradient of the target, each of which
// may be off.
template <bool TEACHER, bool FULL>
struct SoftCrossEntropy {
  typedef SoftCrossEntropyArgs Args;
  typedef typename SoftSumsOf<TEACHER>::Type State;
  static constexpr bool TARGET = false;
  static constexpr bool BESIDE = true, SUMMED = true;
  static constexpr int TOGETHER = 1;

  const Args& a;
  float k;       // log2(e) times what keys lack to be z
  float z_unit;  // z of a key of 1
  float unit;    // of weights, where there are any: all of them add up within f32
  float k_t;     // log2(e) times the teacher's scale

  WL_FN SoftCrossEntropy(const Args& a) : a(a) {
    z_unit = capped() ? 1.f : a.logits.scale;
    k = z_unit * WL_LOG2E;
    unit = FULL && a.weight.values ? wl_ld(&a.options.totals->weight_unit) : 1.f;
    k_t = TEACHER ? a.teacher * WL_LOG2E : 0.f;
  }

  struct Row {
    wl_i64 index;
    bool kept;
    // Once the row is summed:
    float max, rest, mass, deviation;
    float top, norm;  // the teacher's
    float others_at_top, lone_top;  // M - u of the teacher's largest class as a sum; its logit, or NaN
    // What the gradients are made of:
    float log_sum, g, prob, target;
    float silent;  // what a weight of 0 makes of the upstream gradient
    float alone, at_max;  // the key of a class that has most of p, or NaN
  };

  WL_FN MatrixRows beside() const { return {a.target.values, a.target.stride}; }
  template <class Logit>
  WL_FN Row begin(wl_i64 index, Logit) const {
    Row row = {};
    row.index = index;
    row.kept = true;
    return row;
  }

  WL_FN OutRows grad_target() const { return {a.target.gradient, a.target.gradient_stride}; }
  WL_FN bool capped() const { return FULL && a.logits.cap > 0.f; }
  WL_FN float hard() const { return FULL ? a.options.hard : 1.f; }
  WL_FN float soft() const { return FULL ? a.options.soft : 0.f; }
  // What is no column holds 0 in the target, which is a probability of nothing, no logit.
  template <int n, class Columns>
  WL_FN void mask_target(const Columns& columns, float (&y)[n]) const {
    if (TEACHER && !columns.whole()) {
      WL_UNROLL for (int e = 0; e < n; e++) y[e] = columns.holds(e) ? y[e] : -wl_inf();
    }
  }
  // Whether u are w * q' with a w other than 1.
  template <class Columns>
  WL_FN bool weighted(const Columns& columns) const {
    return FULL && (a.weight.values || !columns.whole());
  }

  template <int n, class Columns>
  WL_FN void push(State& s, const Row&, float (&x)[n], float (&u)[n], const Columns& columns) const {
    float w[n], ignored[n];
    mask_target(columns, u);
    if (capped()) cap_logits(x, a.logits);
    const bool weighs = weighted(columns);
    if (weighs) class_weights(a.weight, columns, unit, w);
    const float before = reference(s.peak.max);
    s.peak.push(x, k, ignored);
    const float ref = reference(s.peak.max), of_distance = distance_unit(k);
    if constexpr (TEACHER) {
      s.k_t = k_t;
      s.shift(distance(ref, before, of_distance));
      const float top = s.teacher.max;
      s.teacher.push(u, k_t, u);
      if (s.teacher.max > top) s.scale(wl_ex2((top - reference(s.teacher.max)) * k_t));
      if (soft() > 0.f) {
        WL_UNROLL for (int e = 0; e < n; e++) {
          const float w_e = weighs ? w[e] : 1.f;
          s.weight += w_e;
          s.smooth += w_e == 0.f ? 0.f : w_e * distance(ref, x[e], of_distance);
        }
      }
    } else {
      s.deviation = SoftSums::shifted(s.deviation, s.mass, distance(ref, before, of_distance));
      if (FULL) {
        WL_UNROLL for (int e = 0; e < n; e++) u[e] = wl_fma(u[e], hard(), soft());
      }
    }
    if (weighs) {
      WL_UNROLL for (int e = 0; e < n; e++) u[e] *= w[e];
    }
    float mass = 0.f, deviation = 0.f;
    WL_UNROLL for (int e = 0; e < n; e++) {
      mass += u[e];
      deviation = wl_fma(u[e], u[e] == 0.f ? 0.f : distance(ref, x[e], of_distance), deviation);
    }
    s.mass += mass, s.deviation += deviation;
  }

  WL_FN float class_weight() const { return (float)(wl_ld(&a.options.totals->class_weight) * unit); }

  WL_FN void finish(const State& s, Row& row) const {
    row.max = s.peak.max, row.rest = s.peak.rest;
    row.log_sum = wl_log1p(row.rest);
    if constexpr (TEACHER) {
      row.top = s.teacher.max, row.norm = 1.f + s.teacher.rest;
      const float share = hard() / row.norm;
      row.mass = share * s.mass, row.deviation = share == 0.f ? 0.f : share * s.deviation;
      if (soft() > 0.f) {
        // As `gradient` forms u: of a single class M - u is 0.
        row.mass = wl_fma(share, s.mass, soft() * class_weight());
        row.deviation += soft() * s.smooth;
      }
      row.lone_top = a.weight.values ? wl_nan() : row.top;
      row.others_at_top = share * s.teacher.rest + (soft() > 0.f ? soft() * (class_weight() - 1.f) : 0.f);
    } else {
      row.mass = s.mass, row.deviation = s.deviation;
    }
    const float given = upstream_of(a.upstream, row.index);
    // In f64: products of options, weights and the upstream gradient may leave f32 on their way to
    // one that does not.
    const double g = undefined(row) ? (double)wl_nan() : a.options.mean ? (double)given * wl_ld(&a.options.totals->per_row) : given;
    const double slope = capped() ? 1. : (double)a.logits.scale, of_weights = g / unit;
    const float per_total = 1.f / (1.f + row.rest);
    row.g = (float)(of_weights * slope);
    row.target = (float)(of_weights * hard()), row.silent = (float)(0. * of_weights);
    const double z = a.options.lambda > 0. ? g * slope * 2. * a.options.lambda * lse(row) : 0.;
    row.prob = (float)((of_weights * slope * row.mass + z) * per_total);
    row.alone = row.rest < 1.f ? row.max : wl_nan();
    row.at_max = (float)(z * per_total - of_weights * slope * (row.mass * (row.rest * per_total)));
  }

  // In f64, as what is made of it may be in range where it is not.
  WL_FN double lse(const Row& row) const { return (double)z_unit * row.max + row.log_sum; }

  // All -inf, or +inf or NaN, among the logits or the teacher's: no probabilities.
  static WL_FN bool undefined(const Row& row) {
    return !(wl_abs(row.max) <= WL_FLT_MAX) || wl_isnan(row.rest) ||
           (TEACHER && (!(wl_abs(row.top) <= WL_FLT_MAX) || wl_isnan(row.norm)));
  }

  WL_FN void write(const Row& row) const {
    double loss = row.mass == 0.f ? 0. : (double)row.mass * row.log_sum;
    loss = (loss + (double)z_unit / distance_unit(k) * row.deviation) / unit;
    double z_loss = a.options.lambda > 0. ? a.options.lambda * lse(row) * lse(row) : 0.;
    if (a.rows.classes == 0) {
      loss = z_loss = 0.;
    } else if (undefined(row)) {
      loss = wl_nan();
      if (a.options.lambda > 0.) z_loss = wl_nan();
    }
    if (a.out.loss) store_loss(a.out.loss, a.out.wide, row.index, a.out.whole ? loss + z_loss : loss);
    if (a.out.z_loss) store_loss(a.out.z_loss, a.out.wide, row.index, z_loss);
    if (a.out.lse) wl_st(a.out.lse + row.index, (float)lse(row));
  }

  template <int n, class Columns>
  WL_FN void gradient(const Row& row, float (&x)[n], float (&y)[n], const Columns& columns, float (&out)[n]) const {
    float w[n], slope[n];
    mask_target(columns, y);
    if (capped()) cap_logits<true>(x, a.logits, slope);
    const bool weighs = weighted(columns);
    if (weighs) class_weights(a.weight, columns, unit, w);
    const float share = TEACHER ? hard() / row.norm : hard();
    if (!TEACHER && FULL) {
      WL_UNROLL for (int e = 0; e < n; e++) y[e] = wl_fma(y[e], share, soft());
      if (weighs) {
        WL_UNROLL for (int e = 0; e < n; e++) y[e] *= w[e];
      }
    }
    WL_UNROLL for (int e = 0; e < n; e++) {
      const float q = TEACHER ? wl_ex2((y[e] - row.top) * k_t) : y[e];
      const float w_e = weighs ? w[e] : 1.f;
      const float u = TEACHER ? wl_fma(share, w_e * q, soft() * w_e) : q;
      float others = row.mass - u;
      // The teacher's largest class as well: again a sum over the others.
      if (TEACHER && y[e] == row.lone_top) others = row.others_at_top;
      const float apart = wl_fma(row.g, others, row.at_max);
      out[e] = x[e] == row.alone ? apart : wl_fma(-row.g, u, wl_ex2((x[e] - row.max) * k) * row.prob);
    }
    if (capped()) {
      WL_UNROLL for (int e = 0; e < n; e++) out[e] *= slope[e];
    }
    if (!TEACHER && FULL && a.target.gradient) {
      float dq[n];
      WL_UNROLL for (int e = 0; e < n; e++) {
        const float w_e = weighs ? w[e] : 1.f;
        // Of a subnormal weight the product with a number near 1 would have no digits.
        const float far = w_e * (row.log_sum + z_unit * (row.max - x[e]));
        dq[e] = w_e == 0.f ? row.silent : row.target == 0.f ? 0.f : row.target * far;
      }
      columns.put(grad_target(), row.index, dq);
    }
  }
};
