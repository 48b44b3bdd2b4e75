// Mean squared error: d^2, gradient 2d, with d = x - y.
// Launches: src/cuda/elementwise.rs.
#pragma once
#include "elementwise.cuh"

struct Mse {
  static constexpr bool POS_WEIGHT = false;
  WL_FN Mse(const ElementwiseArgs&) {}
  WL_FN float shared(float, float, bool) const { return 0.f; }
  WL_FN float value(const Element& e) const {
    const float d = e.x - e.y;
    return e.weight * (d * d);
  }
  WL_FN float grad_x(const Element& e, float factor) const { return (e.x - e.y) * (factor + factor); }
  WL_FN float grad_y(const Element& e, float factor) const { return (e.y - e.x) * (factor + factor); }
};
