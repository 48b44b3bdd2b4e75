// Binary cross entropy of a logit x and a probability y, from q = e^-|x| and ln(1 + q) alone:
//
//   value  v (r y softplus(-x) + (1 - y) softplus(x)),  softplus(x) = max(x, 0) + ln(1 + q)
//   dx     (1 - y) sigma(x) - r y sigma(-x),  neither sigma a difference
//   dy     r softplus(-x) - softplus(x)
//
// r is the positive weight. Launches: src/cuda/loss/elementwise.rs.
#pragma once
#include "schedule/elementwise.cuh"
#include "core/logarithm.cuh"

struct BceWithLogits {
  static constexpr Third THIRD = THIRD_READ;
  WL_FN BceWithLogits(const ElementwiseArgs&) {}
  // q
  WL_FN float shared(float x, float, bool narrow) const { return exp_of(-wl_abs(x), narrow); }
  WL_FN float value(const Element& e) const {
    const float l = ln_1p_of_unit(e.shared.one, e.narrow);
    const float positive = e.weight * (e.third * e.y), negative = e.weight * (1.f - e.y);
    // A coefficient of 0 silences +inf, and no NaN: l is one then.
    const float a = positive == 0.f ? 0.f : wl_max(-e.x, 0.f) + l, b = negative == 0.f ? 0.f : wl_max(e.x, 0.f) + l;
    return wl_fma(l, 0.f, wl_fma(positive, a, negative * b));
  }
  WL_FN float grad_x(const Element& e, float factor) const {
    const float q = e.shared.one, near = wl_rcp(1.f + q), far = q * near;
    const float sigma = e.x < 0.f ? far : near, rest = e.x < 0.f ? near : far;
    return ((1.f - e.y) * sigma - e.third * e.y * rest) * factor;
  }
  // As (r - 1) ln(1 + q) + r max(-x, 0) - max(x, 0): -x where r = 1, without a rounding.
  WL_FN float grad_y(const Element& e, float factor) const {
    const float l = ln_1p_of_unit(e.shared.one, e.narrow);
    const float rest = silent_product(e.third, wl_max(-e.x, 0.f)) - wl_max(e.x, 0.f);
    return wl_fma(e.third - 1.f, l, rest) * factor;
  }
};
