// Products of a matrix of which tiles are zeros (tests/device/sparse.rs).
#include "batch/block_sparse.cu"

WL_KERNEL(test_sparse_f32, BlockSparseArgs, 256, 1) { block_sparse_f32_body(args); }
WL_KERNEL(test_sparse_turned_f16, BlockSparseArgs, 256, 1) { block_sparse_turned_f16_body(args); }
WL_KERNEL(test_sparse_turned_bf16, BlockSparseArgs, 256, 1) { block_sparse_turned_bf16_body(args); }
WL_KERNEL(test_sparse_sums, BlockSparseArgs, 256, 1) { block_sparse_sums_body(args); }
