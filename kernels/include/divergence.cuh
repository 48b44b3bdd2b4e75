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

// ln(1 + f) for -1 <= f <= 0: as `ln_plus`, but that f itself is left of 1 + f where it is near 1.
WL_FN float ln_1p_of(float f, bool narrow) {
  if (narrow) return wl_lg2(1.f + f) * 0.69314718f;
  // Nothing is above 1 but NaN, which is left as it is.
  const wl_u32 above = (wl_bits(1.f + f) & 0x7fffffffu) - 0x3f3504f3u;
  const float n = (float)((wl_i32)above >> 23);
  const float r = n >= 0.f ? f : wl_f32((above & 0x007fffffu) + 0x3f3504f3u) - 1.f;
  return wl_fma(n, WL_LN2_HIGH, r + wl_fma(n, WL_LN2_LOW, beyond_linear(r)));
}

struct Slopes {
  float at_x, at_y;
};

// Jensen-Shannon, 0 < beta < 1: with u = x - y and t = -|u| the larger of x - ln M and y - ln M is
// -ln(1 + c (e^t - 1)), c the share of the smaller one, and the other one less by |u|.
struct Mixture {
  float q, p;  // e^x and e^y
  Slopes slopes;

  WL_FN Mixture(float beta, float x, float y, float u, bool narrow) : q(exp_of(x, narrow)), p(exp_of(y, narrow)) {
    const bool above = u > 0.f;
    const float size = wl_abs(u), own = 1.f - beta;
    const float larger = -ln_1p_of((above ? beta : own) * exp_m1_of(-size, narrow), narrow), smaller = larger - size;
    // What has no probability adds 0 whatever its distance.
    slopes.at_x = q == 0.f ? 0.f : own * q * (above ? larger : smaller);
    slopes.at_y = p == 0.f ? 0.f : beta * p * (above ? smaller : larger);
  }
};

// KL(P || Q): -P, and P (distance + 1), distance = y - x, infinite where only Q excludes a class.
WL_FN Slopes kl_slopes(float y, float distance, float p) {
  const float product = wl_abs(distance) == wl_inf() ? distance : p * (distance + 1.f);
  return {-p, y == -wl_inf() ? 0.f : product};
}
