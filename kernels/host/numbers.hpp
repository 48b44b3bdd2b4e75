// Numbers, and where a thread stands, as kernels name them: on the host.
#pragma once
#include "host/abi.hpp"

#include <cmath>
#include <cstring>

// ---- Values ----------------------------------------------------------------------------------
struct alignas(16) wl_u32x4 {
  wl_u32 x, y, z, w;
};
struct alignas(8) wl_f32x2 {
  float x, y;
};
struct wl_f16 {
  wl_u16 bits;
};
struct wl_bf16 {
  wl_u16 bits;
};
template <class To, class From>
WL_FN To wl_bit_cast(From v) {
  static_assert(sizeof(To) == sizeof(From), "wl_bit_cast: sizes differ");
  To r;
  memcpy(&r, &v, sizeof(To));
  return r;
}
WL_FN float wl_f32(wl_u32 bits) { return wl_bit_cast<float>(bits); }
WL_FN wl_u32 wl_bits(float v) { return wl_bit_cast<wl_u32>(v); }
WL_FN float wl_inf() { return __builtin_inff(); }
WL_FN float wl_nan() { return wl_f32(0x7fffffffu); }
WL_FN bool wl_isnan(float v) { return v != v; }

// ---- Where a thread stands -------------------------------------------------------------------
WL_FN wl_u32 wl_thread() { return wl_emu_self->thread; }
WL_FN wl_u32 wl_threads() { return wl_emu_self->threads; }
WL_FN wl_u32 wl_lane() { return wl_thread() & 31u; }
WL_FN wl_u32 wl_warp() { return wl_thread() >> 5; }
WL_FN wl_u32 wl_warps() { return (wl_threads() + 31u) >> 5; }
WL_FN wl_u32 wl_block() { return wl_emu_self->block; }
WL_FN wl_u32 wl_blocks() { return wl_emu_self->blocks; }
WL_FN wl_u32 wl_block_y() { return wl_emu_self->block_y; }
WL_FN wl_u32 wl_blocks_y() { return wl_emu_self->blocks_y; }

// ---- Arithmetic ------------------------------------------------------------------------------
// A subnormal becomes a zero of its sign, as .ftz does.
WL_FN float wl_emu_ftz(float v) { return (wl_bits(v) & 0x7f800000u) ? v : wl_f32(wl_bits(v) & 0x80000000u); }
WL_FN float wl_ex2(float x) { return wl_emu_ftz(exp2f(wl_emu_ftz(x))); }
WL_FN float wl_lg2(float x) { return wl_emu_ftz(log2f(wl_emu_ftz(x))); }
WL_FN float wl_rcp(float x) { return wl_emu_ftz(1.0f / wl_emu_ftz(x)); }
WL_FN float wl_exp(float x) { return expf(x); }
WL_FN float wl_log(float x) { return logf(x); }
WL_FN float wl_log1p(float x) { return log1pf(x); }
WL_FN double wl_log(double x) { return log(x); }
WL_FN double wl_log1p(double x) { return log1p(x); }
WL_FN double wl_expm1(double x) { return expm1(x); }
// Of 11 bits: off by up to 2^-12, where a card may be off by 2^-11.
WL_FN float wl_tanh_approx(float x) { return x == x ? wl_f32((wl_bits(tanhf(x)) + 0x800u) & 0xfffff000u) : x; }
WL_FN float wl_sqrt(float x) { return sqrtf(x); }
WL_FN float wl_fma(float a, float b, float c) { return fmaf(a, b, c); }
WL_FN float wl_max(float a, float b) { return a != a || a < b ? b : a; }
WL_FN float wl_min(float a, float b) { return a != a || b < a ? b : a; }
WL_FN float wl_abs(float a) { return wl_f32(wl_bits(a) & 0x7fffffffu); }
WL_FN float wl_mul_rn(float a, float b) { return a * b; }  // -ffp-contract=off
WL_FN float wl_add_rn(float a, float b) { return a + b; }
WL_FN wl_u32 wl_popc(wl_u32 v) { return (wl_u32)__builtin_popcount(v); }
WL_FN wl_u32 wl_clz(wl_u32 v) { return v ? (wl_u32)__builtin_clz(v) : 32u; }
WL_FN wl_u32 wl_ffs(wl_u32 v) { return (wl_u32)__builtin_ffs((int)v); }

// ---- f16 and bf16 ----------------------------------------------------------------------------
WL_FN float wl_f16_to_f32(wl_f16 v) {
  wl_u32 sign = (wl_u32)(v.bits & 0x8000u) << 16, magnitude = v.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) {  // infinity, or NaN, whose payload stays and which becomes quiet
    wl_u32 quiet = magnitude > 0x7c00u ? 0x00400000u : 0u;
    return wl_f32(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13 | quiet);
  }
  // Shifted into place the exponent is 112 too small; the product is exact, subnormals included.
  return wl_f32(sign | wl_bits(wl_f32(magnitude << 13) * 0x1p112f));
}
WL_FN wl_f16 wl_f32_to_f16(float v) {
  wl_u32 bits = wl_bits(v), magnitude = bits & 0x7fffffffu;
  wl_u16 sign = (wl_u16)((bits >> 16) & 0x8000u);
  if (magnitude > 0x7f800000u) return wl_f16{0x7fff};  // the GPU's one NaN
  if (magnitude >= 0x477ff000u) return wl_f16{(wl_u16)(sign | 0x7c00u)};
  if (magnitude < 0x38800000u) {
    // Subnormal: one ulp of 0.5 is 2^-24, so the sum rounds where f16 does.
    wl_u32 sum = wl_bits(wl_f32(magnitude) + 0.5f);
    return wl_f16{(wl_u16)(sign | (sum - 0x3f000000u))};
  }
  wl_u32 rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
  return wl_f16{(wl_u16)(sign | (rounded >> 13))};
}
WL_FN float wl_bf16_to_f32(wl_bf16 v) { return wl_f32((wl_u32)v.bits << 16); }
WL_FN wl_bf16 wl_f32_to_bf16(float v) {
  wl_u32 bits = wl_bits(v);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return wl_bf16{0x7fff};
  return wl_bf16{(wl_u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
WL_FN wl_u32 wl_pack_f16x2(float lo, float hi) {
  return (wl_u32)wl_f32_to_f16(hi).bits << 16 | wl_f32_to_f16(lo).bits;
}
WL_FN wl_f32x2 wl_unpack_f16x2(wl_u32 v) {
  return wl_f32x2{wl_f16_to_f32(wl_f16{(wl_u16)v}), wl_f16_to_f32(wl_f16{(wl_u16)(v >> 16)})};
}
WL_FN wl_u32 wl_pack_bf16x2(float lo, float hi) {
  return (wl_u32)wl_f32_to_bf16(hi).bits << 16 | wl_f32_to_bf16(lo).bits;
}
WL_FN wl_f32x2 wl_unpack_bf16x2(wl_u32 v) { return wl_f32x2{wl_f32(v << 16), wl_f32(v & 0xffff0000u)}; }
