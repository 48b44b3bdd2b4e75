// Logarithms by polynomial: no table, no slow path, and the sum that a difference of logarithms
// needs; and exponentials. ln as in src/cpu/simd/logarithm.rs.
#pragma once
#include "core/intrinsics.cuh"

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

// The same of a number and a c of 16 bits: the special-function unit's logarithm is good to 2^-22.
WL_FN float ln_plus(float x, float c, bool narrow) {
  if (!narrow) return ln_plus(x, c);
  const bool subnormal = x < 1.17549435e-38f;
  const float log2 = wl_lg2(subnormal ? x * 33554432.f : x);
  return wl_fma(subnormal ? log2 - 25.f : log2, 0.69314718f, c);
}

// e^x, +inf where f32 has nothing else; of an x of 16 bits to 2^-17, else to 2^-22. The product's rounding
// is what is left over of x after all.
WL_FN float exp_of(float x, bool narrow) {
  const float t = x * 1.44269504f;
  const float e = wl_ex2(t);
  if (narrow) return e;
  const float left = wl_fma(t, -1.90465421e-9f, wl_fma(t, -0.693147182f, x));
  // An infinite t leaves NaN, which min drops, or infinity; an infinite e times that could be NaN.
  return wl_fma(wl_min(e, 3.402823466e38f), wl_max(wl_min(left, 1.f), -1.f), e);
}

// ln(1 + e) for 0 <= e <= 1, NaN for NaN: e + e^2 P(e), minimax in the relative error: 3.3e-8, which is
// 1.4e-7 with its roundings, or 1.4e-6 where `narrow`. No case apart, unlike the CPU's: half the
// operations.
WL_FN float ln_1p_of_unit(float e, bool narrow) {
  float p;
  if (narrow) {
    p = wl_fma(1.45882095e-2f, e, -6.78508774e-2f);
    p = wl_fma(p, e, 0.15102733f);
    p = wl_fma(p, e, -0.236113249f);
    p = wl_fma(p, e, 0.331404223f);
    p = wl_fma(p, e, -0.499907466f);
  } else {
    p = wl_fma(5.36473887e-3f, e, -3.00654508e-2f);
    p = wl_fma(p, e, 7.92039782e-2f);
    p = wl_fma(p, e, -0.137537554f);
    p = wl_fma(p, e, 0.191536337f);
    p = wl_fma(p, e, -0.248571575f);
    p = wl_fma(p, e, 0.33321321f);
    p = wl_fma(p, e, -0.499996483f);
  }
  return wl_fma(p * e, e, e);
}
