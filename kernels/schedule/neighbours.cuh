// Rows whose elements lie apart, and whose neighbours lie side by side, as the pixels of an image do ([N, C, d1,
// ...] along C): a lane has a row, so that a warp has an element of 32 rows by one access. What it brings is read
// where it lies and written there, once each; where there is a gradient the block keeps its rows in shared
// memory meanwhile. A row's classes are shared out among `slice` threads of different warps, by turns of
// WL_TURN: few where rows are short, more where a row is long or rows are few.
//
// Classes, and elements between those of a row, are counted in 32 bits: for rows of up to some hundred classes
// (src/code/plan/neighbours.rs, SideBySide in src/cuda/schedule/lines.rs).
#pragma once
#include "core/reduce.cuh"
#include "schedule/functor.cuh"

#define WL_TURN 8           // elements of a row that are on their way together
#define WL_TOGETHER 4       // and that a functor is given together
#define WL_MOST_THREADS 256  // of a block

// Where a row begins in tensors of this shape.
struct NeighbourPlace {
  wl_i64 group, within;
  // Row `first + more` of rows of which so many lie side by side.
  WL_FN NeighbourPlace(wl_i64 first, wl_u32 more, wl_i64 side_by_side) {
    group = (wl_i64)((wl_u64)first / (wl_u64)side_by_side);
    within = first - group * side_by_side + more;
    while (within >= side_by_side) within -= side_by_side, group++;
  }
  // Elements before it, where groups of rows have this distance.
  WL_FN wl_i64 offset(wl_i64 stride) const { return group * stride + within; }
};

// Columns first, first + 1, ... of a row, as schedule/columns.cuh asks for them.
template <class T, int n>
struct NeighbourColumns {
  typedef T In;
  static constexpr int N = n;
  const NeighbourPlace& place;
  const int first, len;
  const wl_u32 step;  // of the rows beside

  WL_FN bool whole() const { return first + n <= len; }
  WL_FN wl_i64 column(int e) const { return first + e; }
  WL_FN bool holds(int e) const { return first + e < len; }
  WL_FN bool has(wl_i64 c) const { return (wl_u32)lane(c) < n; }
  WL_FN bool before(wl_i64 c) const { return first + n <= (int)c; }
  WL_FN int lane(wl_i64 c) const { return (int)c - first; }
  WL_FN void set(wl_i64 c, float (&x)[n], float v) const {
    WL_UNROLL for (int e = 0; e < n; e++) x[e] = e == lane(c) ? v : x[e];
  }
  // Of another row that lies in one piece.
  WL_FN void load(const void* other, wl_u32 kind, float fill, float (&v)[n]) const {
    if (kind == KIND_F32) {
      load_columns((const f32*)other, first, len, fill, v);
    } else {
      load_columns((const T*)other, first, len, fill, v);
    }
  }
  WL_FN void put(const OutRows& others, wl_i64, const float (&v)[n]) const {
    T* const row = (T*)others.first + place.offset(others.stride);
    WL_UNROLL for (int e = 0; e < n; e++) {
      if (holds(e)) Dtype<T>::store(row + (wl_u64)(first + e) * step, v[e]);
    }
  }
};

// A tensor's elements of a row, so many of them at a time.
template <class E>
struct NeighbourElements {
  const E* at;  // the next
  wl_i64 step;

  WL_FN void skip(wl_u32 columns) { at += (wl_i64)columns * step; }
  // Those that there are of `left`; the others are `fill`.
  WL_FN void load(int left, E fill, E (&to)[WL_TURN]) const {
    const E* from = at;
    if (left >= WL_TURN) {
      WL_UNROLL for (int e = 0; e < WL_TURN; e++, from += step) to[e] = wl_ld(from);
    } else {
      WL_UNROLL for (int e = 0; e < WL_TURN; e++, from += step) {
        to[e] = fill;
        if (e < left) to[e] = wl_ld(from);
      }
    }
  }
};
template <>
struct NeighbourElements<void> {
  WL_FN void skip(wl_u32) {}
  WL_FN void load(int, float, float (&)[WL_TURN]) const {}
};
template <class A>
struct NeighbourElement {
  typedef A Type;
};
template <>
struct NeighbourElement<void> {
  typedef float Type;
};

// An element in shared memory, and what lies beside it.
template <bool beside, class T, class B>
WL_FN void keep(wl_shared<T> x, wl_shared<B> y, wl_u32 at, T v, B b) {
  x[at] = v;
  if constexpr (beside) y[at] = b;
}
template <bool beside, class T, class B>
WL_FN void recall(wl_shared<T> x, wl_shared<B> y, wl_u32 at, T& v, B& b) {
  v = x[at];
  if constexpr (beside) b = y[at];
}

// Elements from `at` on as floats.
template <int n, class E>
WL_FN void widen_some(const E (&from)[n], int at, float (&to)[WL_TOGETHER]) {
  WL_UNROLL for (int e = 0; e < WL_TOGETHER; e++) to[e] = widened(from[at + e]);
}

// The states of the threads that share a row, merged in their order; all of them get it. Every thread of the
// block calls it.
template <class S>
WL_FN S reduce_shares(S s, float k, wl_shared<float> slots, wl_u32 shares, wl_u32 own, wl_u32 rows) {
  if (shares == 1) return s;
  const Words<S> words = wl_bit_cast<Words<S>>(s);
  WL_UNROLL for (int i = 0; i < S::WORDS; i++) slots[i * WL_MOST_THREADS + wl_thread()] = words.w[i];
  wl_syncthreads();  // the threads' states are there, and the targets were read
  WL_UNROLL_N(1) for (wl_u32 share = 0; share < shares; share++) {
    Words<S> other;
    WL_UNROLL for (int i = 0; i < S::WORDS; i++) other.w[i] = slots[i * WL_MOST_THREADS + share * rows + own];
    if (share == 0) s = wl_bit_cast<S>(other);
    else s.merge(wl_bit_cast<S>(other), k);
  }
  return s;
}

template <class Op, bool gradient>
WL_FN void neighbours_row(const typename Op::Args& a) {
  typedef typename Op::In T;
  typedef typename BesideOf<Op>::Type A;
  typedef typename NeighbourElement<A>::Type B;
  constexpr bool BESIDE = OpBeside<Op>::PACKS > 0;
  WL_SMEM(float, slots, WL_MOST_THREADS * Op::State::WORDS);
  // Powers of two.
  const wl_u32 shares = a.schedule.slice, rows = wl_threads() >> (wl_ffs(shares) - 1);
  const wl_u32 share = wl_thread() >> (wl_ffs(rows) - 1), own = wl_thread() & (rows - 1);
  const wl_i64 first = (wl_i64)wl_block() * rows, index = first + own;
  const bool exists = index < a.rows.count;
  const NeighbourPlace place(first, exists ? own : 0, a.rows.side_by_side);
  const int classes = (int)a.rows.classes;
  const T* const x_row = (const T*)a.rows.x + place.offset(a.rows.x_stride);
  const Op op(a);
  typename Op::Row row;
  row.kept = false;
  Beginning<Op> beginning = {};
  if (exists) row = beginning.row(op, index, [&](wl_i64 target) { return x_row + target * a.rows.x_step; });
  // A row's elements in shared memory, column by column of all of the block's rows, and what lies beside them
  // behind all of those.
  const int kept = gradient ? classes * (int)rows : 0;
  WL_DYNAMIC_SMEM(T, kept_x, 0, kept);
  WL_DYNAMIC_SMEM(B, kept_y, BESIDE ? kept * sizeof(T) : 0, BESIDE ? kept : 0);
  const auto columns_from = [&](int c) {
    return NeighbourColumns<T, WL_TOGETHER>{place, c, classes, (wl_u32)a.rows.beside_step};
  };

  typename Op::State state = Op::State::empty();
  if (row.kept) {
    NeighbourElements<T> x = {x_row, a.rows.x_step};
    NeighbourElements<A> y = {};
    if constexpr (BESIDE) {
      const MatrixRows beside = op.beside();
      y = {(const A*)beside.first + place.offset(beside.stride), a.rows.beside_step};
    }
    T v[WL_TURN] = {}, next[WL_TURN] = {};
    B b[WL_TURN] = {}, next_b[WL_TURN] = {};
    int c = WL_TURN * share;
    const auto bring = [&](wl_u32 skipped, int left) {
      x.skip(skipped), y.skip(skipped);
      x.load(left, masked<T>(), next), y.load(left, B{}, next_b);
    };
    bring(c, classes - c);
    WL_UNROLL_N(1) for (; c < classes; c += WL_TURN * shares) {
      WL_UNROLL for (int e = 0; e < WL_TURN; e++) v[e] = next[e], b[e] = next_b[e];
      const int left = classes - c;
      bring(WL_TURN * shares, left - WL_TURN * (int)shares);  // they are on their way meanwhile
      if constexpr (gradient) {
        wl_u32 at = (wl_u32)c * rows + own;
        if (left >= WL_TURN) {
          WL_UNROLL for (int e = 0; e < WL_TURN; e++, at += rows) keep<BESIDE>(kept_x, kept_y, at, v[e], b[e]);
        } else {
          WL_UNROLL for (int e = 0; e < WL_TURN; e++, at += rows) {
            if (e < left) keep<BESIDE>(kept_x, kept_y, at, v[e], b[e]);
          }
        }
      }
      WL_UNROLL for (int at = 0; at < WL_TURN; at += WL_TOGETHER) {
        if (at >= left) continue;
        float lx[WL_TOGETHER];
        widen_some(v, at, lx);
        if constexpr (BESIDE) {
          float ly[WL_TOGETHER];
          widen_some(b, at, ly);
          op.push(state, row, lx, ly, columns_from(c + at));
        } else {
          op.push(state, row, lx, columns_from(c + at));
        }
      }
    }
  }
  beginning.arrive(op, row);
  state = reduce_shares(state, op.k, slots, shares, own, rows);
  if (row.kept) op.finish(state, row);
  RowLosses<Op> losses(a);
  if (exists && share == 0) op.write(row);
  losses.all_written(a, first, rows);

  if constexpr (gradient) {
    if (exists) {
      typedef typename Op::Out U;
      const wl_i64 step = a.rows.y_step;
      int c = WL_TOGETHER * share;
      U* to = (U*)a.rows.y + place.offset(a.rows.y_stride) + c * step;
      float of_target = 0.f;
      if constexpr (Op::TARGET) {
        if (row.kept) of_target = op.target_gradient(row);
      }
      WL_UNROLL_N(1) for (; c < classes; c += WL_TOGETHER * shares, to += (wl_i64)(WL_TOGETHER * shares) * step) {
        const auto columns = columns_from(c);
        const int left = classes - c;
        float out[WL_TOGETHER] = {};
        if (row.kept) {
          T v[WL_TOGETHER];
          B b[WL_TOGETHER] = {};
          wl_u32 at = (wl_u32)c * rows + own;
          if (left >= WL_TOGETHER) {
            WL_UNROLL for (int e = 0; e < WL_TOGETHER; e++, at += rows) recall<BESIDE>(kept_x, kept_y, at, v[e], b[e]);
          } else {
            WL_UNROLL for (int e = 0; e < WL_TOGETHER; e++, at += rows) {
              v[e] = masked<T>();
              if (e < left) recall<BESIDE>(kept_x, kept_y, at, v[e], b[e]);
            }
          }
          float lx[WL_TOGETHER];
          widen_some(v, 0, lx);
          if constexpr (BESIDE) {
            float ly[WL_TOGETHER];
            widen_some(b, 0, ly);
            op.gradient(row, lx, ly, columns, out);
          } else {
            op.gradient(row, lx, columns, out);
          }
          if constexpr (Op::TARGET) columns.set(row.target, out, of_target);
        }
        U* each = to;
        if (left >= WL_TOGETHER) {
          WL_UNROLL for (int e = 0; e < WL_TOGETHER; e++, each += step) Dtype<U>::store(each, out[e]);
        } else {
          WL_UNROLL for (int e = 0; e < WL_TOGETHER; e++, each += step) {
            if (e < left) Dtype<U>::store(each, out[e]);
          }
        }
      }
    }
  }
  losses.close();
}
