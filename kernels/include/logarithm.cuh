// Logarithms by polynomial: no table, no slow path, and the sum that a difference of logarithms
// needs. The same method and coefficients as src/cpu/simd/logarithm.rs.
#pragma once
#include "intrinsics.cuh"

// ln(1 + f) - f for sqrt(1/2) - 1 <= f <= sqrt(2) - 1.
WL_FN float beyond_linear(float f) {
  float p = wl_fma(-0.07634497f, f, 0.12761576f);
  p = wl_fma(p, f, -0.13160183f);
  p = wl_fma(p, f, 0.14201757f);
  p = wl_fma(p, f, -0.16623357f);
  p = wl_fma(p, f, 0.20001227f);
  p = wl_fma(p, f, -0.2500082f);
  p = wl_fma(p, f, 0.3333333f);
  return f * f * wl_fma(p, f, -0.5f);
}

// ln 2 in two parts: an integer of up to 8 bits times the first is exact.
#define WL_LN2_HIGH 0.693359375f
#define WL_LN2_LOW -2.1219444e-4f

// ln x + c: -inf + c for 0, +inf + c for +inf, NaN below 0 and for NaN. n ln 2 meets c before ln m
// comes to it, so that c near -ln x costs no digits.
WL_FN float ln_plus(float x, float c) {
  const bool subnormal = x < 1.17549435e-38f;
  const wl_u32 bits = wl_bits(subnormal ? x * 33554432.f : x);
  // sqrt(1/2) <= m < sqrt(2): counted from there, the exponent is n.
  const wl_u32 above = bits - 0x3f3504f3u;
  const float n = (float)((wl_i32)above >> 23) - (subnormal ? 25.f : 0.f);
  const float f = wl_f32((above & 0x007fffffu) + 0x3f3504f3u) - 1.f;
  const float ln = wl_fma(n, WL_LN2_HIGH, c) + (f + wl_fma(n, WL_LN2_LOW, beyond_linear(f)));
  if (x > 0.f) return x == wl_inf() ? c + wl_inf() : ln;
  return x == 0.f ? c - wl_inf() : wl_nan();
}

// ln(1 + e) for 0 <= e <= 1, NaN for NaN.
WL_FN float ln_1p_of_unit(float e) {
  // Above sqrt(2) - 1, 1 + e is halved: (1 + e) / 2 - 1 = (e - 1) / 2.
  const bool halved = e > 0.41421356f;
  const float f = halved ? (e - 1.f) * 0.5f : e;
  const float small = beyond_linear(f);
  return halved ? WL_LN2_HIGH + (f + (WL_LN2_LOW + small)) : f + small;
}
