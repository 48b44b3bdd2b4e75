// Rows as 16-byte packs, widened to f32.
//
// A row may begin at any element: it is seen as the aligned packs that it touches, so that all but
// the first and the last are one 128-bit access, whatever the row's stride and length.
#pragma once
#include "core/dtype.cuh"

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

  WL_FN Packs(const T* row, wl_i64 len) : Packs(row, len, (wl_u32)((wl_u64)row / sizeof(T)) % LANES) {}
  // Column 0 at a place in its pack that is given, wherever it lies in memory.
  WL_FN Packs(const T* row, wl_i64 len, wl_u32 skip) : row(row), len(len), skip(skip) {
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
