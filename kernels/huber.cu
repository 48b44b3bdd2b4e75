// Huber and smooth L1: with d = x - y and c = min(|d|, threshold), c (|d| - c / 2), gradient d
// clamped to +-threshold, both over a divisor. Launches: src/cuda/elementwise.rs.
#pragma once
#include "elementwise.cuh"

struct Huber {
  static constexpr bool POS_WEIGHT = false;
  const float threshold;
  const float divisor;  // divided by: 1 / divisor may be out of range

  WL_FN Huber(const ElementwiseArgs& a) : threshold(a.threshold), divisor(a.divisor) {}
  WL_FN float value(const Element& e) const {
    const float d = e.x - e.y, size = wl_abs(d);
    const float beyond = wl_fma(wl_min(threshold, size), -0.5f, size);
    return e.weight * (wl_abs(slope(d)) * beyond);
  }
  WL_FN float grad_x(const Element& e, float factor) const { return slope(e.x - e.y) * factor; }
  WL_FN float grad_y(const Element& e, float factor) const { return slope(e.y - e.x) * factor; }

 private:
  // NaN goes through.
  WL_FN float slope(float d) const {
    return (d > threshold ? threshold : d < -threshold ? -threshold : d) / divisor;
  }
};
