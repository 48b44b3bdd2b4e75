// Binary cross entropy of a probability x and a probability y, of ln x and ln(1 - x), at least -100
// each; one of them is NaN where x is no probability. Launches: src/cuda/loss/elementwise.rs.
#pragma once
#include "schedule/elementwise.cuh"
#include "core/logarithm.cuh"

struct Bce {
  static constexpr Third THIRD = THIRD_NONE;
  WL_FN Bce(const ElementwiseArgs&) {}
  // ln x, ln(1 - x)
  WL_FN Shared shared(float x, float, bool narrow) const {
    // Near 0 of x itself, so that no digits of it go into a 1.
    const float near = beyond_linear(-x) - x, far = ln_plus(1.f - x, 0.f, narrow);
    return {ln_plus(x, 0.f, narrow), wl_abs(x) < 0.25f ? near : far};
  }
  WL_FN float value(const Element& e) const {
    const float yes = at_least(e.shared.one), no = at_least(e.shared.two);
    return -(e.weight * wl_fma(1.f - e.y, no, e.y * yes));
  }
  WL_FN float grad_x(const Element& e, float factor) const {
    const float slope = (e.x - e.y) / wl_max((1.f - e.x) * e.x, 1e-12f);
    return (e.x < 0.f || e.x > 1.f ? wl_nan() : slope) * factor;
  }
  WL_FN float grad_y(const Element& e, float factor) const { return (e.shared.two - e.shared.one) * factor; }

 private:
  // NaN goes through.
  static WL_FN float at_least(float ln) { return ln < -100.f ? -100.f : ln; }
};
