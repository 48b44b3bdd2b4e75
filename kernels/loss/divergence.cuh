// Slopes of the divergences of two log-probabilities x = ln Q and y = ln P (src/cpu/loss/js_div.rs and
// src/cpu/loss/js_div_logits/terms.rs). NARROW: the tensors have 16 bits.
#pragma once
#include "core/logarithm.cuh"

// Where e^t - 1 is taken from its series: beyond, e^t has the digits. (NARROW: 2^-22 of e^t.)
template <bool NARROW>
WL_FN float exp_m1_near() {
  return NARROW ? 0.5f : 0.25f;
}

// e^t - 1 - t for t that is near: of 16 bits minimax, to 8e-7.
template <bool NARROW>
WL_FN float exp_m1_beyond_linear(float t) {
  float p;
  if (NARROW) {
    p = wl_fma(1.39146531e-3f, t, 8.39541107e-3f);
    p = wl_fma(p, t, 4.16674763e-2f);
    p = wl_fma(p, t, 0.166662797f);
  } else {
    p = wl_fma(1.f / 720.f, t, 1.f / 120.f);
    p = wl_fma(p, t, 1.f / 24.f);
    p = wl_fma(p, t, 1.f / 6.f);
  }
  p = wl_fma(p, t, 0.5f);
  return p * t * t;
}

// e^t - 1 for t <= 88.
template <bool NARROW>
WL_FN float exp_m1_of(float t) {
  const float e = exp_of(t, NARROW) - 1.f;
  return wl_abs(t) < exp_m1_near<NARROW>() ? t + exp_m1_beyond_linear<NARROW>(t) : e;
}

// ln(1 + f) for -1 <= f: as `ln_plus`, but that f itself is left of 1 + f where it is near 1. Of 16 bits
// near 0 minimax, to 1.6e-7 of the logarithm.
template <bool NARROW>
WL_FN float ln_1p_of(float f) {
  if (NARROW) {
    float p = wl_fma(0.159245193f, f, -0.180963039f);
    p = wl_fma(p, f, 0.19928667f);
    p = wl_fma(p, f, -0.249560386f);
    p = wl_fma(p, f, 0.333342493f);
    p = wl_fma(p, f, -0.500003159f);
    return wl_abs(f) < 0.25f ? wl_fma(p * f, f, f) : wl_lg2(1.f + f) * 0.69314718f;
  }
  const wl_u32 above = wl_bits(1.f + f) - 0x3f3504f3u;
  const float n = (float)((wl_i32)above >> 23);
  // NaN stays NaN, which the bits alone would forget.
  const float m = wl_fma(f, 0.f, wl_f32((above & 0x007fffffu) + 0x3f3504f3u));
  const float r = n == 0.f ? f : m - 1.f;
  return wl_fma(n, WL_LN2_HIGH, r + wl_fma(n, WL_LN2_LOW, beyond_linear(r)));
}

struct Slopes {
  float at_x, at_y;
};

// Jensen-Shannon, 0 < beta < 1, which the slopes add up to. With z the tensor that has the lesser share
// c of the mixture M, w the other one and v = z - w, w - ln M is -ln(1 + c (e^v - 1)), and z - ln M is
// that and v: both keep their digits where P is near Q, and where c is next to nothing.
struct Mixture {
  float beta;
  bool of_input;  // z is x
  float lesser;   // c
  float alone;    // from here on of v, ln M is z + ln c to the last digit

  WL_FN explicit Mixture(float beta) : beta(beta), of_input(beta > 0.5f), lesser(wl_min(beta, 1.f - beta)) {
    alone = wl_min(17.5f - wl_lg2(lesser) * 0.69314718f, 88.f);
  }

  // u is x - y, q and p are e^x and e^y. What has no probability adds 0 whatever its distance. NARROW is
  // enough for what is added up over a row's probabilities.
  template <bool NARROW>
  WL_FN Slopes slopes(float q, float p, float u) const {
    const float v = of_input ? u : -u;
    const bool beyond = v > alone;
    const float t = beyond ? alone : v;
    const float ln = ln_1p_of<NARROW>(lesser * exp_m1_of<NARROW>(t));
    const float at_z = t - ln, at_w = beyond ? at_z - v : -ln;
    return {q == 0.f ? 0.f : (1.f - beta) * q * (of_input ? at_z : at_w),
            p == 0.f ? 0.f : beta * p * (of_input ? at_w : at_z)};
  }
};

// KL(P || Q) of rows of probabilities whose logarithms have the difference u = ln Q - ln P; y is ln P. As
// both add up to 1, the loss may be made of P (e^u - 1 - u), which is never negative, and the slopes of
// Q - P and -P u: sums of what is small where P is near Q, and no differences of what is large.
struct KlTerms {
  float loss, at_q, at_p;
};
template <bool NARROW>
WL_FN KlTerms kl_terms(float q, float p, float y, float u) {
  // Infinite where only the model excludes a class; 0 where the teacher does.
  float product = wl_abs(u) == wl_inf() ? u : p * u;
  product = y == -wl_inf() ? 0.f : product;
  const float difference = q - p, beyond = p * exp_m1_beyond_linear<NARROW>(u);
  const bool near = wl_abs(u) < exp_m1_near<NARROW>();
  return {near ? beyond : difference - product, near ? product + beyond : difference, -product};
}
