// Kullback-Leibler divergence of log-probabilities x from probabilities y, or from their
// logarithms. Launches: src/cuda/loss/elementwise.rs.
#pragma once
#include "schedule/elementwise.cuh"
#include "core/logarithm.cuh"

// y (ln y - x), gradients -y and ln y + 1 - x.
struct KlDiv {
  static constexpr Third THIRD = THIRD_NONE;
  WL_FN KlDiv(const ElementwiseArgs&) {}
  // ln y - x
  WL_FN float shared(float x, float y, bool narrow) const { return ln_plus(y, -x, narrow); }
  WL_FN float value(const Element& e) const {
    // A probability of 0 silences -inf, not +inf and not NaN.
    const float silent = e.x == -wl_inf() ? 0.f : e.x * 0.f;
    return e.weight * (e.y == 0.f ? silent : e.y * e.shared.one);
  }
  WL_FN float grad_x(const Element& e, float factor) const { return -e.y * factor; }
  // Of a y below 0 it is NaN, and 0 where the upstream gradient is 0.
  WL_FN float grad_y(const Element& e, float factor) const {
    if (e.y < 0.f) return factor == 0.f ? 0.f : wl_nan();
    return e.y == 0.f ? wl_nan() : (e.shared.one + 1.f) * factor;
  }
};

// e^y (y - x), gradients -e^y and e^y (y - x + 1).
struct KlDivLogTarget {
  static constexpr Third THIRD = THIRD_NONE;
  WL_FN KlDivLogTarget(const ElementwiseArgs&) {}
  // e^y
  WL_FN float shared(float, float y, bool narrow) const { return exp_of(y, narrow); }
  WL_FN float value(const Element& e) const { return e.weight * product(e, 0.f); }
  WL_FN float grad_x(const Element& e, float factor) const { return -e.shared.one * factor; }
  WL_FN float grad_y(const Element& e, float factor) const { return product(e, 1.f) * factor; }

 private:
  // e^y (distance + more), which is the distance where that is infinite though e^y underflows, and 0 where
  // it is 0 though e^y overflows; 0 where y = -inf, unless x is NaN.
  static WL_FN float product(const Element& e, float more) {
    if (e.y == -wl_inf()) return e.x == e.x ? 0.f : e.x;
    const float distance = e.y - e.x, factor = distance + more;
    if (wl_abs(distance) == wl_inf()) return distance;
    return factor == 0.f ? 0.f : e.shared.one * factor;
  }
};
