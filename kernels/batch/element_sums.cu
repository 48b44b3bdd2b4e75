// What elementwise losses share besides their passes: the sum of the weights, and the totals of
// partial sums. f64, in order: the same bits every time. Launches: src/cuda/loss/elementwise.rs.
#pragma once
#include "schedule/elementwise.cuh"
#include "core/block_sum.cuh"

// A block's share of the weights, and the largest of them behind all shares. Between parts, each
// thread's.
WL_FN void weights_sum_body(const ElementwiseArgs& a) {
  WL_SMEM(double, slots, 32);
  const wl_i64 step = (wl_i64)wl_blocks() * wl_threads();
  double sum = sum_before(a);
  float largest = a.before ? (float)wl_ld(a.before + step + place_of_sum(a)) : 0.f;
  for (wl_i64 i = thread_of_all(); i < a.count; i += step) {
    Offsets at = {};
    at.add_index(a, a.first + i, 0, a.dims);
    const float w = load_float(a.weight, a.weight_kind, at.weight);
    sum += w;
    largest = wl_max(largest, wl_abs(w));
  }
  if (a.after) {
    wl_st(a.after + place_of_sum(a), sum);
    wl_st(a.after + step + place_of_sum(a), (double)largest);
    return;
  }
  sum = block_sum(sum, slots);
  largest = largest_of_block(largest, slots);
  if (wl_thread() != 0) return;
  wl_st(a.partials + wl_block(), sum);
  wl_st(a.partials + a.parts + wl_block(), (double)largest);
}

WL_FN double partials_sum(const ElementwiseArgs& a, wl_shared<double> slots) {
  double sum = 0.;
  for (wl_u32 i = wl_thread(); i < a.parts; i += wl_threads()) sum += wl_ld(a.partials + i);
  return block_sum(sum, slots);
}

// The opposite of a power of two above a weight, if both are normal numbers; 1 of what is not finite.
WL_FN float above_inverse(float weight) {
  if (!(weight > 0.f && weight <= 3.402823466e38f)) return 1.f;
  const wl_i32 opposite = 253 - (wl_i32)(wl_bits(weight) >> 23);
  return wl_f32((wl_u32)(opposite < 1 ? 1 : opposite > 253 ? 253 : opposite) << 23);
}

// One block: the sum of the weights as they are used, and what they are multiplied by for that.
WL_FN void weights_sum_total_body(const ElementwiseArgs& a) {
  WL_SMEM(double, slots, 32);
  const double sum = partials_sum(a, slots);
  float largest = 0.f;
  for (wl_u32 i = wl_thread(); i < a.parts; i += wl_threads()) {
    largest = wl_max(largest, (float)wl_ld(a.partials + a.parts + i));
  }
  largest = largest_of_block(largest, slots);
  if (wl_thread() != 0) return;
  const double scale = above_inverse(largest);
  wl_st(a.weights, sum * scale);
  wl_st(a.weights + 1, scale);
}

// Whether a number of the tensor that stands in the third's place is outside of 0 to the largest, the first
// option.
WL_FN bool is_outside(const ElementwiseArgs& a, float v) { return v < 0.f || v > a.options[0]; }

// A block's first element that is outside, if there is one.
WL_FN void outside_body(const ElementwiseArgs& a) {
  WL_BLOCK_SUM_SLOTS;
  BlockSums bad = {0., 0., -1};
  const wl_i64 step = (wl_i64)wl_blocks() * wl_threads();
  for (wl_i64 i = thread_of_all(); i < a.count && bad.first < 0; i += step) {
    Offsets at = {};
    at.add_index(a, i, 0, a.dims);
    if (is_outside(a, load_float(a.third, a.third_kind, at.third))) bad.first = i;
  }
  bad.reduce(sums, firsts);
  if (wl_thread() == 0) wl_st(a.partials + wl_block(), (double)bad.first);
}

// One block: notes the first of all. `side`: whose numbers they are.
WL_FN void outside_total_body(const ElementwiseArgs& a) {
  WL_BLOCK_SUM_SLOTS;
  BlockSums bad = {0., 0., -1};
  for (wl_u32 i = wl_thread(); i < a.parts; i += wl_threads()) bad.merge({0., 0., (wl_i64)wl_ld(a.partials + i)});
  bad.reduce(sums, firsts);
  if (wl_thread() != 0 || bad.first < 0 || wl_ld(&a.status->kind) != 0) return;
  Offsets at = {};
  at.add_index(a, bad.first, 0, a.dims);
  wl_st(&a.status->kind, (wl_u64)9);
  wl_st(&a.status->index, bad.first);
  wl_st(&a.status->value, (wl_i64)wl_bits(load_float(a.third, a.third_kind, at.third)));
  wl_st(&a.status->classes, (wl_i64)a.side);
}

// One block: the loss. No weight makes NaN, and so does no element, whatever the sum is.
WL_FN void loss_total_body(const ElementwiseArgs& a) {
  WL_SMEM(double, slots, 32);
  const double sum = partials_sum(a, slots);
  if (wl_thread() != 0) return;
  const double denominator = a.weights ? wl_ld(a.weights) : a.denominator;
  wl_st(a.loss, denominator == 0. ? wl_nan() : (float)(sum / denominator));
}

// A warp an output: the parts of a gradient that is summed back.
WL_FN void sum_back_total_body(const ElementwiseArgs& a) {
  const wl_u64 output = (wl_u64)wl_block() * wl_warps() + wl_warp();
  if (output >= (wl_u64)a.outputs) return;
  double sum = 0.;
  for (wl_u32 part = wl_lane(); part < a.parts; part += 32) sum += wl_ld(a.partials + part * a.outputs + output);
  WL_UNROLL for (int lanes = 16; lanes > 0; lanes /= 2) sum += wl_shfl_xor(WL_FULL_MASK, sum, lanes);
  if (wl_lane() != 0) return;
  Offsets at = {};
  at.add_index(a, output, 0, a.kept);
  void* const to = a.side == 2 ? a.grad_third : a.side ? a.grad_y : a.grad_x;
  const wl_i64 offset = a.side == 2 ? at.grad_third : a.side ? at.grad_y : at.grad_x;
  switch (a.kind) {
    case KIND_F16: return Dtype<f16>::store((f16*)to + offset, (float)sum);
    case KIND_BF16: return Dtype<bf16>::store((bf16*)to + offset, (float)sum);
    default: return wl_st((float*)to + offset, (float)sum);
  }
}
