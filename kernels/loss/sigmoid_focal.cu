// Focal loss of a logit x and a label t, from q = e^-|x| alone. With p = sigma(x), the probability of
// what is not the target, u = (1 - t) p + t (1 - p), is a sum, and where it is a tail its logarithm is
// no logarithm of one:
//
//   value  a_t u^g entropy
//   dx     a_t u^g (dentropy/dx + g (1 - 2 t) entropy / u p (1 - p))
//   dt     u^g ((2 a - 1) entropy - a_t x + a_t g entropy / u (1 - 2 p))
//
// Launches: src/cuda/loss/elementwise.rs.
#pragma once
#include "loss/divergence.cuh"
#include "schedule/elementwise.cuh"

struct SigmoidFocal {
  static constexpr Third THIRD = THIRD_NONE;
  const float alpha, gamma;  // alpha below 0: none
  // gamma is a whole number and a rest; beyond 2^31 a power is what it is there.
  const wl_u32 whole;
  const float rest;
  WL_FN SigmoidFocal(const ElementwiseArgs& a)
      : alpha(a.options[0]), gamma(a.options[1]), whole((wl_u32)wl_min(gamma, 2147483648.f)),
        rest(gamma < 2147483648.f ? gamma - (float)whole : 0.f) {}

  // q, u^g
  WL_FN Shared shared(float x, float t, bool narrow) const {
    const float q = exp_of(-wl_abs(x), narrow);
    return {q, power(x, t, q, narrow)};
  }
  WL_FN float value(const Element& e) const {
    return e.weight * silent_product(alpha_of(e.y), silent_product(e.shared.two, entropy(e)));
  }
  WL_FN float grad_x(const Element& e, float factor) const {
    const float q = e.shared.one, near = wl_rcp(1.f + q), far = q * near;
    const float sigma = e.x < 0.f ? far : near, other = e.x < 0.f ? near : far;
    float slope = (1.f - e.y) * sigma - e.y * other;
    if (gamma != 0.f) slope = wl_fma(wl_fma(e.y, -2.f, 1.f), silenced(gamma * (far * near), ratio(e)), slope);
    return alpha_of(e.y) * e.shared.two * slope * factor;
  }
  WL_FN float grad_y(const Element& e, float factor) const {
    const float lean = alpha < 0.f ? 0.f : 2.f * alpha - 1.f, a = alpha_of(e.y);
    float slope = silent_product(lean, entropy(e)) - silent_product(a, e.x);
    if (gamma != 0.f) {
      // (1 - q) / (1 + q), no difference of near numbers, is |1 - 2 p|.
      const float down = e.narrow ? exp_m1_of<true>(-wl_abs(e.x)) : exp_m1_of<false>(-wl_abs(e.x));
      const float size = -down * wl_rcp(1.f + e.shared.one);
      slope += silenced(gamma * a, ratio(e) * (e.x < 0.f ? size : -size));
    }
    return silenced(e.shared.two, slope) * factor;
  }

 private:
  // What the larger of p and 1 - p, near = 1 / (1 + q), is multiplied by in u: without it u is the tail.
  static WL_FN float share_of(float x, float t) { return x < 0.f ? t : 1.f - t; }
  // u / near
  static WL_FN float rest_of(float x, float t, float q) {
    return wl_fma(x < 0.f ? 1.f - t : t, q, share_of(x, t));
  }
  // u^g: a product has more digits than the exponential of a logarithm.
  WL_FN float power(float x, float t, float q, bool narrow) const {
    const float of = rest_of(x, t, q);
    float power = 1.f, square = of * wl_rcp(1.f + q);
    WL_UNROLL_N(1) for (wl_u32 left = whole; left > 0; left >>= 1) {
      if (left & 1) power *= square;
      square *= square;
    }
    if (rest == 0.f) return power;
    const bool tail = share_of(x, t) == 0.f;
    const float ln = ln_plus(tail ? 1.f : of, tail ? -wl_abs(x) : 0.f) - ln_1p_of_unit(q, narrow);
    return power * exp_of(rest * ln, false);
  }
  static WL_FN float entropy(const Element& e) {
    const float l = ln_1p_of_unit(e.shared.one, e.narrow);
    return silent_product(e.y, wl_max(-e.x, 0.f) + l) + silent_product(1.f - e.y, wl_max(e.x, 0.f) + l);
  }
  // Entropy over u, which tends to 1 where u tends to 0.
  static WL_FN float ratio(const Element& e) {
    const float q = e.shared.one, u = rest_of(e.x, e.y, q) * wl_rcp(1.f + q);
    if (share_of(e.x, e.y) != 0.f) return entropy(e) / u;
    return q < 1e-8f ? 1.f : ln_1p_of_unit(q, e.narrow) / u;
  }
  WL_FN float alpha_of(float t) const { return alpha < 0.f ? 1.f : wl_fma(alpha, t, (1.f - alpha) * (1.f - t)); }
  // a * b, 0 where a is.
  static WL_FN float silenced(float a, float b) { return a == 0.f ? a : a * b; }
};
