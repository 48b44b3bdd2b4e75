// The columns that a lane has of one row in fragments of a product: what schedule/columns.cuh asks of a
// feeder's columns. Fragments of 8 columns lie side by side, and a lane has `near` neighbours of each.
#pragma once
#include "core/dtype.cuh"

template <int n, int near>
struct FragmentColumns {
  static constexpr int N = n;
  wl_i64 first;
  int left;  // columns of the row from the first on, if they are fewer than there are elements

  WL_FN FragmentColumns(wl_i64 first, wl_i64 len) : first(first), left(len - first < SPAN ? (int)(len - first) : SPAN) {}

  static constexpr int offset(int e) { return 8 * (e / near) + e % near; }
  static constexpr int SPAN = 8 * ((n - 1) / near) + (n - 1) % near + 1;

  WL_FN bool whole() const { return left == SPAN; }
  WL_FN wl_i64 column(int e) const { return first + offset(e); }
  WL_FN bool holds(int e) const { return offset(e) < left; }
  // Other lanes may have it.
  WL_FN bool has(wl_i64 c) const { return (wl_u64)(c - first) < SPAN; }
  WL_FN bool before(wl_i64 c) const { return first < c; }
  WL_FN int lane(wl_i64 c) const {
    const int at = (int)(c - first);
    return at % 8 < near ? near * (at / 8) + at % 8 : -1;
  }
  WL_FN void set(wl_i64 c, float (&x)[n], float v) const {
    if (!has(c)) return;
    const int at = (int)(c - first);
    WL_UNROLL for (int e = 0; e < n; e++) x[e] = offset(e) == at ? v : x[e];
  }
  WL_FN void load(const void* other, wl_u32 kind, float fill, float (&v)[n]) const {
    WL_UNROLL for (int e = 0; e < n; e++) v[e] = holds(e) ? load_float(other, kind, column(e)) : fill;
  }
};
