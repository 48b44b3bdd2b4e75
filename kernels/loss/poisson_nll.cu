// Negative log-likelihood of a Poisson distribution, by the logarithm of its rate (e^x - x y) or by the
// rate (x - y ln(x + eps)); with ln y! by Stirling where it is wanted and y > 1.
// Launches: src/cuda/loss/elementwise.rs.
#pragma once
#include "schedule/elementwise.cuh"
#include "core/logarithm.cuh"

struct Stirling {
  const bool wanted;
  WL_FN float value(float y, bool narrow) const {
    if (!wanted || !(y > 1.f)) return 0.f;
    const float ln = ln_plus(y, 0.f, narrow);
    return wl_fma(y, ln - 1.f, wl_fma(ln, 0.5f, 0.918938533f));
  }
  WL_FN float slope(float y, bool narrow) const {
    return wanted && y > 1.f ? ln_plus(y, 0.f, narrow) + 0.5f / y : 0.f;
  }
};

struct PoissonNll {
  static constexpr Third THIRD = THIRD_NONE;
  const Stirling stirling;
  WL_FN PoissonNll(const ElementwiseArgs& a) : stirling{a.options[0] != 0.f} {}
  // The rate, to all digits: a large one is multiplied by nothing less.
  WL_FN float shared(float x, float, bool) const { return exp_of(x, false); }
  WL_FN float value(const Element& e) const {
    return e.weight * (e.shared.one - silent_product(e.y, e.x) + stirling.value(e.y, e.narrow));
  }
  WL_FN float grad_x(const Element& e, float factor) const { return (e.shared.one - e.y) * factor; }
  WL_FN float grad_y(const Element& e, float factor) const {
    return (stirling.slope(e.y, e.narrow) - e.x) * factor;
  }
};

struct PoissonNllOfRate {
  static constexpr Third THIRD = THIRD_NONE;
  const Stirling stirling;
  const float eps;
  WL_FN PoissonNllOfRate(const ElementwiseArgs& a) : stirling{a.options[0] != 0.f}, eps(a.options[1]) {}
  // The rate's logarithm.
  WL_FN float shared(float x, float, bool narrow) const { return ln_plus(x + eps, 0.f, narrow); }
  WL_FN float value(const Element& e) const {
    return e.weight * (e.x - silent_product(e.y, e.shared.one) + stirling.value(e.y, e.narrow));
  }
  WL_FN float grad_x(const Element& e, float factor) const {
    const float rate = e.x + eps;
    // 0/0: no events of no rate.
    return (1.f - (e.y == 0.f && rate == 0.f ? 0.f : e.y / rate)) * factor;
  }
  WL_FN float grad_y(const Element& e, float factor) const {
    return (stirling.slope(e.y, e.narrow) - e.shared.one) * factor;
  }
};
