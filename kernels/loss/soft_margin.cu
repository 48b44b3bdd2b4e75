// Soft margin: softplus(w) of w = -x y, from q = e^-|w| and ln(1 + q); slope sigma(w), no difference.
// Launches: src/cuda/loss/elementwise.rs.
#pragma once
#include "schedule/elementwise.cuh"
#include "core/logarithm.cuh"

struct SoftMargin {
  static constexpr Third THIRD = THIRD_NONE;
  WL_FN SoftMargin(const ElementwiseArgs&) {}
  // q
  WL_FN float shared(float x, float y, bool narrow) const { return exp_of(-wl_abs(x * y), narrow); }
  WL_FN float value(const Element& e) const {
    return e.weight * (wl_max(-(e.x * e.y), 0.f) + ln_1p_of_unit(e.shared.one, e.narrow));
  }
  WL_FN float grad_x(const Element& e, float factor) const { return e.y * slope(e) * factor; }
  WL_FN float grad_y(const Element& e, float factor) const { return e.x * slope(e) * factor; }

 private:
  // -sigma(w)
  static WL_FN float slope(const Element& e) {
    const float q = e.shared.one, near = wl_rcp(1.f + q);
    return -(e.x * e.y) < 0.f ? -(q * near) : -near;
  }
};
