// What losses over logits share: the soft-cap, and class weights beside a row.
#pragma once
#include "core/args.cuh"
#include "core/lse.cuh"

// Beyond this a saved f32 lse is too coarse to make probabilities of (COARSE_LSE on the CPU), and
// below this a scale would make too much of it (SMALLEST_SCALE).
#define WL_COARSE_LSE 64.f
#define WL_SMALLEST_SCALE 1e-30f

// cap * tanh(u) with u = scale * x / cap, and d tanh / du. -inf stays: a masked class is masked.
// Near 0 it is made of scale * x, which has the digits that u may have lost to its range.
struct Capped {
  float key, slope;
  WL_FN Capped(float x, const LogitArgs& a) {
    const float v = x * a.cap_first, u = v * a.cap_rate, line = v * a.cap_line, size = wl_abs(u);
    const float q = wl_ex2(size * (-2.f * WL_LOG2E)), r = wl_rcp(1.f + q);
    const float far = (1.f - q) * r * a.cap, s = size * size;
    float near = wl_fma(s, -1382.f / 155925.f, 62.f / 2835.f);
    near = wl_fma(s, near, -17.f / 315.f);
    near = wl_fma(s, near, 2.f / 15.f);
    near = wl_fma(s, near, -1.f / 3.f);
    near = wl_fma(line * s, near, line);
    const float capped = size < 0.35f ? near : u < 0.f ? -far : far;  // below, 1 - q would lose digits
    key = x == -wl_inf() ? x : capped;
    slope = 4.f * q * r * r;
  }
};

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
