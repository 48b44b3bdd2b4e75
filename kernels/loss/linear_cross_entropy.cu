// Cross entropy over products of any number of features, whose logits never reach memory.
// Launches: src/cuda/loss/linear_cross_entropy/tiled.rs, src/cuda/matrix/linear_softmax/wide.rs.
#pragma once
#include "loss/cross_entropy.cu"
#include "tile/linear_gradient.cuh"

WL_FN void linear_forward_f16_body(const LinearTileArgs& a) { linear_forward<CrossEntropy<WL_PLAIN>, f16>(a); }
WL_FN void linear_forward_bf16_body(const LinearTileArgs& a) { linear_forward<CrossEntropy<WL_PLAIN>, bf16>(a); }
WL_FN void linear_finish_body(const LinearTileArgs& a) { linear_finish<CrossEntropy<WL_PLAIN>>(a); }
WL_FN void linear_gradient_f16_body(const LinearTileArgs& a) { linear_gradient<CrossEntropy<WL_PLAIN>, f16>(a); }
WL_FN void linear_gradient_bf16_body(const LinearTileArgs& a) { linear_gradient<CrossEntropy<WL_PLAIN>, bf16>(a); }

// With everything that may be asked of a row: soft-cap, label smoothing, log-probability and entropy.
WL_FN void linear_full_forward_f16_body(const LinearTileArgs& a) { linear_forward<CrossEntropy<WL_TOKENS>, f16>(a); }
WL_FN void linear_full_forward_bf16_body(const LinearTileArgs& a) { linear_forward<CrossEntropy<WL_TOKENS>, bf16>(a); }
WL_FN void linear_full_finish_body(const LinearTileArgs& a) { linear_finish<CrossEntropy<WL_TOKENS>>(a); }
WL_FN void linear_full_gradient_f16_body(const LinearTileArgs& a) { linear_gradient<CrossEntropy<WL_TOKENS>, f16>(a); }
WL_FN void linear_full_gradient_bf16_body(const LinearTileArgs& a) { linear_gradient<CrossEntropy<WL_TOKENS>, bf16>(a); }
