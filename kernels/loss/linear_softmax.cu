// Cross entropy over products of few features: hidden rows against 16-bit weights. So a cluster of an adaptive
// softmax costs its products and little else, and only for the rows that it has, whose number is the device's.
// Launches: src/cuda/matrix/linear_softmax/tiles.rs.
#pragma once
#include "loss/cross_entropy.cu"
#include "tile/softmax.cuh"

WL_FN void tile_forward_f16_body(const TileArgs& a) { tile_forward<CrossEntropy<WL_PLAIN>, f16>(a); }
WL_FN void tile_forward_bf16_body(const TileArgs& a) { tile_forward<CrossEntropy<WL_PLAIN>, bf16>(a); }
WL_FN void tile_finish_body(const TileArgs& a) { tile_finish<CrossEntropy<WL_PLAIN>>(a); }
WL_FN void tile_hidden_f16_body(const TileArgs& a) { tile_hidden_back<CrossEntropy<WL_PLAIN>, f16>(a); }
WL_FN void tile_hidden_bf16_body(const TileArgs& a) { tile_hidden_back<CrossEntropy<WL_PLAIN>, bf16>(a); }
WL_FN void tile_weight_f16_body(const TileArgs& a) { tile_weight_back<CrossEntropy<WL_PLAIN>, f16>(a); }
WL_FN void tile_weight_bf16_body(const TileArgs& a) { tile_weight_back<CrossEntropy<WL_PLAIN>, bf16>(a); }

// With soft-cap and label smoothing.
WL_FN void tile_full_forward_f16_body(const TileArgs& a) { tile_forward<CrossEntropy<WL_OPTIONS>, f16>(a); }
WL_FN void tile_full_forward_bf16_body(const TileArgs& a) { tile_forward<CrossEntropy<WL_OPTIONS>, bf16>(a); }
WL_FN void tile_full_finish_body(const TileArgs& a) { tile_finish<CrossEntropy<WL_OPTIONS>>(a); }
WL_FN void tile_full_hidden_f16_body(const TileArgs& a) { tile_hidden_back<CrossEntropy<WL_OPTIONS>, f16>(a); }
WL_FN void tile_full_hidden_bf16_body(const TileArgs& a) { tile_hidden_back<CrossEntropy<WL_OPTIONS>, bf16>(a); }
WL_FN void tile_full_weight_f16_body(const TileArgs& a) { tile_weight_back<CrossEntropy<WL_OPTIONS>, f16>(a); }
WL_FN void tile_full_weight_bf16_body(const TileArgs& a) { tile_weight_back<CrossEntropy<WL_OPTIONS>, bf16>(a); }
