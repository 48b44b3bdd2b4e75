// What a launch hands to a kernel, and what most kernels do with it.
#pragma once
#include "core/args_generated.cuh"
#include "core/intrinsics.cuh"

// The first of the elements that a thread takes of many, and how far on the next is.
WL_FN wl_i64 first_of_grid() { return (wl_i64)wl_block() * wl_threads() + wl_thread(); }
WL_FN wl_i64 step_of_grid() { return (wl_i64)wl_blocks() * wl_threads(); }

// Goes through the elements of n rows without a division an element.
struct Elements {
  wl_i64 row, column, rows_a_step, columns_a_step, columns;
  WL_FN explicit Elements(wl_i64 columns)
      : row(first_of_grid() / columns), column(first_of_grid() % columns), rows_a_step(step_of_grid() / columns),
        columns_a_step(step_of_grid() % columns), columns(columns) {}
  WL_FN void next() {
    row += rows_a_step, column += columns_a_step;
    if (column >= columns) row++, column -= columns;
  }
};

// A row's loss, in the type that its losses have: f32 for the caller, f64 for what adds them up.
WL_FN void store_loss(void* losses, bool wide, wl_i64 row, double loss) {
  if (wide) {
    wl_st((double*)losses + row, loss);
  } else {
    wl_st((float*)losses + row, (float)loss);
  }
}

// Rows that have no cluster. What is at most WL_ROW_BAD_TARGET is an error.
enum : wl_i64 {
  WL_ROW_HEAD = -1,
  WL_ROW_IGNORED = -2,
  WL_ROW_BAD_TARGET = -3,
  WL_ROW_BAD_WEIGHT = -4,
  WL_ROW_NEVER_DRAWN = -5  // loss/sampled_softmax.cu finds it
};
