// Slopes of the divergences of two log-probabilities x = ln Q and y = ln P; they add up to the value
// (src/cpu/js_div.rs).
#pragma once
#include "logarithm.cuh"

// e^t - 1 for t <= 0: near 0 by its series, as e^t would lose the digits of t.
WL_FN float exp_m1_of(float t, bool narrow) {
  const float e = exp_of(t, narrow) - 1.f;
  if (narrow) return e;
  float p = wl_fma(1.f / 720.f, t, 1.f / 120.f);
  p = wl_fma(p, t, 1.f / 24.f);
  p = wl_fma(p, t, 1.f / 6.f);
  p = wl_fma(p, t, 0.5f);
  return t > -0.25f ? wl_fma(p * t, t, t) : e;
}

// ln(1 + f) for -1 <= f <= 0.
WL_FN float ln_1p_of(float f, bool narrow) {
  if (narrow) return wl_lg2(1.f + f) * 0.69314718f;
  return f > -0.25f ? f + beyond_linear(f) : ln_plus(1.f + f, 0.f);
}

struct Slopes {
  float at_x, at_y;
};

// Jensen-Shannon, 0 < beta < 1: with u = x - y and t = -|u| the larger of x - ln M and y - ln M is
// -ln(1 + c (e^t - 1)), c the share of the smaller one, and the other one less by |u|.
struct Mixture {
  float beta;
  // The larger distance from ln M.
  WL_FN float larger(float u, bool narrow) const {
    const float share = u > 0.f ? beta : 1.f - beta;
    return -ln_1p_of(share * exp_m1_of(-wl_abs(u), narrow), narrow);
  }
  // What has no probability adds 0 whatever its distance.
  WL_FN float at_x(float u, float q, float larger) const {
    return q == 0.f ? 0.f : (1.f - beta) * q * (u > 0.f ? larger : larger - wl_abs(u));
  }
  WL_FN float at_y(float u, float p, float larger) const {
    return p == 0.f ? 0.f : beta * p * (u > 0.f ? larger - wl_abs(u) : larger);
  }
};

// KL(P || Q): -P, and P (distance + 1), distance = y - x, infinite where only Q excludes a class.
WL_FN Slopes kl_slopes(float y, float distance, float p) {
  const float product = wl_abs(distance) == wl_inf() ? distance : p * (distance + 1.f);
  return {-p, y == -wl_inf() ? 0.f : product};
}
