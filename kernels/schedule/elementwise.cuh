// The schedules of elementwise losses. A loss is a functor over one element:
//
//   value(e)            v l(x, y)
//   grad_x(e, factor)   factor dl/dx, where the factor holds v
//   grad_y(e, factor)   factor dl/dy
//   shared(x, y, bool)  what all three need: e.shared. The flag: x and y have 16 bits, so that what
//                       is good to 2^-16 will do
//   grad_third(e, factor)  factor dl/dr, where there is such a slope
//   THIRD               what it does with r, a third number an element
//
// Elements are those of the shape that all tensors broadcast to, row-major; dimensions come merged.
// Lines along the innermost dimension are read by packs, where the tensors' neighbours are
// neighbours there (line_pass); else an element a thread (strided_pass). A tensor that was
// broadcast gets its gradient from sum_back. Sums are f64 in an order that depends on nothing but
// the shapes and the card. Launches: src/cuda/loss/elementwise.rs.
//
// A launch may have a part of the elements alone, as they come from the host. Its threads take up
// the sums of those that would have their elements in a launch for all, and leave them for the next
// part: so the parts give the bits of the whole.
#pragma once
#include "core/args.cuh"
#include "core/block_sum.cuh"
#include "core/packs.cuh"

// Operands, in the order of ElementwiseArgs.
enum { OP_X, OP_Y, OP_WEIGHT, OP_THIRD, OP_UPSTREAM, OP_VALUE, OP_GRAD_X, OP_GRAD_Y, OP_GRAD_THIRD };

// A third number an element (1 without a tensor): none; read; read, with a slope.
enum Third { THIRD_NONE, THIRD_READ, THIRD_SLOPED };

// What a functor computes of x and y for all three: a number, or two.
struct Shared {
  float one, two;
  WL_FN Shared(float one, float two = 0.f) : one(one), two(two) {}
};

// coefficient * value, where a coefficient of 0 silences what is infinite (and no NaN).
WL_FN float silent_product(float coefficient, float value) {
  return coefficient == 0.f && wl_abs(value) == wl_inf() ? 0.f : coefficient * value;
}

// What is known of one element.
struct Element {
  float x, y;
  float weight;      // v
  float third;       // r: a weight of positive targets, a variance
  Shared shared;     // by the functor's own functions
  bool narrow;       // x and y have 16 bits
};

// Where an index's elements lie.
struct Offsets {
  wl_i64 x, y, weight, third, upstream, value, grad_x, grad_y, grad_third;

  WL_FN void add(const ElementwiseArgs& a, wl_u32 d, wl_i64 n) {
    x += n * a.strides[OP_X][d], y += n * a.strides[OP_Y][d];
    weight += n * a.strides[OP_WEIGHT][d], third += n * a.strides[OP_THIRD][d];
    upstream += n * a.strides[OP_UPSTREAM][d], value += n * a.strides[OP_VALUE][d];
    grad_x += n * a.strides[OP_GRAD_X][d], grad_y += n * a.strides[OP_GRAD_Y][d];
    grad_third += n * a.strides[OP_GRAD_THIRD][d];
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

// What weights are multiplied by where the mean divides by them, which it is not in: a power of two
// that leaves none beyond 1, so that losses keep to f32 where the weights do not.
WL_FN float weight_scale(const ElementwiseArgs& a) { return a.weights ? (float)wl_ld(a.weights + 1) : 1.f; }

// What every gradient is multiplied by: the upstream gradient over the denominator.
WL_FN float scale_of(const ElementwiseArgs& a) {
  const double number = a.single ? (double)load_float(a.single, a.upstream_kind, 0) : a.number;
  const double denominator = a.weights ? wl_ld(a.weights) : a.denominator;
  if (denominator == 1.) return (float)number;
  return denominator == 0. ? wl_nan() : (float)(number / denominator);
}

WL_FN wl_i64 thread_of_all() { return (wl_i64)wl_block() * wl_threads() + wl_thread(); }

// Where the sum waits that goes on in this thread: that of the thread which would have its first
// unit, or element, in a launch for all of them.
WL_FN wl_i64 place_of_sum(const ElementwiseArgs& a) {
  const wl_i64 threads = (wl_i64)wl_blocks() * wl_threads(), place = thread_of_all() + a.turn;
  return place < threads ? place : place - threads;
}

// The sum over the parts before this one.
WL_FN double sum_before(const ElementwiseArgs& a) { return a.before ? wl_ld(a.before + place_of_sum(a)) : 0.; }

// The block's sum of all parts; or each thread's, for the part that comes after this one.
WL_FN void leave_sum(const ElementwiseArgs& a, double sum) {
  WL_SMEM(double, slots, 32);
  if (!a.partials) return;
  if (a.after) return wl_st(a.after + place_of_sum(a), sum);
  sum = block_sum(sum, slots);
  if (wl_thread() == 0) wl_st(a.partials + wl_block(), sum);
}

// ---- strided: an element a thread, wherever it lies -------------------------------------------
template <class L, class T>
WL_FN Element element_at(const L& loss, const ElementwiseArgs& a, const Offsets& at, float weights) {
  const float x = Dtype<T>::load((const T*)a.x + at.x), y = Dtype<T>::load((const T*)a.y + at.y);
  return {x,
          y,
          a.weight ? load_float(a.weight, a.weight_kind, at.weight) * weights : 1.f,
          a.third ? load_float(a.third, a.third_kind, at.third) : 1.f,
          loss.shared(x, y, sizeof(T) == 2),
          sizeof(T) == 2};
}

WL_FN float factor_at(const ElementwiseArgs& a, const Offsets& at, const Element& e, float scale) {
  const float g = a.upstream ? scale * load_float(a.upstream, a.upstream_kind, at.upstream) : scale;
  return g * e.weight;
}

// Whatever the arguments name of one element; returns its value, or 0 where nobody wants it.
template <class L, class T>
WL_FN float one_element(const L& loss, const ElementwiseArgs& a, const Offsets& at, float scale, float weights) {
  const Element e = element_at<L, T>(loss, a, at, weights);
  float value = 0.f;
  if (a.partials || a.value) {
    value = loss.value(e);
    if (a.value) wl_st(a.value + at.value, value);
  }
  const float factor = factor_at(a, at, e, scale);
  if (a.grad_x) Dtype<T>::store((T*)a.grad_x + at.grad_x, loss.grad_x(e, factor));
  if (a.grad_y) Dtype<T>::store((T*)a.grad_y + at.grad_y, loss.grad_y(e, factor));
  if constexpr (L::THIRD == THIRD_SLOPED) {
    if (a.grad_third) Dtype<T>::store((T*)a.grad_third + at.grad_third, loss.grad_third(e, factor));
  }
  return value;
}

template <class L, class T>
WL_FN void strided_pass(const ElementwiseArgs& a) {
  const L loss(a);
  const bool third = L::THIRD == THIRD_SLOPED && a.grad_third;
  const float scale = a.grad_x || a.grad_y || third ? scale_of(a) : 0.f, weights = weight_scale(a);
  double sum = sum_before(a);
  const wl_i64 step = (wl_i64)wl_blocks() * wl_threads();
  for (wl_i64 i = thread_of_all(); i < a.count; i += step) {
    Offsets at = {};
    at.add_index(a, a.first + i, 0, a.dims);
    sum += one_element<L, T>(loss, a, at, scale, weights);
  }
  leave_sum(a, sum);
}

// ---- lines: a warp has a tile of a line, by packs ---------------------------------------------
// Packs lie between the elements at a line's ends that are not in a full one: those go one by one.

// Input or target along a line, beside full packs of the lead: its packs, aligned or not, or one
// element for all columns.
template <class T>
struct Along {
  const T* line;
  bool once, aligned;

  WL_FN Along(const T* line, wl_i64 step, const Packs<T>& lead) : line(line), once(step == 0) {
    aligned = !once && (wl_u64)(line + lead.column(0)) % 16 == 0;
  }
  WL_FN wl_u32x4 pack(wl_i64 column) const {
    if (aligned) return wl_ld128_stream(line + column);
    constexpr int PER_WORD = 4 / (int)sizeof(T);
    wl_u32 words[4] = {0, 0, 0, 0};
    WL_UNROLL for (int i = 0; i < 4 * PER_WORD; i++) {
      words[i / PER_WORD] |= Dtype<T>::bits(line + (once ? 0 : column + i)) << (16 * (i % PER_WORD));
    }
    return {words[0], words[1], words[2], words[3]};
  }
};

// Weights, or an upstream gradient, of a full pack's columns; `v` stays where there is no tensor.
template <class T, int n>
WL_FN void floats_along(const void* p, wl_u32 kind, wl_i64 offset, wl_i64 step, wl_i64 column, float (&v)[n]) {
  if (!p) return;
  if (step == 0) {
    const float one = load_float(p, kind, offset);
    WL_UNROLL for (int i = 0; i < n; i++) v[i] = one;
  } else if (sizeof(T) == 4 || kind == KIND_F32) {
    full_columns((const float*)p + offset + column, v);
  } else {
    full_columns((const T*)p + offset + column, v);
  }
}

// GRADIENT: gradients are written, and values where the arguments have a place for them; else values
// alone.
template <class L, class T, bool GRADIENT>
struct LinePass {
  static constexpr int LANES = Dtype<T>::LANES;
  const ElementwiseArgs& a;
  const L loss;
  const bool valued, weighted;
  const float scale, weights;
  double sum;

  WL_FN LinePass(const ElementwiseArgs& a)
      : a(a), loss(a), valued(!GRADIENT || a.partials || a.value),
        weighted(a.weight || a.third || (GRADIENT && a.upstream)), scale(GRADIENT ? scale_of(a) : 0.f),
        weights(weight_scale(a)), sum(sum_before(a)) {}

  // The results of a full pack, written. WEIGHTED: with weights and an upstream gradient, each of
  // which may be absent.
  template <bool WEIGHTED>
  WL_FN void pack(const Offsets& at, const Packs<T>& packs, wl_i64 column, const float (&x)[LANES],
                  const float (&y)[LANES]) {
    float v[LANES], r[LANES], g[LANES], s[LANES], s_two[LANES], out[LANES];
    WL_UNROLL for (int i = 0; i < LANES; i++) {
      v[i] = r[i] = g[i] = 1.f;
      const Shared shared = loss.shared(x[i], y[i], sizeof(T) == 2);
      s[i] = shared.one, s_two[i] = shared.two;
    }
    const auto element = [&](int i) { return Element{x[i], y[i], v[i], r[i], {s[i], s_two[i]}, sizeof(T) == 2}; };
    if constexpr (WEIGHTED) {
      const wl_u32 d = a.dims - 1;
      floats_along<T>(a.weight, a.weight_kind, at.weight, a.strides[OP_WEIGHT][d], column, v);
      WL_UNROLL for (int i = 0; i < LANES; i++) v[i] *= weights;
      if constexpr (L::THIRD != THIRD_NONE) {
        floats_along<T>(a.third, a.third_kind, at.third, a.strides[OP_THIRD][d], column, r);
      }
      if constexpr (GRADIENT) {
        floats_along<T>(a.upstream, a.upstream_kind, at.upstream, a.strides[OP_UPSTREAM][d], column, g);
      }
    }
    if (valued) {
      float part = 0.f;
      WL_UNROLL for (int i = 0; i < LANES; i++) {
        out[i] = loss.value(element(i));
        part += out[i];
      }
      if (wl_abs(part) <= 3.402823466e38f) {
        sum += part;
      } else {
        WL_UNROLL for (int i = 0; i < LANES; i++) sum += out[i];  // a sum may leave f32, its mean not
      }
      if (a.value) Sink<T, float>(a.value + at.value, packs).full(column, out);
    }
    if constexpr (GRADIENT) {
      WL_UNROLL for (int i = 0; i < LANES; i++) g[i] = scale * g[i] * v[i];
      if (a.grad_x) {
        WL_UNROLL for (int i = 0; i < LANES; i++) out[i] = loss.grad_x(element(i), g[i]);
        Sink<T, T>((T*)a.grad_x + at.grad_x, packs).full(column, out);
      }
      if (a.grad_y) {
        WL_UNROLL for (int i = 0; i < LANES; i++) out[i] = loss.grad_y(element(i), g[i]);
        Sink<T, T>((T*)a.grad_y + at.grad_y, packs).full(column, out);
      }
      if constexpr (L::THIRD == THIRD_SLOPED) {
        if (a.grad_third) {
          WL_UNROLL for (int i = 0; i < LANES; i++) out[i] = loss.grad_third(element(i), g[i]);
          Sink<T, T>((T*)a.grad_third + at.grad_third, packs).full(column, out);
        }
      }
    }
  }

  // Packs [from, to) of a line, a lane's one after another, the next on its way meanwhile.
  template <bool WEIGHTED>
  WL_FN void packs_of(const Offsets& at, const Packs<T>& packs, wl_u32 from, wl_u32 to) {
    const wl_u32 d = a.dims - 1;
    const Along<T> xs((const T*)a.x + at.x, a.strides[OP_X][d], packs);
    const Along<T> ys((const T*)a.y + at.y, a.strides[OP_Y][d], packs);
    wl_u32x4 x_next = {}, y_next = {};
    const auto load = [&](wl_i64 column) { x_next = xs.pack(column), y_next = ys.pack(column); };
    wl_u32 p = from + wl_lane();
    wl_i64 column = packs.column(p);
    if (p < to) load(column);
    WL_UNROLL_N(1) for (; p < to; p += 32, column += 32 * LANES) {
      float x[LANES], y[LANES];
      Dtype<T>::template widen<0>(x_next, x);
      Dtype<T>::template widen<0>(y_next, y);
      if (p + 32 < to) load(column + 32 * LANES);
      pack<WEIGHTED>(at, packs, column, x, y);
    }
  }

  // The elements before a line's full packs, and those after them: fewer than there are lanes.
  WL_FN void ends(const Offsets& line, const Packs<T>& packs) {
    const wl_i64 before = packs.first * LANES - packs.skip, after = packs.column(packs.last);
    wl_i64 column = wl_lane();
    if (column >= before) column = after + (column - before);
    if (column >= packs.len) return;
    Offsets at = line;
    at.add(a, a.dims - 1, column);
    sum += one_element<L, T>(loss, a, at, scale, weights);
  }

  // A warp's tile of a line.
  WL_FN void tile(wl_i64 unit) {
    const wl_i64 line = unit / a.tiles, tile = unit % a.tiles;
    Offsets at = {};
    at.add_index(a, line, 0, a.dims - 1);
    const T* x = (const T*)a.x + at.x;
    const T* y = (const T*)a.y + at.y;
    const Packs<T> packs(a.lead == OP_X ? x : y, a.sizes[a.dims - 1]);
    const wl_u32 begin = (wl_u32)tile * (wl_u32)a.part, end = begin + (wl_u32)a.part;
    const wl_u32 from = begin > packs.first ? begin : packs.first, to = end < packs.last ? end : packs.last;
    if (weighted) {
      packs_of<true>(at, packs, from, to);
    } else {
      packs_of<false>(at, packs, from, to);
    }
    if (tile == a.ends) ends(at, packs);
  }
};

template <class L, class T, bool GRADIENT>
WL_FN void line_pass(const ElementwiseArgs& a) {
  LinePass<L, T, GRADIENT> pass(a);
  const wl_i64 warp = (wl_i64)wl_block() * wl_warps() + wl_warp(), step = (wl_i64)wl_blocks() * wl_warps();
  for (wl_i64 unit = warp; unit < a.units; unit += step) pass.tile(a.first + unit);
  leave_sum(a, pass.sum);
}

// ---- the gradient of a tensor that was broadcast ----------------------------------------------
// Each of its elements is the sum of `terms` gradients. The terms are cut into parts; a thread, or
// the lanes of a warp, has one part of one output. Neighbouring lanes read neighbours: outputs
// where the innermost dimension is kept (lanes = 1), terms where it is summed (lanes = 32).
template <class L, class T>
WL_FN void sum_back(const ElementwiseArgs& a) {
  const L loss(a);
  const float scale = scale_of(a), weights = weight_scale(a);
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
      const Element e = element_at<L, T>(loss, a, at, weights);
      const float factor = factor_at(a, at, e, scale);
      if constexpr (L::THIRD == THIRD_SLOPED) {
        if (a.side == 2) {
          sum += loss.grad_third(e, factor);
          at.add(a, d, a.lanes);
          continue;
        }
      }
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
  } else if (L::THIRD == THIRD_SLOPED && a.side == 2) {
    Dtype<T>::store((T*)a.grad_third + base.grad_third, (float)sum);
  } else if (a.side) {
    Dtype<T>::store((T*)a.grad_y + base.grad_y, (float)sum);
  } else {
    Dtype<T>::store((T*)a.grad_x + base.grad_x, (float)sum);
  }
}
