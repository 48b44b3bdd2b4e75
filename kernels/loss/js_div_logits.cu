// Jensen-Shannon divergence over rows of a model's logits and of its teacher's.
//
//   x, y    = log_softmax(scale * a), log_softmax(teacher * b)
//   G, H    = slopes to x and y (divergence.cuh), good but for a multiple of Q and of P
//   loss[n] = sum_v G + H, or of Kullback-Leibler terms, or |P - Q| / 2 (beta 2)
//   da[n,v] = g[n] * scale * (G - Q * sum G),  db[n,v] = g[n] * teacher * (H - P * sum H)
//
// The rows' normalisers come first, then, of the rows that are still there, the slopes' sums, then
// the gradients. Without a gradient (y null) only numbers are written.
//
// Traffic: 2 * rows * classes * size on chip, 3 * with a gradient; split rows 4 * and 7 *; one more
// write for db. Launches: src/cuda/loss/js_div_logits.rs.
#pragma once
#include "loss/divergence.cuh"
#include "core/peak.cuh"
#include "schedule/row.cuh"

// The normalisers of both rows. `k_t` is log2(e) times the teacher's scale.
struct TwoPeaks {
  static constexpr int WORDS = 5;
  Peak peak, teacher;
  float k_t;

  // No scale yet: less than any, and yet a factor that leaves -inf what it is.
  static WL_FN TwoPeaks empty() { return {Peak::empty(), Peak::empty(), 1e-38f}; }
  WL_FN void merge(const TwoPeaks& other, float k) {
    k_t = wl_max(k_t, other.k_t);
    peak.merge(other.peak, k);
    teacher.merge(other.teacher, k_t);
  }
};

// The slopes' sums; the loss apart, as near each other the two nearly cancel.
struct SlopeSums {
  static constexpr int WORDS = 3;
  float loss, at_x, at_y;
  static WL_FN SlopeSums empty() { return {0.f, 0.f, 0.f}; }
  WL_FN void merge(const SlopeSums& other, float) {
    loss += other.loss, at_x += other.at_x, at_y += other.at_y;
  }
};

// NARROW: the tensors have 16 bits, so that what is good to 2^-16 will do.
template <bool NARROW>
struct JsDivLogits {
  typedef JsDivLogitsArgs Args;
  typedef TwoPeaks State;
  typedef SlopeSums Second;
  static constexpr bool TARGET = false;
  static constexpr bool BESIDE = true, SUMMED = true;
  static constexpr int TOGETHER = 1;

  const Args& a;
  float k, k_t;  // log2(e) times the scales
  const Mixture mixture;

  WL_FN JsDivLogits(const Args& a)
      : a(a), k(a.scale * WL_LOG2E), k_t(a.teacher * WL_LOG2E), mixture(a.beta) {}

  // How the difference of two log-probabilities is formed: of themselves; of logits near each other, where
  // the maxima are near as well; of products of logits and scales, with what their rounding took, where rows
  // agree but for offsets or temperatures (src/cpu/loss/js_div_logits/terms.rs).
  enum class From { LOGARITHMS, LOGITS, PRODUCTS };

  struct Row {
    wl_i64 index;
    bool kept;
    float max, log_sum, top, log_norm;
    From from;
    float shift, apart;
    float loss, at_x, at_y;  // sums
    float g, g_t;            // what multiplies the gradients
  };

  WL_FN MatrixRows beside() const { return {a.target.values, a.target.stride}; }
  WL_FN OutRows grad_target() const { return {a.target.gradient, a.target.gradient_stride}; }
  template <class Logit>
  WL_FN Row begin(wl_i64 index, Logit) const {
    Row row = {};
    row.index = index;
    row.kept = !a.labels.values || load_index(a.labels.values, a.labels.kind, index) != a.labels.ignore_index;
    return row;
  }

  // What is no column holds 0 beside the row, which is a logit.
  template <int n, class Columns>
  WL_FN void mask_teacher(const Columns& columns, float (&y)[n]) const {
    if (columns.whole()) return;
    WL_UNROLL for (int e = 0; e < n; e++) y[e] = columns.holds(e) ? y[e] : -wl_inf();
  }

  template <int n, class Columns>
  WL_FN void push(State& s, const Row&, float (&x)[n], float (&y)[n], const Columns& columns) const {
    mask_teacher(columns, y);
    s.k_t = k_t;
    s.peak.push(x, k, x);
    s.teacher.push(y, k_t, y);
  }

  WL_FN void finish(const State& s, Row& row) const {
    row.max = s.peak.max, row.log_sum = wl_log1p(s.peak.rest);
    row.top = s.teacher.max, row.log_norm = wl_log1p(s.teacher.rest);
    row.shift = row.max - row.top, row.apart = row.log_sum - row.log_norm;
    row.from = a.scale == a.teacher && wl_abs(row.shift) <= 1.f ? From::LOGITS : From::LOGARITHMS;
    const float z = wl_mul_rn(a.scale, row.max), z_t = wl_mul_rn(a.teacher, row.top);
    const bool alike = wl_abs(row.apart) <= 0.125f && wl_max(wl_abs(z), wl_abs(z_t)) <= 1e6f;
    if (row.from == From::LOGITS || !alike) return;
    row.from = From::PRODUCTS;
    row.shift = z - z_t;
    row.apart += lost(z, z_t, row.shift, row.max, row.top);
  }

  // What rounding took from z = scale * x, from z_t = teacher * y, and from their difference.
  WL_FN float lost(float z, float z_t, float difference, float x, float y) const {
    const float back = difference - z;
    const float sum = (z - (difference - back)) - (z_t + back);
    return sum + (wl_fma(a.scale, x, -z) - wl_fma(a.teacher, y, -z_t));
  }

  // ln Q - ln P of a class.
  WL_FN float apart(const Row& row, float x, float y, float ln_q, float ln_p) const {
    if (row.from == From::LOGITS) return ((x - y) - row.shift) * a.scale - row.apart;
    if (row.from == From::LOGARITHMS) return ln_q - ln_p;
    const float z = wl_mul_rn(a.scale, x), z_t = wl_mul_rn(a.teacher, y), difference = z - z_t;
    const float more = lost(z, z_t, difference, x, y);
    // A masked class has no such parts.
    return (difference - row.shift) + ((wl_abs(more) < 1.f ? more : 0.f) - row.apart);
  }

  // Probabilities of an element, what it adds to the loss, and its slopes.
  struct Terms {
    float q, p, loss, at_x, at_y;
  };
  WL_FN Terms terms(const Row& row, float x, float y) const {
    const float ln_q = (x - row.max) * a.scale - row.log_sum, ln_p = (y - row.top) * a.teacher - row.log_norm;
    const float q = exp_of(ln_q, NARROW), p = exp_of(ln_p, NARROW), u = apart(row, x, y, ln_q, ln_p);
    const float beta = a.beta;
    if (beta > 0.f && beta < 1.f) {
      const Slopes s = mixture.template slopes<NARROW>(q, p, u);
      return {q, p, s.at_x + s.at_y, s.at_x, s.at_y};
    }
    const bool forward = beta != 1.f;
    const KlTerms t = kl_terms<NARROW>(forward ? q : p, forward ? p : q, forward ? ln_p : ln_q, forward ? u : -u);
    if (beta > 1.f) {
      // Total variation: at_q is Q - P, and of equals neither gives way.
      const float side = t.at_q > 0.f ? 0.5f : t.at_q < 0.f ? -0.5f : 0.f;
      return {q, p, side * t.at_q, side * q, -side * p};
    }
    return {q, p, t.loss, forward ? t.at_q : t.at_p, forward ? t.at_p : t.at_q};
  }

  template <int n, class Columns>
  WL_FN void push_second(Second& s, const Row& row, const float (&x)[n], float (&y)[n], const Columns& columns) const {
    mask_teacher(columns, y);
    WL_UNROLL for (int e = 0; e < n; e++) {
      const Terms t = terms(row, x[e], y[e]);
      s.loss += t.loss, s.at_x += t.at_x, s.at_y += t.at_y;
    }
  }

  // All -inf, or +inf or NaN, in either row: no probabilities.
  static WL_FN bool undefined(const Row& row) {
    return !(wl_abs(row.max) <= WL_FLT_MAX) || wl_isnan(row.log_sum) || !(wl_abs(row.top) <= WL_FLT_MAX) ||
           wl_isnan(row.log_norm);
  }

    WL_FN void finish_second(const Second& s, Row& row) const {
    const bool none = undefined(row);
    // Of no classes there is no mean: infinity times 0.
    row.loss = none && a.rows.classes > 0 ? wl_nan() : a.share * s.loss;
    row.at_x = s.at_x, row.at_y = s.at_y;
    const float given = upstream_of(a.upstream, row.index);
    const float g = none ? wl_nan() : a.share * (a.mean ? given * wl_ld(&a.totals->per_row) : given);
    row.g = g * a.scale, row.g_t = g * a.teacher;
  }

  WL_FN void write(const Row& row) const {
    if (a.loss) wl_st(a.loss + row.index, row.kept ? row.loss : 0.f);
  }

  template <int n, class Columns>
  WL_FN void gradient(const Row& row, const float (&x)[n], float (&y)[n], const Columns& columns,
                      float (&out)[n]) const {
    float dq[n];
    mask_teacher(columns, y);
    WL_UNROLL for (int e = 0; e < n; e++) {
      const Terms t = terms(row, x[e], y[e]);
      out[e] = row.g * wl_fma(-t.q, row.at_x, t.at_x);
      dq[e] = row.g_t * wl_fma(-t.p, row.at_y, t.at_y);
    }
    if (a.target.gradient) columns.put(grad_target(), row.index, dq);
  }

  // A row that does not count has no gradient of its teacher either.
  template <class Columns>
  WL_FN void fill_beside(const Row& row, const Columns& columns) const {
    const float zero[Columns::N] = {};
    if (a.target.gradient) columns.put(grad_target(), row.index, zero);
  }
};
