// Negative log-likelihood of a normal distribution: (ln v + d^2 / v) / 2, with d = x - y and v the variance,
// the third number, or eps where that is larger; with ln(2 pi) / 2 where it is wanted. The variance's slope
// is that of v, beneath eps too. Launches: src/cuda/loss/elementwise.rs.
#pragma once
#include "schedule/elementwise.cuh"
#include "core/logarithm.cuh"

struct GaussianNll {
  static constexpr Third THIRD = THIRD_SLOPED;
  const float eps, constant;
  WL_FN GaussianNll(const ElementwiseArgs& a) : eps(a.options[0]), constant(a.options[1] != 0.f ? 0.918938533f : 0.f) {}
  WL_FN float shared(float, float, bool) const { return 0.f; }
  WL_FN float value(const Element& e) const {
    const float d = e.x - e.y, v = variance(e);
    return e.weight * wl_fma(0.5f, wl_fma(d, d / v, ln_plus(v, 0.f, e.narrow)), constant);
  }
  WL_FN float grad_x(const Element& e, float factor) const { return (e.x - e.y) / variance(e) * factor; }
  WL_FN float grad_y(const Element& e, float factor) const { return (e.y - e.x) / variance(e) * factor; }
  WL_FN float grad_third(const Element& e, float factor) const {
    const float d = e.x - e.y, v = variance(e);
    return wl_fma(-d, d / v, 1.f) / v * (0.5f * factor);
  }

 private:
  // NaN goes through.
  WL_FN float variance(const Element& e) const { return e.third < eps ? eps : e.third; }
};
