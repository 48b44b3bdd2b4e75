// Jensen-Shannon divergence of log-probabilities x = ln Q from y = ln P, and the Kullback-Leibler
// divergence at one of its ends. Launches: src/cuda/loss/elementwise.rs.
#pragma once
#include "loss/divergence.cuh"
#include "schedule/elementwise.cuh"
#include "loss/kl_div.cu"

// e^x (x - y): the other one with its tensors exchanged.
struct KlDivReversed {
  static constexpr Third THIRD = THIRD_NONE;
  const KlDivLogTarget other;
  WL_FN KlDivReversed(const ElementwiseArgs& a) : other(a) {}
  WL_FN float shared(float x, float y, bool narrow) const { return other.shared(y, x, narrow); }
  WL_FN float value(const Element& e) const { return other.value(exchanged(e)); }
  WL_FN float grad_x(const Element& e, float factor) const { return other.grad_y(exchanged(e), factor); }
  WL_FN float grad_y(const Element& e, float factor) const { return other.grad_x(exchanged(e), factor); }

 private:
  static WL_FN Element exchanged(Element e) {
    const float x = e.x;
    e.x = e.y, e.y = x;
    return e;
  }
};

// b P (y - ln M) + (1 - b) Q (x - ln M), M = b P + (1 - b) Q.
struct JsDiv {
  static constexpr Third THIRD = THIRD_NONE;
  const Mixture mixture;
  WL_FN JsDiv(const ElementwiseArgs& a) : mixture(a.options[0]) {}
  // The slopes.
  WL_FN Shared shared(float x, float y, bool narrow) const {
    const float q = exp_of(x, narrow), p = exp_of(y, narrow), u = x - y;
    const Slopes slopes = narrow ? mixture.slopes<true>(q, p, u) : mixture.slopes<false>(q, p, u);
    // A NaN is not silenced by the other's vanished probability.
    return {wl_isnan(y) ? y : slopes.at_x, wl_isnan(x) ? x : slopes.at_y};
  }
  WL_FN float value(const Element& e) const { return e.weight * (e.shared.one + e.shared.two); }
  WL_FN float grad_x(const Element& e, float factor) const { return e.shared.one * factor; }
  WL_FN float grad_y(const Element& e, float factor) const { return e.shared.two * factor; }
};
