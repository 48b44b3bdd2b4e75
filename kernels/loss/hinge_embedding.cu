// Hinge of embeddings: x unless y is -1, max(0, margin - x) unless y is 1.
// Launches: src/cuda/loss/elementwise.rs.
#pragma once
#include "schedule/elementwise.cuh"

struct HingeEmbedding {
  static constexpr Third THIRD = THIRD_NONE;
  const float margin;
  WL_FN HingeEmbedding(const ElementwiseArgs& a) : margin(a.options[0]) {}
  WL_FN float shared(float, float, bool) const { return 0.f; }
  WL_FN float value(const Element& e) const {
    const float left = margin - e.x, shortfall = left <= 0.f ? 0.f : left;  // NaN goes through
    return e.weight * ((e.y == 1.f ? 0.f : shortfall) + (e.y == -1.f ? 0.f : e.x));
  }
  WL_FN float grad_x(const Element& e, float factor) const {
    const float pulled = e.y == -1.f ? 0.f : 1.f;
    const float pushed = e.y != 1.f && margin - e.x > 0.f ? 1.f : 0.f;
    return (pulled - pushed) * factor;
  }
  // The target only chooses.
  WL_FN float grad_y(const Element&, float factor) const { return 0.f * factor; }
};
