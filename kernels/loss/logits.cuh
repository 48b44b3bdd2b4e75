// What losses over logits share: the soft-cap, and class weights beside a row.
#pragma once
#include "core/args.cuh"
#include "core/lse.cuh"

// Beyond this a saved f32 lse is too coarse to make probabilities of (COARSE_LSE on the CPU), and
// below this a scale would make too much of it (SMALLEST_SCALE).
#define WL_COARSE_LSE 64.f
#define WL_SMALLEST_SCALE 1e-30f

// cap * tanh(u) with u = scale * x / cap, and d tanh / du. -inf stays: a masked class is masked.
//
// Up to WL_CAP_NEAR it is a polynomial, whose relative error is 3.3e-8; beyond, 1 - q of q = exp(-2|u|) has its
// digits. The former is made of `line`, scale * x, which has the digits that u may have lost to its range.
#define WL_CAP_NEAR 0.75f

struct CapNear {
  float key, tanh;
  WL_FN CapNear(float u, float line) {
    const float s = u * u;
    float bend = wl_fma(s, -0.004769489169120789f, 0.019664911553263664f);
    bend = wl_fma(s, bend, -0.0533902570605278f);
    bend = wl_fma(s, bend, 0.13326521217823029f);
    bend = s * wl_fma(s, bend, -0.3333306908607483f);
    key = wl_fma(line, bend, line), tanh = wl_fma(u, bend, u);
  }
  WL_FN float slope() const { return wl_fma(-tanh, tanh, 1.f); }
};

struct CapExact {
  float key, slope;
  WL_FN CapExact(float x, const LogitArgs& a) {
    const float v = x * a.cap_first, u = v * a.cap_rate, size = wl_abs(u);
    const float q = wl_ex2(size * (-2.f * WL_LOG2E)), r = wl_rcp(1.f + q);
    const float far = (1.f - q) * r * a.cap;
    const CapNear near(u, v * a.cap_line);
    const bool is_near = size <= WL_CAP_NEAR;
    const float capped = is_near ? near.key : u < 0.f ? -far : far;
    key = x == -wl_inf() ? x : capped;
    slope = is_near ? near.slope() : 4.f * q * r * r;
  }
};

// The special-function unit's tanh: a key to 2^-11 of it, a slope to 2^-10.
struct CapApproximate {
  float key, slope;
  WL_FN CapApproximate(float x, const LogitArgs& a) {
    const float t = wl_tanh_approx(x * a.cap_rate);
    key = x == -wl_inf() ? x : t * a.cap, slope = wl_fma(-t, t, 1.f);
  }
};

// As a vector's logits are capped, by `cap_logits`.
struct Capped {
  float key, slope;
  WL_FN Capped(float x, const LogitArgs& a) {
    if (a.cap_approximate) {
      const CapApproximate z(x, a);
      key = z.key, slope = z.slope;
    } else {
      const CapExact z(x, a);
      key = z.key, slope = z.slope;
    }
  }
};

template <bool SLOPES, int n>
WL_FN void cap_approximately(float (&x)[n], const LogitArgs& a, float (&slope)[n]) {
  WL_UNROLL for (int e = 0; e < n; e++) {
    const CapApproximate z(x[e], a);
    x[e] = z.key;
    if (SLOPES) slope[e] = a.scale * z.slope;
  }
}

// Logits to keys, all of a vector; SLOPES: and dz/dx. Where all of them are near, as most are, that is all there
// is to it, and the bits are those of CapExact.
template <bool SLOPES, int n>
WL_FN void cap_exactly(float (&x)[n], const LogitArgs& a, float (&slope)[n]) {
  float key[n], size[n];
  WL_UNROLL for (int e = 0; e < n; e++) {
    const float u = x[e] * a.cap_rate;
    const CapNear near(u, x[e] * a.cap_line);
    size[e] = wl_abs(u), key[e] = near.key;
    if (SLOPES) slope[e] = a.scale * near.slope();
  }
  if (!(max_of(size) <= a.cap_near)) {
    WL_UNROLL for (int e = 0; e < n; e++) {
      const CapExact z(x[e], a);
      key[e] = z.key;
      if (SLOPES) slope[e] = a.scale * z.slope;
    }
  }
  WL_UNROLL for (int e = 0; e < n; e++) x[e] = key[e];
}
template <bool SLOPES, int n>
WL_FN void cap_logits(float (&x)[n], const LogitArgs& a, float (&slope)[n]) {
  if (a.cap_approximate) {
    cap_approximately<SLOPES>(x, a, slope);
  } else {
    cap_exactly<SLOPES>(x, a, slope);
  }
}
template <int n>
WL_FN void cap_logits(float (&x)[n], const LogitArgs& a) {
  float none[n];
  cap_logits<false>(x, a, none);
}

// Weights of columns times `unit`; 0 where there are none.
template <int n, class Columns>
WL_FN void class_weights(const WeightArgs& a, const Columns& columns, float unit, float (&w)[n]) {
  if (!a.values) {
    WL_UNROLL for (int e = 0; e < n; e++) w[e] = columns.holds(e) ? unit : 0.f;
    return;
  }
  columns.load(a.values, a.kind, 0.f, w);
  WL_UNROLL for (int e = 0; e < n; e++) w[e] *= unit;
}
