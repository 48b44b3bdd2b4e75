// Huber and smooth L1: with d = x - y and c = min(|d|, threshold), c (|d| - c / 2), gradient d
// clamped to +-threshold, both over a divisor. Launches: src/cuda/loss/elementwise.rs.
#pragma once
#include "schedule/elementwise.cuh"

struct Huber {
  static constexpr Third THIRD = THIRD_NONE;
  const float threshold;
  float up, inverse;  // divided by: 1 / divisor alone may be out of range

  WL_FN Huber(const ElementwiseArgs& a) : threshold(a.options[0]) {
    // A power of two near 1 / divisor, of the exponents that both have. No quotient is beyond 1
    // where the divisor is not 1: it is the threshold then.
    const wl_i32 exponent = (wl_i32)(wl_bits(a.options[1]) >> 23);
    const wl_i32 opposite = 254 - exponent;
    up = wl_f32((wl_u32)(opposite < 1 ? 1 : opposite > 253 ? 253 : opposite) << 23);
    inverse = 1.f / (a.options[1] * up);
  }
  // The slope; NaN goes through.
  WL_FN float shared(float x, float y, bool) const {
    const float d = x - y;
    return (d > threshold ? threshold : d < -threshold ? -threshold : d) * up * inverse;
  }
  WL_FN float value(const Element& e) const {
    const float size = wl_abs(e.x - e.y);
    const float beyond = wl_fma(wl_min(threshold, size), -0.5f, size);
    return e.weight * (wl_abs(e.shared.one) * beyond);
  }
  WL_FN float grad_x(const Element& e, float factor) const { return e.shared.one * factor; }
  WL_FN float grad_y(const Element& e, float factor) const { return -e.shared.one * factor; }
};
