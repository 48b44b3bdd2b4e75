// What losses over logits share: the soft-cap, and class weights beside a row.
#pragma once
#include "args.cuh"
#include "dtype.cuh"
#include "lse.cuh"

// Beyond this a saved f32 lse is too coarse to make probabilities of (COARSE_LSE on the CPU).
#define WL_COARSE_LSE 64.f

// cap * tanh(u) with u = scale * x / cap, and d tanh / du. -inf stays: a masked class is masked.
struct Capped {
  float key, slope;
  WL_FN Capped(float x, float rate, float cap) {
    const float u = x * rate, a = wl_abs(u);
    const float q = wl_ex2(a * (-2.f * WL_LOG2E)), r = wl_rcp(1.f + q);
    const float far = (1.f - q) * r, s = a * a;
    float near = wl_fma(s, -1382.f / 155925.f, 62.f / 2835.f);
    near = wl_fma(s, near, -17.f / 315.f);
    near = wl_fma(s, near, 2.f / 15.f);
    near = wl_fma(s, near, -1.f / 3.f);
    near = wl_fma(a * s, near, a);
    const float t = a < 0.35f ? near : far;  // below, 1 - q would lose digits
    key = x == -wl_inf() ? x : cap * (u < 0.f ? -t : t);
    slope = 4.f * q * r * r;
  }
};

// Weights of a pack's columns; 0 where there are none.
template <class T, int LANES>
WL_FN void class_weights(const RowArgs& a, const Packs<T>& packs, wl_u32 p, float (&w)[LANES]) {
  const wl_i64 c = packs.column(p);
  if (!a.weight) {
    WL_UNROLL for (int e = 0; e < LANES; e++) w[e] = c + e >= 0 && c + e < a.classes ? 1.f : 0.f;
  } else if (a.weight_kind == KIND_F32) {
    load_columns((const f32*)a.weight, c, a.classes, 0.f, w);
  } else {
    load_columns((const T*)a.weight, c, a.classes, 0.f, w);
  }
}
