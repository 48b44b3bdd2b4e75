// Cross entropy over rows of logits; the gradient may overwrite them.
//
//   z       = scale * x, or cap * tanh(scale * x / cap)            lse = ln sum exp(z)
//   loss[n] = hard * w_t * (lse - z_t) + soft * sum_c w_c * (lse - z_c) + lambda * lse^2
//   dx[n,v] = g[n] * ((A + 2 lambda lse) * p_v - hard * w_t * [v == t] - soft * w_v) * dz/dx,
//             A = hard * w_t + soft * sum_c w_c
//
// x, dx [rows, classes], row strides in elements; results per row are f32. The reduction is in
// g[n]: its 1/W comes from the census on the device. Options and rules: src/spec/cross_entropy.rs.
// Where more is asked for of a row, log-probability and entropy, their gradients are added (entropy.cuh), and its
// likeliest classes found (top.cuh), in the same read.
//
// The target's exponential is kept apart from the others': p_t - 1 is -rest/total, a sum and no
// difference, and a small loss is log1p(rest/target).
//
// Traffic: 2 * rows * classes * size where a row stays on chip; split rows 3 *, 2 * from a saved
// lse; forward 1 *. Launches: src/cuda/loss/cross_entropy.rs.
#pragma once
#include "schedule/backward.cuh"
#include "schedule/state.cuh"
#include "loss/biased.cuh"
#include "loss/entropy.cuh"
#include "loss/ranked.cuh"
#include "loss/top.cuh"

// What a kernel has code for.
enum CrossEntropyParts {
  WL_PLAIN,    // class weights, ignored rows, a logit scale, a z-loss
  WL_OPTIONS,  // soft-cap and label smoothing too, both of which may be off
  WL_TOKENS,   // log-probability, entropy and their gradients too
};

struct CrossEntropySlopes {
  static constexpr int WORDS = 4;
  float max, prob, smooth;
  float target;  // the target's own
};
struct TokenSlopes : CrossEntropySlopes {
  static constexpr int WORDS = 5;
  float bend;
};

template <CrossEntropyParts PARTS>
struct CrossEntropyOf {
  typedef TargetRows<CrossEntropyArgs, true> Rows;
  typedef Smoothed State;
  typedef CrossEntropySlopes Slopes;
};
template <>
struct CrossEntropyOf<WL_PLAIN> {
  typedef TargetRows<CrossEntropyArgs, false> Rows;
  typedef Lse State;
  typedef CrossEntropySlopes Slopes;
};
template <>
struct CrossEntropyOf<WL_TOKENS> {
  typedef EntropyRows<TargetRows<CrossEntropyArgs, true>> Rows;
  typedef SmoothedOver<Moments> State;
  typedef TokenSlopes Slopes;
};

template <CrossEntropyParts PARTS>
struct CrossEntropy : CrossEntropyOf<PARTS>::Rows {
  typedef typename CrossEntropyOf<PARTS>::Rows Rows;
  typedef typename CrossEntropyOf<PARTS>::State State;
  static constexpr bool FULL = PARTS != WL_PLAIN, TOKENS = PARTS == WL_TOKENS;
  using Rows::a;
  using Rows::k;
  using Rows::capped;
  using Rows::z_unit;
  // The options' terms are pushed pack by pack.
  static constexpr int TOGETHER = FULL ? 1 : 4;
  static constexpr bool AT_ONCE = true, SUMMED = true, LATE = true;

  float unit;  // of weights where classes are smoothed over: all of them add up within f32

  WL_FN CrossEntropy(const CrossEntropyArgs& a) : Rows(a), unit(1.f) {
    if (!FULL || !(a.options.soft > 0.f)) return;
    unit = wl_ld(&a.options.totals->weight_unit);
    // What a large scale makes something of is not to be lost either. (2^126: a power of two.)
    if (z_unit > 1.f) unit = wl_min(unit * wl_f32(wl_bits(z_unit) & 0x7f800000u), wl_f32(253u << 23));
  }

  struct Row : Rows::Row {
    float w_t, given;    // the target's weight; the upstream gradient
    double per_weight;   // 1 / the sum of weights, where losses are averaged
    float deviation;     // once the row is summed; of weights times `unit`, in units of distance
    float prob, smooth;  // what multiplies p_j, and w_j times `unit`, in the gradient
    float bend;          // with entropy, what multiplies p_j * log2(1/e_j)
  };

  WL_FN float grad_logprob(const Row& row) const { return upstream_of(a.tokens.of_logprob, row.index); }
  WL_FN float grad_entropy(const Row& row) const { return upstream_of(a.tokens.of_entropy, row.index); }

  template <class Logit>
  WL_FN Row begin(wl_i64 index, Logit logit) const {
    Row row = {};
    if (!Rows::begin(row, index, logit)) return row;
    row.w_t = a.weight.values ? load_float(a.weight.values, a.weight.kind, row.target) : 1.f;
    // On their way while the row is read.
    row.given = upstream_of(a.upstream, index);
    row.per_weight = a.options.mean ? wl_ld(&a.options.totals->per_weight) : 1.;
    return row;
  }

  WL_FN bool coarse(wl_i64 index) const { return this->coarse_lse(index); }

  // Whether every element is a column of weight 1.
  template <class Columns>
  WL_FN bool all_one(const Columns& columns) const {
    return !a.weight.values && columns.whole();
  }

  template <int n, class Columns>
  WL_FN void push(State& s, const Row& row, float (&x)[n], const Columns& columns) const {
    Rows::keys(x, columns, row);
    s.push(x, k);
    if constexpr (FULL) {
      if (!(a.options.soft > 0.f)) return;
      if (all_one(columns) && !columns.has(row.target)) {
        s.weigh(x, unit, k);
      } else {
        float w[n];
        class_weights(a.weight, columns, unit, w);
        columns.set(row.target, w, 0.f);
        s.weigh(x, w, k);
      }
    }
  }

  WL_FN void finish(const State& s, Row& row) const {
    float ref;
    if constexpr (TOKENS) {
      ref = Rows::finish_entropy(s, row);
    } else {
      ref = Rows::total(s, row);
    }
    if constexpr (FULL) {
      row.deviation = s.deviation;
      const float of_distance = distance_unit(k);
      if (s.weight != 0.f) row.deviation += s.weight * distance(ref, reference(s.max), of_distance);
      if (row.w_t != 0.f) row.deviation += row.w_t * unit * distance(ref, row.key_t, of_distance);
    }
    factors(row, lse_of(row, wl_log(row.total)));
    if (Rows::undefined(row)) row.prob = wl_nan();
  }

  // What p_t - 1, every other p_j, and w_j are multiplied by, dz/dx not included.
  struct Factors {
    double hard, other, smooth;
  };

  // In f64: products of options, weights and the upstream gradient may leave f32 on their way to one
  // that does not.
  WL_FN Factors factors_of(const Row& row, double lse) const {
    const double given = row.given;
    const double g = given * row.per_weight;
    Factors f = {g * a.options.hard * row.w_t, 0., 0.};
    if (a.options.lambda > 0.) f.other = (a.options.mean ? given * wl_ld(&a.options.totals->per_row) : given) * 2. * a.options.lambda * lse;
    if (FULL && a.options.soft > 0.f) {
      f.smooth = g * a.options.soft;
      f.other += f.smooth * wl_ld(&a.options.totals->class_weight);
    }
    return f;
  }

  WL_FN void factors(Row& row, double lse) const {
    const Factors f = factors_of(row, lse);
    const double slope = FULL && capped ? 1. : (double)a.logits.scale;
    double prob = f.hard + f.other;
    if constexpr (TOKENS) {
      const double b = grad_entropy(row);
      prob -= grad_logprob(row) + b * row.mean;
      row.bend = (float)(b * slope * (double)(WL_LN2 / row.total));
    }
    row.prob = (float)(prob * slope * (double)(1.f / row.total));
    row.smooth = FULL && a.options.soft > 0.f ? (float)(f.smooth * slope / unit) : 0.f;
  }

  // In f64, as what is made of it may be in range where it is not.
  WL_FN double lse_of(const Row& row, float log_sum) const { return (double)z_unit * row.max + log_sum; }

  WL_FN void write(const Row& row) const {
    double loss = 0., z_loss = 0.;
    double lse = 0.;
    if (row.kept) {
      const float log_sum = wl_log(row.total);
      lse = lse_of(row, log_sum);
      const double hard = (double)a.options.hard * row.w_t;
      // As ln(1 + rest/target) unless the target is negligible: a small loss keeps its digits.
      if (hard != 0.) {
        loss = hard * (row.at_target > 1e-30f ? wl_log1p(row.rest / row.at_target)
                                              : log_sum + this->target_distance(row));
      }
      if (FULL && a.options.soft > 0.f) {
        const double all = wl_ld(&a.options.totals->class_weight);
        const double distance = (double)z_unit / distance_unit(k) / unit * row.deviation;
        loss += a.options.soft * ((all == 0. ? 0. : all * log_sum) + distance);
      }
      if (a.options.lambda > 0.) z_loss = a.options.lambda * lse * lse;
      if (Rows::undefined(row)) {
        loss = wl_nan();
        if (a.options.lambda > 0.) z_loss = wl_nan();
      }
    }
    if (a.out.loss) store_loss(a.out.loss, a.out.wide, row.index, a.out.whole ? loss + z_loss : loss);
    if (a.out.z_loss) store_loss(a.out.z_loss, a.out.wide, row.index, z_loss);
    if (a.out.lse) wl_st(a.out.lse + row.index, (float)lse);
    if constexpr (TOKENS) write_tokens(row);
  }

  WL_FN void write_tokens(const Row& row) const {
    const bool none = Rows::undefined(row);
    const float logprob = !row.kept ? 0.f : none ? wl_nan() : Rows::logprob(row);
    const float entropy = !row.kept ? 0.f : none ? wl_nan() : Rows::entropy(row);
    if (a.tokens.logprob) wl_st(a.tokens.logprob + row.index, logprob);
    if (a.tokens.entropy) wl_st(a.tokens.entropy + row.index, entropy);
  }

  // That of any class, given its logit.
  WL_FN float logprob_of(const Row& row, float x) const {
    if (Rows::undefined(row)) return wl_nan();
    const float key = capped ? Capped(x, a.logits).key : x;
    return (float)((double)z_unit * ((double)key - row.max) - Rows::log_sum(row));
  }

  // The gradient, but for the target. SUM: adds up the exponentials without the target's.
  template <bool SUM, int n, class Columns>
  WL_FN void terms(const Row& row, float (&x)[n], const Columns& columns, float (&out)[n], float& sum) const {
    float slope[n];
    if (FULL && capped) cap_logits<true>(x, a.logits, slope);
    if (SUM) columns.set(row.target, x, -wl_inf());
    float part = 0.f;
    WL_UNROLL for (int e = 0; e < n; e++) {
      const float below = (x[e] - row.max) * k;
      const float exponential = wl_ex2(below);
      if (SUM) part += exponential;
      out[e] = exponential * (TOKENS ? wl_fma(row.bend, wl_min(-below, WL_FARTHEST), row.prob) : row.prob);
    }
    if (SUM) sum += part;
    if (FULL && a.options.soft > 0.f && all_one(columns)) {
      const float one = unit * row.smooth;
      WL_UNROLL for (int e = 0; e < n; e++) out[e] -= one;
    } else if (FULL && a.options.soft > 0.f) {
      float w[n];
      class_weights(a.weight, columns, unit, w);
      WL_UNROLL for (int e = 0; e < n; e++) out[e] = wl_fma(-w[e], row.smooth, out[e]);
    }
    if (FULL && capped) {
      WL_UNROLL for (int e = 0; e < n; e++) out[e] *= slope[e];
    }
  }

  template <int n, class Columns>
  WL_FN void gradient(const Row& row, float (&x)[n], const Columns& columns, float (&out)[n]) const {
    float sum;
    terms<false>(row, x, columns, out, sum);
  }

  WL_FN float target_gradient(const Row& row) const {
    if (wl_isnan(row.prob)) return row.prob;
    const float inverse = 1.f / row.total;
    const Factors f = factors_of(row, lse_of(row, wl_log(row.total)));
    double own = f.other * (row.at_target * inverse) - f.hard * (row.rest * inverse);
    if constexpr (TOKENS) own += Rows::target_slope(row, grad_logprob(row), grad_entropy(row));
    return (float)((own - f.smooth * row.w_t) * row.slope_t);
  }

  // What a row's gradient is made of once it is finished, for who comes back to the row.
  typedef typename CrossEntropyOf<PARTS>::Slopes Slopes;
  WL_FN Slopes slopes(const Row& row) const {
    Slopes slopes = {};
    if (!row.kept) return slopes;
    slopes.max = row.max, slopes.prob = row.prob, slopes.smooth = row.smooth, slopes.target = target_gradient(row);
    if constexpr (TOKENS) slopes.bend = row.bend;
    return slopes;
  }
  WL_FN Row recalled(wl_i64 target, const Slopes& slopes) const {
    Row row = {};
    row.target = target, row.kept = target >= 0;
    row.max = slopes.max, row.prob = slopes.prob, row.smooth = slopes.smooth;
    if constexpr (TOKENS) row.bend = slopes.bend;
    return row;
  }
  // Whether a logit's exponential, relative to the row's largest, is so large; what is NaN is.
  WL_FN bool reaches(const Row& row, float x, float limit) const {
    const float key = FULL && capped ? Capped(x, a.logits).key : x;
    return !(wl_ex2((key - row.max) * k) < limit);
  }
};
