// States of rows, put together: a part's numbers go to their place in each row's list, part by part.
// The target's are those of the part that has it. The rule: src/spec/row_state.rs. Launches:
// src/cuda/loss/cross_entropy/shards.rs.
#pragma once
#include "core/args.cuh"

WL_FN void merge_states_body(const MergeArgs& a) {
  const wl_i64 blocks = a.part_numbers - a.of_target;  // all numbers before the target's
  const wl_i64 count = a.rows * a.part_numbers, step = (wl_i64)wl_blocks() * wl_threads();
  for (wl_i64 i = (wl_i64)wl_block() * wl_threads() + wl_thread(); i < count; i += step) {
    const wl_i64 row = i / a.part_numbers, number = i % a.part_numbers;
    float* to = a.state + row * a.numbers;
    if (number < blocks) {
      wl_st(to + a.at + number, wl_ld(a.part + i));
      continue;
    }
    const bool here = wl_ld(a.part + i - number + blocks) == 1.f;
    if (!here && !a.is_first) continue;
    wl_st(to + a.numbers - a.of_target + number - blocks, here ? wl_ld(a.part + i) : 0.f);
  }
}
