// Rows that bring the classes over which their softmax goes: lists of ids put in order, their logits, and what is
// made of the gradient of those. A row's list has `stride` places, of which the first are its classes, rising, each
// once, and all others -1. Launches: src/cuda/loss/class_subset.rs.
#pragma once
#include "core/args.cuh"
#include "core/block_sum.cuh"
#include "core/dtype.cuh"

// What is wrong with a row; times 8 and with its place, as status.rs reads it.
enum : wl_i64 { WL_LIST_FINE, WL_LIST_ID, WL_LIST_COUNT, WL_LIST_NO_TARGET, WL_LIST_EMPTY };

// The id at a place as it was given; -1 where there is none. Behind them all is the target that is appended.
WL_FN wl_i64 given_id(const SubsetArgs& a, wl_i64 row, wl_i64 n, wl_i64 place) {
  if (place == a.k) return load_index(a.target, a.target_kind, row);
  return place < n ? load_index(a.ids, a.ids_kind, row * a.ids_stride + place) : -1;
}

// A row a block: its list in order, and the target's place in it; -1 where the row does not count. Lists are
// short beside what is done with each of their classes, so each id is compared with all others.
WL_FN void subset_lists_body(const SubsetArgs& a) {
  WL_BLOCK_SUM_SLOTS;
  const wl_i64 row = wl_block(), target = a.target ? load_index(a.target, a.target_kind, row) : -1;
  const bool ignored = a.target && target == a.ignore_index;
  const bool there = !ignored && (!a.target || (target >= 0 && target < a.classes));
  const wl_i64 n = a.counts ? load_index(a.counts, a.counts_kind, row) : a.k;
  const bool bad_count = n < 0 || n > a.k;
  wl_i64* const once = a.slots + row * a.stride;
  wl_i64* const listed = a.listed + row * a.stride;
  BlockSums found = {0., 0., -1};  // classes, places of the target, the first id that is none
  for (wl_i64 j = wl_thread(); j < a.columns && there && !bad_count; j += wl_threads()) {
    wl_i64 id = given_id(a, row, n, j);
    if (id < -1 || id >= a.classes) {
      found.merge({0., 0., j});
      id = -1;
    }
    if (id >= 0 && id == target) found.b += 1.;
    for (wl_i64 i = 0; i < j && id >= 0; i++) {
      if (given_id(a, row, n, i) == id) id = -1;
    }
    if (id >= 0) found.a += 1.;
    wl_st(once + j, id);
  }
  found.reduce(sums, firsts);
  if (wl_thread() == 0) {
    sums[0] = found.a, sums[1] = found.b;
    firsts[0] = found.first;
  }
  wl_syncthreads();  // everyone knows what was found, and sees each class once
  const wl_i64 size = (wl_i64)sums[0], bad_place = firsts[0];
  const bool no_target = a.target && sums[1] == 0.;
  wl_i64 wrong = WL_LIST_FINE;
  if (there && bad_count) wrong = WL_LIST_COUNT;
  else if (there && bad_place >= 0) wrong = WL_LIST_ID + 8 * bad_place;
  else if (there && size == 0 && !(a.target && a.ignores_missing)) wrong = WL_LIST_EMPTY;
  else if (there && no_target && !a.ignores_missing) wrong = WL_LIST_NO_TARGET;
  const bool kept = there && wrong == WL_LIST_FINE && !no_target;
  if (wl_thread() == 0) {
    wl_st(a.wrong + row, wrong);
    if (a.target) {
      wl_st(a.labels + row, there && wrong == WL_LIST_FINE && no_target ? a.ignore_index : target);
      if (!kept) wl_st(a.places + row, (wl_i64)-1);
      if (a.factors) {
        const float u = a.row_weight ? wl_ld(a.row_weight + row) : 1.f;
        const float both = kept ? u * load_float(a.weight, a.weight_kind, target) : 0.f;
      // A class's weight of 0 leaves NaN where the row's own does not: -0 says so (linear_rows.cu).
      wl_st(a.factors + row, !kept || u == 0.f ? 0.f : both == 0.f ? -0.f : both);
      }
    }
  }
  for (wl_i64 j = wl_thread(); j < a.columns && kept; j += wl_threads()) {
    const wl_i64 id = wl_ld(once + j);
    if (id < 0) continue;
    wl_i64 place = 0;
    for (wl_i64 i = 0; i < a.columns; i++) {
      const wl_i64 other = wl_ld(once + i);
      place += other >= 0 && other < id;
    }
    wl_st(listed + place, id);
    if (a.sources) wl_st(a.sources + row * a.stride + place, j);
    if (id == target) wl_st(a.places + row, place);
  }
  for (wl_i64 j = (kept ? size : 0) + wl_thread(); j < a.stride; j += wl_threads()) wl_st(listed + j, (wl_i64)-1);
  wl_syncthreads();  // nobody compares any more
  for (wl_i64 j = wl_thread(); j < a.stride; j += wl_threads()) wl_st(once + j, row);
}

// One block: the first row whose list is wrong, unless something else was before.
WL_FN void subset_verdict_body(const SubsetArgs& a) {
  WL_BLOCK_SUM_SLOTS;
  BlockSums found = {0., 0., -1};
  for (wl_i64 row = wl_thread(); row < a.n; row += wl_threads()) {
    if (wl_ld(a.wrong + row) != WL_LIST_FINE) found.merge({0., 0., row});
  }
  found.reduce(sums, firsts);
  if (wl_thread() != 0 || found.first < 0 || wl_ld(&a.status->kind) != 0) return;
  const wl_i64 row = found.first, wrong = wl_ld(a.wrong + row) & 7, place = wl_ld(a.wrong + row) >> 3;
  wl_i64 value = 0;
  if (wrong == WL_LIST_ID) value = load_index(a.ids, a.ids_kind, row * a.ids_stride + place);
  if (wrong == WL_LIST_COUNT) value = load_index(a.counts, a.counts_kind, row);
  if (wrong == WL_LIST_NO_TARGET) value = load_index(a.target, a.target_kind, row);
  wl_st(&a.status->kind, (wl_u64)(11 + wrong));
  wl_st(&a.status->index, row);
  wl_st(&a.status->value, value);
  wl_st(&a.status->classes, wrong == WL_LIST_COUNT ? a.k : a.classes);
  wl_st(&a.status->ignore_index, place);
}

// A warp's product of two rows.
template <class T>
WL_FN float warp_product(const T* x, const T* w, wl_i64 n) {
  float sum = 0.f;
  for (wl_i64 d = wl_lane(); d < n; d += 32) sum = wl_fma(Dtype<T>::load(x + d), Dtype<T>::load(w + d), sum);
  WL_UNROLL for (int lanes = 16; lanes > 0; lanes /= 2) sum += wl_shfl_xor(WL_FULL_MASK, sum, lanes);
  return sum;
}
template <class T>
WL_FN float listed_logit(const SubsetArgs& a, wl_i64 row, wl_i64 id) {
  const T* const x = (const T*)a.x + row * a.x_stride;
  if (!a.matrix) return Dtype<T>::load(x + id);
  const float z = warp_product(x, (const T*)a.matrix + id * a.matrix_stride, a.features);
  return a.bias ? z + Dtype<T>::load((const T*)a.bias + id) : z;
}

// Logits of listed classes, a warp each: products of hidden rows and rows of the classifier, or, without one, the
// given ones. -inf elsewhere.
WL_FN void subset_logits_body(const SubsetArgs& a) {
  const wl_i64 step = (wl_i64)wl_blocks() * wl_warps();
  for (wl_i64 at = (wl_i64)wl_block() * wl_warps() + wl_warp(); at < a.n * a.columns; at += step) {
    const wl_i64 row = at / a.columns, to = row * a.stride + at % a.columns, id = wl_ld(a.listed + to);
    float z = -wl_inf();
    if (id >= 0) {
      switch (a.kind) {
        case KIND_F16: z = listed_logit<f16>(a, row, id); break;
        case KIND_BF16: z = listed_logit<bf16>(a, row, id); break;
        default: z = listed_logit<f32>(a, row, id);
      }
    }
    if (wl_lane() == 0) wl_st(a.z + to, z);
  }
}

// The gradient of hidden rows: their classes' rows of the classifier, times the gradient of logits, in order.
WL_FN void subset_input_body(const SubsetArgs& a) {
  for (Elements at(a.features); at.row < a.n; at.next()) {
    float sum = 0.f;
    const wl_i64 first = at.row * a.stride, to = at.row * a.to_stride + at.column;
    for (wl_i64 j = first; j < first + a.columns; j++) {
      const wl_i64 id = wl_ld(a.listed + j);
      if (id < 0) break;
      sum = wl_fma(wl_ld(a.z + j), load_float(a.matrix, a.kind, id * a.matrix_stride + at.column), sum);
    }
    if (a.add) sum += load_float(a.to, a.kind, to);
    store_float(a.to, a.kind, to, sum);
  }
}

// The gradient of given logits, where a row has listed them; all others are 0 already.
WL_FN void subset_scatter_body(const SubsetArgs& a) {
  for (Elements at(a.columns); at.row < a.n; at.next()) {
    const wl_i64 from = at.row * a.stride + at.column, id = wl_ld(a.listed + from);
    if (id >= 0) store_float(a.to, a.kind, at.row * a.to_stride + id, wl_ld(a.z + from));
  }
}

// Places in lists become the classes there, in place.
WL_FN void subset_classes_body(const SubsetArgs& a) {
  for (Elements at(a.columns); at.row < a.n; at.next()) {
    wl_i64* const p = a.found + at.row * a.columns + at.column;
    const wl_i64 place = wl_ld(p);
    if (place >= 0) wl_st(p, wl_ld(a.listed + at.row * a.stride + place));
  }
}

// Probabilities of listed classes in the lists' order; or their gradient in the order that they were given in, which
// is 0 already where a place has no class of its own.
WL_FN void subset_soft_body(const SubsetArgs& a) {
  for (Elements at(a.columns); at.row < a.n; at.next()) {
    const wl_i64 here = at.row * a.stride + at.column;
    const bool listed = wl_ld(a.listed + here) >= 0;
    const wl_i64 source = listed ? wl_ld(a.sources + here) : 0;
    if (!a.to) {
      wl_st(a.z + here, listed ? load_float(a.x, a.kind, at.row * a.x_stride + source) : 0.f);
    } else if (listed) {
      store_float(a.to, a.kind, at.row * a.to_stride + source, wl_ld(a.z + here));
    }
  }
}
