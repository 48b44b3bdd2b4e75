// Cross entropy over rows of logits; the gradient may overwrite them.
//
//   z       = scale * x, or cap * tanh(scale * x / cap)            lse = ln sum exp(z)
//   loss[n] = hard * w_t * (lse - z_t) + soft * sum_c w_c * (lse - z_c) + lambda * lse^2
//   dx[n,v] = g[n] * ((A + 2 lambda lse) * p_v - hard * w_t * [v == t] - soft * w_v) * dz/dx,
//             A = hard * w_t + soft * sum_c w_c
//
// x, dx [rows, classes], row strides in elements; results per row are f32. The reduction is in
// g[n]: its 1/W comes from the census on the device. Options and rules: src/loss/cross_entropy.rs.
//
// The target's exponential is kept apart from the others': p_t - 1 is -rest/total, a sum and no
// difference, and a small loss is log1p(rest/target).
//
// Traffic: 2 * rows * classes * size where a row stays on chip; split rows 3 *, 2 * from a saved
// lse; forward 1 *. Launches: src/cuda/cross_entropy.rs.
#pragma once
#include "logits.cuh"
#include "row.cuh"

// Beyond this a saved f32 lse is too coarse to make probabilities of (COARSE_LSE on the CPU).
#define WL_COARSE_LSE 64.f

template <class T, bool FULL>
struct StateOf {
  typedef Lse Type;
};
template <class T>
struct StateOf<T, true> {
  typedef Smoothed Type;
};

// FULL: with soft-cap and label smoothing, both of which may be off.
template <class T, bool FULL>
struct CrossEntropy {
  typedef T In;
  typedef T Out;
  typedef typename StateOf<T, FULL>::Type State;
  static constexpr bool TARGET = true;
  // The options' terms are pushed pack by pack: more at once only adds code.
  static constexpr int TOGETHER = FULL ? 2 : 4;
  static constexpr int LANES = Dtype<T>::LANES;

  const RowArgs& a;
  float k;       // log2(e) times what keys lack to be z
  float z_unit;  // z of a key of 1
  float rate;    // scale / cap

  WL_FN CrossEntropy(const RowArgs& a) : a(a) {
    const bool capped = FULL && a.cap > 0.f;
    z_unit = capped ? 1.f : a.scale;
    k = z_unit * WL_LOG2E;
    rate = capped ? a.scale / a.cap : 0.f;
  }

  struct Row {
    wl_i64 index, target;
    bool kept;
    float x_t, key_t, slope_t, w_t;
    // Once the row is summed:
    float max, rest, at_target, total, deviation;
    // What the gradient is made of:
    float hard, other, prob, smooth;
  };

  WL_FN Row begin(wl_i64 index, const float* saved) const {
    Row row = {};
    row.index = index;
    row.target = load_index(a.target, a.target_kind, index);
    // The census reports a target that is no class; here it contributes nothing.
    row.kept = row.target != a.ignore_index && row.target >= 0 && row.target < a.classes;
    if (!row.kept) return row;
    row.x_t = saved ? wl_ld(saved + index) : Dtype<T>::load((const T*)a.x + index * a.x_stride + row.target);
    row.w_t = a.weight ? load_float(a.weight, a.weight_kind, row.target) : 1.f;
    row.key_t = row.x_t;
    row.slope_t = a.scale;
    if (FULL && rate > 0.f) {
      const Capped z(row.x_t, rate, a.cap);
      row.key_t = z.key;
      row.slope_t = a.scale * z.slope;
    }
    return row;
  }

  // The saved lse cannot serve as the row's normaliser.
  WL_FN bool coarse(wl_i64 index) const { return !(wl_abs(wl_ld(a.lse + index)) <= WL_COARSE_LSE); }

  template <int n>
  WL_FN void push(State& s, const Row& row, const wl_u32x4 (&v)[n], const Packs<T>& packs, wl_u32 p,
                  wl_u32 step) const {
    const wl_u32 target = packs.pack_of(row.target);
    if constexpr (!FULL) {
      float x[n * LANES];
      widen_all<0>(v, x);
      // The target is no part of the rest. One comparison a pack, not one an element.
      WL_UNROLL for (int i = 0; i < n; i++) {
        if (p + i * step == target) mask<n * LANES>(x, i * LANES + packs.lane_of(row.target));
      }
      s.push(x, k);
    } else {
      WL_UNROLL for (int i = 0; i < n; i++) {
        const wl_u32 at = p + i * step;
        float x[LANES], w[LANES];
        Dtype<T>::template widen<0>(v[i], x);
        if (rate > 0.f) {
          WL_UNROLL for (int e = 0; e < LANES; e++) x[e] = Capped(x[e], rate, a.cap).key;
        }
        if (at == target) mask<LANES>(x, packs.lane_of(row.target));
        s.push(x, k);
        if (a.soft > 0.f) {
          class_weights(a, packs, at, w);
          if (at == target) {
            WL_UNROLL for (int e = 0; e < LANES; e++) {
              w[e] = e == (int)packs.lane_of(row.target) ? 0.f : w[e];
            }
          }
          s.weigh(x, w);
        }
      }
    }
  }

  WL_FN void finish(const State& s, Row& row) const {
    row.max = wl_max(s.max, row.key_t);
    const float ref = reference(row.max);
    row.rest = s.sum * wl_ex2((s.max - ref) * k);
    row.at_target = wl_ex2((row.key_t - ref) * k);
    row.total = row.rest + row.at_target;
    if constexpr (FULL) {
      row.deviation = s.deviation;
      if (s.weight != 0.f) row.deviation += s.weight * (ref - reference(s.max));
      if (row.w_t != 0.f) row.deviation += row.w_t * (ref - row.key_t);
    }
    factors(row, z_unit * row.max + wl_log(row.total));
    if (undefined(row)) row.prob = wl_nan();
  }

  // All -inf, or +inf or NaN among the logits: no probabilities.
  static WL_FN bool undefined(const Row& row) {
    return !(wl_abs(row.max) <= WL_FLT_MAX) || wl_isnan(row.total);
  }

  // What multiplies p_j, and w_j, in the gradient.
  WL_FN void factors(Row& row, float lse) const {
    const float given = a.upstream ? load_float(a.upstream, a.upstream_kind, row.index * a.upstream_stride) : a.number;
    const float g = a.mean ? given * wl_ld(&a.totals->per_weight) : given;
    const float g_z = a.mean ? given * wl_ld(&a.totals->per_row) : given;
    row.hard = g * a.hard * row.w_t;
    row.other = a.lambda > 0.f ? g_z * 2.f * a.lambda * lse : 0.f;
    row.smooth = 0.f;
    if (FULL && a.soft > 0.f) {
      row.other += g * a.soft * wl_ld(&a.totals->class_weight_f32);
      row.smooth = g * a.soft;
    }
    row.prob = (row.hard + row.other) / row.total;
    if (!(FULL && rate > 0.f)) {
      row.prob *= a.scale;
      row.smooth *= a.scale;
    }
  }

  WL_FN void write(const Row& row) const {
    float loss = 0.f, z_loss = 0.f, lse = 0.f;
    if (row.kept) {
      const float log_sum = wl_log(row.total);
      lse = z_unit * row.max + log_sum;
      const float hard = a.hard * row.w_t;
      // As ln(1 + rest/target) unless the target is negligible: a small loss keeps its digits.
      if (hard != 0.f) {
        loss = hard * (row.at_target > 1e-30f ? wl_log1p(row.rest / row.at_target)
                                              : log_sum + z_unit * (row.max - row.key_t));
      }
      if (FULL && a.soft > 0.f) {
        const float all = wl_ld(&a.totals->class_weight_f32);
        loss += a.soft * ((all == 0.f ? 0.f : all * log_sum) + z_unit * row.deviation);
      }
      if (a.lambda > 0.f) z_loss = a.lambda * lse * lse;
      if (undefined(row)) {
        loss = wl_nan();
        if (a.lambda > 0.f) z_loss = wl_nan();
      }
    }
    if (a.loss) wl_st(a.loss + row.index, a.whole ? loss + z_loss : loss);
    if (a.z_loss) wl_st(a.z_loss + row.index, z_loss);
    if (a.lse) wl_st(a.lse + row.index, lse);
  }

  // One pack's gradient, but for the target. SUM: adds up the exponentials without the target's.
  template <bool SUM>
  WL_FN void terms(const Row& row, const Packs<T>& packs, wl_u32x4 v, wl_u32 p, float (&out)[LANES],
                   float& sum) const {
    float x[LANES], slope[LANES];
    Dtype<T>::template widen<0>(v, x);
    const bool capped = FULL && rate > 0.f;
    if (capped) {
      WL_UNROLL for (int e = 0; e < LANES; e++) {
        const Capped z(x[e], rate, a.cap);
        x[e] = z.key;
        slope[e] = a.scale * z.slope;
      }
    }
    if (SUM && p == packs.pack_of(row.target)) mask<LANES>(x, packs.lane_of(row.target));
    float part = 0.f;
    WL_UNROLL for (int e = 0; e < LANES; e++) {
      const float exponential = wl_ex2((x[e] - row.max) * k);
      if (SUM) part += exponential;
      out[e] = exponential * row.prob;
    }
    if (SUM) sum += part;
    if (FULL && a.soft > 0.f) {
      float w[LANES];
      class_weights(a, packs, p, w);
      WL_UNROLL for (int e = 0; e < LANES; e++) out[e] = wl_fma(-w[e], row.smooth, out[e]);
    }
    if (capped) {
      WL_UNROLL for (int e = 0; e < LANES; e++) out[e] *= slope[e];
    }
  }

  WL_FN void gradient(const Row& row, const Packs<T>& packs, wl_u32x4 v, wl_u32 p, float (&out)[LANES]) const {
    float sum;
    terms<false>(row, packs, v, p, out, sum);
  }

  WL_FN float target_gradient(const Row& row) const {
    if (wl_isnan(row.prob)) return row.prob;
    const float inverse = 1.f / row.total;
    const float soft = row.smooth == 0.f ? 0.f : smooth_of(row) * row.w_t;
    return (row.hard * -(row.rest * inverse) + row.other * (row.at_target * inverse) - soft) * row.slope_t;
  }

 private:
  // g * soft: `smooth` without the constant slope.
  WL_FN float smooth_of(const Row& row) const { return rate > 0.f ? row.smooth : row.smooth / a.scale; }

  template <int n>
  static WL_FN void mask(float (&x)[n], wl_u32 lane) {
    WL_UNROLL for (int e = 0; e < n; e++) x[e] = e == (int)lane ? -wl_inf() : x[e];
  }
  template <int i, int n>
  static WL_FN void widen_all(const wl_u32x4 (&v)[n], float (&x)[n * LANES]) {
    if constexpr (i < n) {
      Dtype<T>::template widen<i * LANES>(v[i], x);
      widen_all<i + 1>(v, x);
    }
  }
};

// A float that adds up.
struct Total {
  static constexpr int WORDS = 1;
  float sum;
  static WL_FN Total empty() { return {0.f}; }
  WL_FN void merge(const Total& other, float) { sum += other.sum; }
};

// The row as a saved lse, or else the parts' pairs, have it; `fine` says which.
template <class Op>
WL_FN void from_lse(const Op& op, const RowArgs& a, typename Op::Row& row) {
  const float lse = wl_ld(a.lse + row.index);
  row.max = lse / op.z_unit;
  row.total = 1.f;
  op.factors(row, lse);
}

// Split rows, gradient from a saved lse: one read. Each part leaves the sum of its exponentials.
template <class Op>
WL_FN void split_backward(const RowArgs& a) {
  typedef typename Op::In T;
  WL_SMEM(float, slots, 32 * Op::State::WORDS);
  WL_SMEM(float, sums, 32);
  const Op op(a);
  const wl_i64 index = wl_block() / a.parts;
  const wl_u32 part = wl_block() % a.parts;
  const Packs<T> packs(x_row<Op>(a, index), a.classes);
  const Slice<T> slice(packs, part, a.slice);
  const Sink<T, typename Op::Out> sink(y_row<Op>(a, index), packs);
  typename Op::Row row = op.begin(index, a.row_target);
  if (!row.kept) return fill<Op>(packs, slice, sink);
  if (op.coarse(index)) {
    const typename Op::State state = parts_of(op, a, index, wl_thread(), wl_threads());
    op.finish(reduce_block(state, op.k, slots), row);
  } else {
    from_lse(op, a, row);
  }
  Total total = Total::empty();
  each_pack<1>(
      packs, slice.from, slice.to,
      [&](auto, wl_u32 p) {
        float out[Op::LANES];
        op.template terms<true>(row, packs, wl_ld128_stream(packs.at(p)), p, out, total.sum);
        sink.full(packs.column(p), out);
      },
      [&](wl_u32 p) {
        float out[Op::LANES];
        op.template terms<true>(row, packs, packs.edge(p), p, out, total.sum);
        sink.edge(packs.column(p), packs.len, out);
      });
  total = reduce_block(total, op.k, sums);
  if (wl_thread() == 0) {
    wl_st(a.partials + a.rows * a.parts * Op::State::WORDS + wl_block(), total.sum);
  }
}

// The target's element, which needs them all: a warp a row.
template <class Op>
WL_FN void split_target(const RowArgs& a) {
  const Op op(a);
  const wl_i64 index = (wl_i64)wl_block() * wl_warps() + wl_warp();
  if (index >= a.rows) return;
  typename Op::Row row = op.begin(index, a.row_target);
  if (!row.kept) return;  // the whole warp: it has one row
  if (op.coarse(index)) {
    op.finish(reduce_lanes<32>(parts_of(op, a, index, wl_lane(), 32), op.k), row);
  } else {
    from_lse(op, a, row);
    const float* rests = a.partials + a.rows * a.parts * Op::State::WORDS + index * a.parts;
    Total rest = Total::empty();
    for (wl_u32 part = wl_lane(); part < a.parts; part += 32) rest.sum += wl_ld(rests + part);
    rest = reduce_lanes<32>(rest, op.k);
    row.rest = rest.sum;
    row.at_target = wl_ex2((row.key_t - row.max) * op.k);
    row.total = row.rest + row.at_target;
  }
  if (wl_lane() == 0) {
    typedef typename Op::Out U;
    Dtype<U>::store(y_row<Op>(a, index) + row.target, op.target_gradient(row));
  }
}
