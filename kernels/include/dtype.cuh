// Element types as 16-byte packs widened to f32, and rows as packs.
//
// A row may begin at any element: it is seen as the aligned packs that it touches, so that all but
// the first and the last are one 128-bit access, whatever the row's stride and length.
#pragma once
#include "intrinsics.cuh"

typedef float f32;
typedef wl_f16 f16;
typedef wl_bf16 bf16;

// The kinds of a type that is looked up once a row (`Kind` in src/cuda/args.rs).
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

// A row that is read: column 0 sits `skip` elements into pack 0.
template <class T>
struct Packs {
  static constexpr int LANES = Dtype<T>::LANES;
  const T* row;
  wl_i64 len;
  wl_u32 skip;
  wl_u32 count;        // packs that hold a column
  wl_u32 first, last;  // packs [first, last) are full
  bool head, tail;     // whether pack 0, and another pack at the end, is not

  WL_FN Packs(const T* row, wl_i64 len) : row(row), len(len) {
    skip = (wl_u32)((wl_u64)row / sizeof(T)) % LANES;
    const wl_u64 end = skip + (wl_u64)len;
    count = (wl_u32)((end + LANES - 1) / LANES);
    first = skip ? 1 : 0;
    last = (wl_u32)(end / LANES);
    last = last < first ? first : last;
    head = skip != 0;
    tail = end % LANES != 0 && !(head && count == 1);
  }
  // Column of a pack's lane 0; negative in a first pack that is not full.
  WL_FN wl_i64 column(wl_u32 p) const { return (wl_i64)p * LANES - skip; }
  WL_FN const T* at(wl_u32 p) const { return row + column(p); }
  WL_FN bool full(wl_u32 p) const { return p >= first && p < last; }
  WL_FN wl_u32 pack_of(wl_i64 column) const { return (wl_u32)((wl_u64)(column + skip) / LANES); }
  WL_FN wl_u32 lane_of(wl_i64 column) const { return (wl_u32)((wl_u64)(column + skip) % LANES); }

  // A pack that is not full: its other lanes are masked.
  WL_FN wl_u32x4 edge(wl_u32 p) const {
    constexpr int PER_WORD = 4 / (int)sizeof(T);
    wl_u32 words[4];
    WL_UNROLL for (int w = 0; w < 4; w++) {
      words[w] = 0;
      WL_UNROLL for (int i = 0; i < PER_WORD; i++) {
        const wl_i64 c = column(p) + w * PER_WORD + i;
        const wl_u32 bits = c >= 0 && c < len ? Dtype<T>::bits(row + c) : Dtype<T>::MASKED;
        words[w] |= bits << (16 * i);
      }
    }
    return {words[0], words[1], words[2], words[3]};
  }
};

// Another row that is read column by column beside a row of `Packs<T>`: what lies beside one pack of
// that row, as packs of its own type. A is void where there is none.
template <class T, class A>
struct Beside {
  static constexpr int STEP = Dtype<A>::LANES;
  static constexpr int PACKS = Dtype<T>::LANES / STEP;
  static_assert(PACKS * STEP == Dtype<T>::LANES, "the row beside has elements of the same size, or larger");
  const A* row;
  wl_i64 len;
  bool aligned;  // what lies beside a full pack begins at a 16-byte boundary

  WL_FN Beside(const A* row, const Packs<T>& packs)
      : row(row), len(packs.len), aligned((wl_u64)(row + packs.column(0)) % 16 == 0) {}

  // Whether the whole of it can be had in 128-bit accesses.
  WL_FN bool wide(const Packs<T>& packs, wl_u32 p) const { return aligned && packs.full(p); }
  WL_FN const A* at(const Packs<T>& packs, wl_u32 p) const { return row + packs.column(p); }

  // Columns that there are not are 0.
  WL_FN void load(const Packs<T>& packs, wl_u32 p, wl_u32x4* to) const {
    const wl_i64 column = packs.column(p);
    if (wide(packs, p)) {
      WL_UNROLL for (int i = 0; i < PACKS; i++) to[i] = wl_ld128_stream(row + column + i * STEP);
    } else {
      WL_UNROLL for (int i = 0; i < PACKS; i++) to[i] = gather(column + i * STEP);
    }
  }

 private:
  WL_FN wl_u32x4 gather(wl_i64 column) const {
    constexpr int PER_WORD = 4 / (int)sizeof(A);
    wl_u32 words[4];
    WL_UNROLL for (int w = 0; w < 4; w++) {
      words[w] = 0;
      WL_UNROLL for (int i = 0; i < PER_WORD; i++) {
        const wl_i64 c = column + w * PER_WORD + i;
        words[w] |= (c >= 0 && c < len ? Dtype<A>::bits(row + c) : 0u) << (16 * i);
      }
    }
    return {words[0], words[1], words[2], words[3]};
  }
};
template <class T>
struct Beside<T, void> {
  static constexpr int PACKS = 0;
  WL_FN Beside(const void*, const Packs<T>&) {}
  WL_FN bool wide(const Packs<T>&, wl_u32) const { return false; }
  WL_FN const void* at(const Packs<T>&, wl_u32) const { return nullptr; }
  WL_FN void load(const Packs<T>&, wl_u32, wl_u32x4*) const {}
};

// What lies beside one pack, as floats.
template <class A, int at, int n>
WL_FN void widen_beside(const wl_u32x4* from, float (&v)[n]) {
  if constexpr (at < n) {
    Dtype<A>::template widen<at>(from[at / Dtype<A>::LANES], v);
    widen_beside<A, at + Dtype<A>::LANES>(from, v);
  }
}

// A row that is written, column by column beside a row of `Packs<T>`.
template <class T, class U>
struct Sink {
  static constexpr int LANES = Dtype<T>::LANES;
  U* row;
  bool aligned;  // a full pack of the row read begins at a 16-byte boundary of the row written

  WL_FN Sink(U* row, const Packs<T>& packs)
      : row(row), aligned((wl_u64)(row + packs.column(0)) % 16 == 0) {}

  // All of the columns are in the row.
  WL_FN void full(wl_i64 column, const float (&v)[LANES]) const {
    if (Dtype<U>::LANES <= LANES && aligned) {
      store_packs<0>(row + column, v);
    } else {
      WL_UNROLL for (int i = 0; i < LANES; i++) Dtype<U>::store(row + column + i, v[i]);
    }
  }
  // `edge`: perhaps not all of them.
  WL_FN void put(wl_i64 column, wl_i64 len, bool edge, const float (&v)[LANES]) const {
    if (Dtype<U>::LANES <= LANES && aligned && !edge) {
      store_packs<0>(row + column, v);
    } else {
      WL_UNROLL for (int i = 0; i < LANES; i++) {
        if (column + i >= 0 && column + i < len) Dtype<U>::store(row + column + i, v[i]);
      }
    }
  }

 private:
  template <int at>
  static WL_FN void store_packs(U* p, const float (&v)[LANES]) {
    if constexpr (at + Dtype<U>::LANES <= LANES) {
      wl_st128_stream(p + at, Dtype<U>::template narrow<at>(v));
      store_packs<at + Dtype<U>::LANES>(p, v);
    }
  }
};

template <class A, int at, int n>
WL_FN void load_packs(const A* p, float (&v)[n]) {
  if constexpr (at + Dtype<A>::LANES <= n) {
    Dtype<A>::template widen<at>(wl_ld128(p + at), v);
    load_packs<A, at + Dtype<A>::LANES>(p, v);
  }
}

// As many columns as there are floats, from p on.
template <class A, int n>
WL_FN void full_columns(const A* p, float (&v)[n]) {
  if (Dtype<A>::LANES <= n && (wl_u64)p % 16 == 0) {
    load_packs<A, 0>(p, v);
  } else {
    WL_UNROLL for (int i = 0; i < n; i++) v[i] = Dtype<A>::load(p + i);
  }
}

// Columns from `column` on of another row of `len` columns; `fill` where there are none.
template <class A, int n>
WL_FN void load_columns(const A* row, wl_i64 column, wl_i64 len, float fill, float (&v)[n]) {
  if (Dtype<A>::LANES <= n && column >= 0 && column + n <= len && (wl_u64)(row + column) % 16 == 0) {
    load_packs<A, 0>(row + column, v);
  } else {
    WL_UNROLL for (int i = 0; i < n; i++) {
      const wl_i64 c = column + i;
      v[i] = c >= 0 && c < len ? Dtype<A>::load(row + c) : fill;
    }
  }
}
