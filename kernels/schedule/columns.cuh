// Which columns of its row a vector of elements is of. Whoever feeds a functor knows, and answers the
// functor's questions by few comparisons a vector. A feeder's columns have
//
//   In                element type of the row in memory
//   N                 elements of the vector; those that are no column are masked (-inf)
//   whole()           all of them are columns
//   column(e)         the column of element e
//   holds(e)          whether that is one of the row
//   has(c)            whether column c is among them
//   lane(c)           which element, if so
//   before(c)         not so, and all of them are left of it
//   set(c, x, v)      x of column c, if it is among them, is v
//   load(row, kind, fill, v)    what another row, of f32 (KIND_F32) or else of In, has there
//   put(rows, i, v)   the same written to row i of others of In
#pragma once
#include "core/packs.cuh"

// A matrix's rows, of a type that whoever goes through them knows.
struct MatrixRows {
  const void* first;
  wl_i64 stride;  // elements between rows
  template <class A>
  WL_FN const A* row(wl_i64 index) const {
    return (const A*)first + index * stride;
  }
};
struct OutRows {
  void* first;
  wl_i64 stride;
  template <class A>
  WL_FN A* row(wl_i64 index) const {
    return (A*)first + index * stride;
  }
};

// Of a row's packs p, p + step, ...; several together are all full.
template <class T, int packs>
struct PackColumns {
  typedef T In;
  static constexpr int LANES = Dtype<T>::LANES, N = packs * LANES;
  const Packs<T>& row;
  const wl_u32 p, step;

  WL_FN PackColumns(const Packs<T>& row, wl_u32 p, wl_u32 step) : row(row), p(p), step(step) {}

  WL_FN bool whole() const { return packs > 1 || row.full(p); }
  WL_FN wl_i64 column(int e) const { return row.column(p + e / LANES * step) + e % LANES; }
  WL_FN bool holds(int e) const { return (wl_u64)column(e) < (wl_u64)row.len; }

  WL_FN int lane(wl_i64 c) const { return (int)row.lane_of(c); }
  WL_FN bool has(wl_i64 c) const {
    static_assert(packs == 1, "of one pack");
    return p == row.pack_of(c);
  }
  WL_FN bool before(wl_i64 c) const {
    static_assert(packs == 1, "of one pack");
    return p < row.pack_of(c);
  }
  // One comparison a pack, not one an element.
  WL_FN void set(wl_i64 c, float (&x)[N], float v) const {
    const wl_u32 of = row.pack_of(c);
    WL_UNROLL for (int i = 0; i < packs; i++) {
      if (p + i * step != of) continue;
      const int at = i * LANES + (int)row.lane_of(c);
      WL_UNROLL for (int e = 0; e < N; e++) x[e] = e == at ? v : x[e];
    }
  }

  WL_FN void load(const void* other, wl_u32 kind, float fill, float (&v)[N]) const {
    static_assert(packs == 1, "of one pack");
    if (kind == KIND_F32) {
      load_columns((const f32*)other, row.column(p), row.len, fill, v);
    } else {
      load_columns((const T*)other, row.column(p), row.len, fill, v);
    }
  }
  WL_FN void put(const OutRows& others, wl_i64 index, const float (&v)[N]) const {
    static_assert(packs == 1, "of one pack");
    if (p < row.count) Sink<T, T>(others.row<T>(index), row).put(row.column(p), row.len, !row.full(p), v);
  }
};
