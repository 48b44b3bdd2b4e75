// Mean squared error: d^2, gradient 2d, with d = x - y.
// Launches: src/cuda/loss/elementwise.rs.
#pragma once
#include "schedule/elementwise.cuh"

struct Mse {
  static constexpr Third THIRD = THIRD_NONE;
  WL_FN Mse(const ElementwiseArgs&) {}
  WL_FN float shared(float, float, bool) const { return 0.f; }
  WL_FN float value(const Element& e) const {
    const float d = e.x - e.y;
    return e.weight * (d * d);
  }
  // Doubled last: the factor may be half of what f32 holds.
  WL_FN float grad_x(const Element& e, float factor) const { return twice((e.x - e.y) * factor); }
  WL_FN float grad_y(const Element& e, float factor) const { return twice((e.y - e.x) * factor); }

 private:
  static WL_FN float twice(float half) { return half + half; }
};
