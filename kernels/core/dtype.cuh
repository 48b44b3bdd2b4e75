// Element types: numbers of them, and 16-byte packs widened to f32.
#pragma once
#include "core/intrinsics.cuh"

typedef float f32;
typedef wl_f16 f16;
typedef wl_bf16 bf16;

// The kinds of a type that is looked up once a row (`kind` in src/code/args/kind.rs).
enum : wl_u32 { KIND_F32, KIND_F16, KIND_BF16, KIND_I64, KIND_I32, KIND_U32, KIND_U8 };

template <int n>
struct Count {
  static constexpr int value = n;
};

template <class T>
struct Dtype;

template <>
struct Dtype<f32> {
  static constexpr int LANES = 4;
  static constexpr wl_u32 MASKED = 0xff800000u;  // -inf
  static WL_FN float load(const f32* p) { return wl_ld(p); }
  static WL_FN void store(f32* p, float v) { wl_st(p, v); }
  static WL_FN wl_u32 bits(const f32* p) { return wl_bits(wl_ld(p)); }
  template <int at, int n>
  static WL_FN void widen(wl_u32x4 p, float (&v)[n]) {
    v[at] = wl_f32(p.x), v[at + 1] = wl_f32(p.y), v[at + 2] = wl_f32(p.z), v[at + 3] = wl_f32(p.w);
  }
  template <int at, int n>
  static WL_FN wl_u32x4 narrow(const float (&v)[n]) {
    return {wl_bits(v[at]), wl_bits(v[at + 1]), wl_bits(v[at + 2]), wl_bits(v[at + 3])};
  }
};

template <>
struct Dtype<f16> {
  static constexpr int LANES = 8;
  static constexpr wl_u32 MASKED = 0xfc00u;
  static WL_FN float load(const f16* p) { return wl_f16_to_f32(wl_ld(p)); }
  static WL_FN void store(f16* p, float v) { wl_st(p, wl_f32_to_f16(v)); }
  static WL_FN wl_u32 bits(const f16* p) { return wl_ld(p).bits; }
  template <int at, int n>
  static WL_FN void widen(wl_u32x4 p, float (&v)[n]) {
    const wl_u32 words[4] = {p.x, p.y, p.z, p.w};
    WL_UNROLL for (int i = 0; i < 4; i++) {
      const wl_f32x2 two = wl_unpack_f16x2(words[i]);
      v[at + 2 * i] = two.x, v[at + 2 * i + 1] = two.y;
    }
  }
  template <int at, int n>
  static WL_FN wl_u32x4 narrow(const float (&v)[n]) {
    return {wl_pack_f16x2(v[at], v[at + 1]), wl_pack_f16x2(v[at + 2], v[at + 3]),
            wl_pack_f16x2(v[at + 4], v[at + 5]), wl_pack_f16x2(v[at + 6], v[at + 7])};
  }
};

template <>
struct Dtype<bf16> {
  static constexpr int LANES = 8;
  static constexpr wl_u32 MASKED = 0xff80u;
  static WL_FN float load(const bf16* p) { return wl_bf16_to_f32(wl_ld(p)); }
  static WL_FN void store(bf16* p, float v) { wl_st(p, wl_f32_to_bf16(v)); }
  static WL_FN wl_u32 bits(const bf16* p) { return wl_ld(p).bits; }
  template <int at, int n>
  static WL_FN void widen(wl_u32x4 p, float (&v)[n]) {
    const wl_u32 words[4] = {p.x, p.y, p.z, p.w};
    WL_UNROLL for (int i = 0; i < 4; i++) {
      const wl_f32x2 two = wl_unpack_bf16x2(words[i]);
      v[at + 2 * i] = two.x, v[at + 2 * i + 1] = two.y;
    }
  }
  template <int at, int n>
  static WL_FN wl_u32x4 narrow(const float (&v)[n]) {
    return {wl_pack_bf16x2(v[at], v[at + 1]), wl_pack_bf16x2(v[at + 2], v[at + 3]),
            wl_pack_bf16x2(v[at + 4], v[at + 5]), wl_pack_bf16x2(v[at + 6], v[at + 7])};
  }
};

// One element as it was read.
WL_FN float widened(float v) { return v; }
WL_FN float widened(f16 v) { return wl_f16_to_f32(v); }
WL_FN float widened(bf16 v) { return wl_bf16_to_f32(v); }

// An element that stands for a column that there is not.
template <class T>
WL_FN T masked() {
  return {(wl_u16)Dtype<T>::MASKED};
}
template <>
WL_FN float masked() {
  return wl_f32(Dtype<f32>::MASKED);
}

// One float of a kind known at run time.
WL_FN float load_float(const void* p, wl_u32 kind, wl_i64 i) {
  switch (kind) {
    case KIND_F16: return Dtype<f16>::load((const f16*)p + i);
    case KIND_BF16: return Dtype<bf16>::load((const bf16*)p + i);
    default: return wl_ld((const float*)p + i);
  }
}

// Rounds to the kind's type.
WL_FN void store_float(void* p, wl_u32 kind, wl_i64 i, float v) {
  switch (kind) {
    case KIND_F16: return Dtype<f16>::store((f16*)p + i, v);
    case KIND_BF16: return Dtype<bf16>::store((bf16*)p + i, v);
    default: return wl_st((float*)p + i, v);
  }
}

// A float as the sum of so many bf16 numbers, each of 8 of its bits: the tensor cores multiply those, and
// their exponents are a float's. All have the float's sign and, unless that is 0, are not 0 themselves, so
// that products with an infinite number are that of the float; infinities and NaN are their first part.
template <int n>
struct Parts {
  float part[n];

  WL_FN explicit Parts(float v) {
    const bool finite = wl_abs(v) <= 3.402823466e38f;
    const float least = v == 0.f || !finite ? 0.f : v < 0.f ? -1.17549435e-38f : 1.17549435e-38f;
    float rest = v;
    WL_UNROLL for (int i = 0; i < n; i++) {
      // The last is rounded by who packs it.
      part[i] = i == n - 1 || !finite ? rest : wl_f32(wl_bits(rest) & 0xffff0000u);
      rest = finite ? rest - part[i] : 0.f;
      if (i > 0 && part[i] == 0.f) part[i] = least;
    }
  }
};

// One class index, widened.
WL_FN wl_i64 load_index(const void* p, wl_u32 kind, wl_i64 i) {
  switch (kind) {
    case KIND_I64: return wl_ld((const wl_i64*)p + i);
    case KIND_I32: return wl_ld((const wl_i32*)p + i);
    case KIND_U32: return wl_ld((const wl_u32*)p + i);
    default: return wl_ld((const wl_u8*)p + i);
  }
}
