// The schedules of elementwise losses. A loss is a functor over one element:
//
//   value(e)            v l(x, y)
//   grad_x(e, factor)   factor dl/dx, where the factor holds v
//   grad_y(e, factor)   factor dl/dy
//   POS_WEIGHT          whether it has a weight of positive targets
//
// Elements are those of the shape that all tensors broadcast to, row-major; dimensions come merged.
// Lines along the innermost dimension are read by packs, where the tensors' neighbours are
// neighbours there (line_pass); else an element a thread (strided_pass). A tensor that was
// broadcast gets its gradient from sum_back. Sums are f64 in an order that depends on nothing but
// the shapes and the card. Launches: src/cuda/elementwise.rs.
#pragma once
#include "args.cuh"
#include "dtype.cuh"

// Operands, in the order of ElementwiseArgs.
enum { OP_X, OP_Y, OP_WEIGHT, OP_POS_WEIGHT, OP_UPSTREAM, OP_VALUE, OP_GRAD_X, OP_GRAD_Y };

// What is known of one element.
struct Element {
  float x, y;
  float weight;      // v
  float pos_weight;  // of binary cross entropy
};

// Where an index's elements lie.
struct Offsets {
  wl_i64 x, y, weight, pos_weight, upstream, value, grad_x, grad_y;

  WL_FN void add(const ElementwiseArgs& a, wl_u32 d, wl_i64 n) {
    x += n * a.strides[OP_X][d], y += n * a.strides[OP_Y][d];
    weight += n * a.strides[OP_WEIGHT][d], pos_weight += n * a.strides[OP_POS_WEIGHT][d];
    upstream += n * a.strides[OP_UPSTREAM][d], value += n * a.strides[OP_VALUE][d];
    grad_x += n * a.strides[OP_GRAD_X][d], grad_y += n * a.strides[OP_GRAD_Y][d];
  }
  // Of a row-major index over the dimensions [begin, end).
  WL_FN void add_index(const ElementwiseArgs& a, wl_u64 index, wl_u32 begin, wl_u32 end) {
    WL_UNROLL_N(1) for (wl_u32 d = end; d > begin; d--) {
      wl_u64 i = index;
      if (d - 1 > begin) {
        const wl_u64 size = a.sizes[d - 1];
        index /= size, i -= index * size;
      }
      add(a, d - 1, i);
    }
  }
};

// What every gradient is multiplied by: the upstream gradient over the denominator.
WL_FN float scale_of(const ElementwiseArgs& a) {
  const double number = a.single ? (double)load_float(a.single, a.upstream_kind, 0) : a.number;
  const double denominator = a.weights ? wl_ld(a.weights) : a.denominator;
  if (denominator == 1.) return (float)number;
  return denominator == 0. ? wl_nan() : (float)(number / denominator);
}

// Sum over the block; thread 0 gets it. All threads call it.
WL_FN double block_sum(double sum, wl_shared<double> slots) {
  WL_UNROLL for (int lanes = 16; lanes > 0; lanes /= 2) sum += wl_shfl_xor(WL_FULL_MASK, sum, lanes);
  if (wl_lane() == 0) slots[wl_warp()] = sum;
  wl_syncthreads();  // the warps' sums are there
  if (wl_thread() == 0) {
    for (wl_u32 w = 1; w < wl_warps(); w++) sum += slots[w];
  }
  return sum;
}

// ---- lines: a warp has a tile of a line, by packs ---------------------------------------------
// Input or target along a line: its packs, aligned or not, or one element for all columns.
template <class T>
struct Along {
  Packs<T> packs;
  bool once, aligned;

  WL_FN Along(const T* line, wl_i64 step, const Packs<T>& lead) : packs(lead), once(step == 0) {
    packs.row = line;
    aligned = !once && (wl_u64)packs.at(0) % 16 == 0;
  }
  WL_FN wl_u32x4 pack(wl_u32 p) const {
    if (aligned && packs.full(p)) return wl_ld128_stream(packs.at(p));
    if (!once) return packs.edge(p);
    const wl_u32 bits = Dtype<T>::bits(packs.row), word = sizeof(T) == 4 ? bits : bits | bits << 16;
    return {word, word, word, word};
  }
};

// Weights, or an upstream gradient, of a pack's columns; `v` stays where there is no tensor.
template <class T, int n>
WL_FN void floats_along(const void* p, wl_u32 kind, wl_i64 offset, wl_i64 step, wl_i64 column, wl_i64 len,
                        float (&v)[n]) {
  if (!p) return;
  if (step == 0) {
    const float one = load_float(p, kind, offset);
    WL_UNROLL for (int i = 0; i < n; i++) v[i] = one;
  } else if (sizeof(T) == 4 || kind == KIND_F32) {
    load_columns((const float*)p + offset, column, len, 0.f, v);
  } else {
    load_columns((const T*)p + offset, column, len, 0.f, v);
  }
}

// GRADIENT: gradients are written, and values where the arguments have a place for them; else values
// alone.
template <class L, class T, bool GRADIENT>
struct LinePass {
  static constexpr int LANES = Dtype<T>::LANES;
  const ElementwiseArgs& a;
  const L loss;
  const bool valued;
  const float scale;
  double sum = 0.;

  WL_FN LinePass(const ElementwiseArgs& a)
      : a(a), loss(a), valued(!GRADIENT || a.partials || a.value), scale(GRADIENT ? scale_of(a) : 0.f) {}

  // Pack p of a line, from what was read of it; thereafter its results are written.
  WL_FN void pack(const Offsets& at, const Packs<T>& packs, wl_u32 p, wl_u32x4 x_pack, wl_u32x4 y_pack) {
    const wl_u32 d = a.dims - 1;
    const bool edge = !packs.full(p);
    const wl_i64 column = packs.column(p);
    float x[LANES], y[LANES], v[LANES], r[LANES], out[LANES];
    Dtype<T>::template widen<0>(x_pack, x);
    Dtype<T>::template widen<0>(y_pack, y);
    WL_UNROLL for (int i = 0; i < LANES; i++) v[i] = r[i] = 1.f;
    floats_along<T>(a.weight, a.weight_kind, at.weight, a.strides[OP_WEIGHT][d], column, packs.len, v);
    if constexpr (L::POS_WEIGHT) {
      floats_along<T>(a.pos_weight, a.pos_weight_kind, at.pos_weight, a.strides[OP_POS_WEIGHT][d], column,
                      packs.len, r);
    }
    if (valued) {
      WL_UNROLL for (int i = 0; i < LANES; i++) out[i] = loss.value({x[i], y[i], v[i], r[i]});
      if (a.value) Sink<T, float>(a.value + at.value, packs).put(column, packs.len, edge, out);
      if (edge) {
        WL_UNROLL for (int i = 0; i < LANES; i++) {
          if (column + i < 0 || column + i >= packs.len) out[i] = 0.f;
        }
      }
      float part = 0.f;
      WL_UNROLL for (int i = 0; i < LANES; i++) part += out[i];
      sum += part;
    }
    if constexpr (GRADIENT) {
      float factor[LANES];
      WL_UNROLL for (int i = 0; i < LANES; i++) factor[i] = 1.f;
      floats_along<T>(a.upstream, a.upstream_kind, at.upstream, a.strides[OP_UPSTREAM][d], column, packs.len, factor);
      WL_UNROLL for (int i = 0; i < LANES; i++) factor[i] = factor[i] * scale * v[i];
      if (a.grad_x) {
        WL_UNROLL for (int i = 0; i < LANES; i++) out[i] = loss.grad_x({x[i], y[i], v[i], r[i]}, factor[i]);
        Sink<T, T>((T*)a.grad_x + at.grad_x, packs).put(column, packs.len, edge, out);
      }
      if (a.grad_y) {
        WL_UNROLL for (int i = 0; i < LANES; i++) out[i] = loss.grad_y({x[i], y[i], v[i], r[i]}, factor[i]);
        Sink<T, T>((T*)a.grad_y + at.grad_y, packs).put(column, packs.len, edge, out);
      }
    }
  }

  // A warp's tile of a line: a lane's packs one after another, the next on its way meanwhile.
  WL_FN void tile(wl_i64 unit) {
    const wl_i64 line = unit / a.tiles;
    Offsets at = {};
    at.add_index(a, line, 0, a.dims - 1);
    const wl_u32 d = a.dims - 1;
    const T* x = (const T*)a.x + at.x;
    const T* y = (const T*)a.y + at.y;
    const Packs<T> packs(a.lead == OP_X ? x : y, a.sizes[d]);
    const Along<T> xs(x, a.strides[OP_X][d], packs), ys(y, a.strides[OP_Y][d], packs);
    const wl_u32 from = (wl_u32)((unit - line * a.tiles) * a.part), end = from + (wl_u32)a.part;
    const wl_u32 to = end < packs.count ? end : packs.count;
    wl_u32x4 x_next = {}, y_next = {};
    bool here = false;  // Whether pack p was read: it was not in the first turn.
    WL_UNROLL_N(1) for (wl_u32 p = from + wl_lane() - 32;; p += 32) {
      const wl_u32x4 x_pack = x_next, y_pack = y_next;
      const bool more = p + 32 < to;
      if (more) x_next = xs.pack(p + 32), y_next = ys.pack(p + 32);
      if (here) pack(at, packs, p, x_pack, y_pack);
      if (!more) break;
      here = true;
    }
  }
};

template <class L, class T, bool GRADIENT>
WL_FN void line_pass(const ElementwiseArgs& a) {
  WL_SMEM(double, slots, 32);
  LinePass<L, T, GRADIENT> pass(a);
  const wl_i64 step = (wl_i64)wl_blocks() * wl_warps();
  for (wl_i64 unit = (wl_i64)wl_block() * wl_warps() + wl_warp(); unit < a.units; unit += step) pass.tile(unit);
  if (!a.partials) return;
  const double sum = block_sum(pass.sum, slots);
  if (wl_thread() == 0) wl_st(a.partials + wl_block(), sum);
}

// ---- strided: an element a thread, wherever it lies -------------------------------------------
template <class T>
WL_FN Element element_at(const ElementwiseArgs& a, const Offsets& at) {
  return {Dtype<T>::load((const T*)a.x + at.x), Dtype<T>::load((const T*)a.y + at.y),
          a.weight ? load_float(a.weight, a.weight_kind, at.weight) : 1.f,
          a.pos_weight ? load_float(a.pos_weight, a.pos_weight_kind, at.pos_weight) : 1.f};
}

WL_FN float factor_at(const ElementwiseArgs& a, const Offsets& at, const Element& e, float scale) {
  const float g = a.upstream ? scale * load_float(a.upstream, a.upstream_kind, at.upstream) : scale;
  return g * e.weight;
}

template <class L, class T>
WL_FN void strided_pass(const ElementwiseArgs& a) {
  WL_SMEM(double, slots, 32);
  const L loss(a);
  const float scale = a.grad_x || a.grad_y ? scale_of(a) : 0.f;
  double sum = 0.;
  const wl_i64 step = (wl_i64)wl_blocks() * wl_threads();
  for (wl_i64 i = (wl_i64)wl_block() * wl_threads() + wl_thread(); i < a.count; i += step) {
    Offsets at = {};
    at.add_index(a, i, 0, a.dims);
    const Element e = element_at<T>(a, at);
    if (a.partials || a.value) {
      const float value = loss.value(e);
      sum += value;
      if (a.value) wl_st(a.value + at.value, value);
    }
    const float factor = factor_at(a, at, e, scale);
    if (a.grad_x) Dtype<T>::store((T*)a.grad_x + at.grad_x, loss.grad_x(e, factor));
    if (a.grad_y) Dtype<T>::store((T*)a.grad_y + at.grad_y, loss.grad_y(e, factor));
  }
  if (!a.partials) return;
  sum = block_sum(sum, slots);
  if (wl_thread() == 0) wl_st(a.partials + wl_block(), sum);
}

// ---- the gradient of a tensor that was broadcast ----------------------------------------------
// Each of its elements is the sum of `terms` gradients. The terms are cut into parts; a thread, or
// the lanes of a warp, has one part of one output. Neighbouring lanes read neighbours: outputs
// where the innermost dimension is kept (lanes = 1), terms where it is summed (lanes = 32).
template <class L, class T>
WL_FN void sum_back(const ElementwiseArgs& a) {
  const L loss(a);
  const float scale = scale_of(a);
  const wl_u64 job = ((wl_u64)wl_block() * wl_threads() + wl_thread()) / a.lanes;
  const wl_u32 lane = wl_thread() % a.lanes;
  const bool exists = job < (wl_u64)a.outputs * a.parts;
  const wl_u64 part = exists ? job / a.outputs : 0, output = exists ? job - part * a.outputs : 0;
  Offsets base = {};
  base.add_index(a, output, 0, a.kept);
  const wl_i64 begin = part * a.part, end = !exists ? 0 : begin + a.part < a.terms ? begin + a.part : a.terms;
  const wl_u32 d = a.dims - 1;
  const wl_i64 inner = a.sizes[d];
  double sum = 0.;
  for (wl_i64 t = begin + lane; t < end;) {
    // A line of terms.
    const wl_i64 line = t / inner, rest = (line + 1) * inner, stop = rest < end ? rest : end;
    Offsets at = base;
    at.add_index(a, line, a.kept, d);
    at.add(a, d, t - line * inner);
    for (; t < stop; t += a.lanes) {
      const Element e = element_at<T>(a, at);
      const float factor = factor_at(a, at, e, scale);
      sum += a.side ? loss.grad_y(e, factor) : loss.grad_x(e, factor);
      at.add(a, d, a.lanes);
    }
  }
  if (a.lanes == 32) {
    WL_UNROLL for (int lanes = 16; lanes > 0; lanes /= 2) sum += wl_shfl_xor(WL_FULL_MASK, sum, lanes);
  }
  if (!exists || lane != 0) return;
  if (a.parts > 1) {
    wl_st(a.partials + job, sum);
  } else if (a.side) {
    Dtype<T>::store((T*)a.grad_y + base.grad_y, (float)sum);
  } else {
    Dtype<T>::store((T*)a.grad_x + base.grad_x, (float)sum);
  }
}
