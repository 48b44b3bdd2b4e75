// Absolute error: |d|, gradient sign(d), with d = x - y.
// Launches: src/cuda/loss/elementwise.rs.
#pragma once
#include "schedule/elementwise.cuh"

struct L1 {
  static constexpr Third THIRD = THIRD_NONE;
  WL_FN L1(const ElementwiseArgs&) {}
  WL_FN float shared(float, float, bool) const { return 0.f; }
  WL_FN float value(const Element& e) const { return e.weight * wl_abs(e.x - e.y); }
  WL_FN float grad_x(const Element& e, float factor) const { return by_order(e.x, e.y, factor); }
  WL_FN float grad_y(const Element& e, float factor) const { return by_order(e.y, e.x, factor); }

 private:
  // 0 where a = b, and where either is NaN.
  static WL_FN float by_order(float a, float b, float factor) {
    return a > b ? factor : a < b ? -factor : factor * 0.f;
  }
};
