// Focal loss of a logit x and a label t, from q = e^-|x| alone. `share` is what the larger of sigma(x)
// and 1 - sigma(x), near = 1 / (1 + q), is multiplied by in u, the probability of what is not the target,
// `far` what the smaller is: t and 1 - t, or the other way round. So
//
//   u = near (far q + share)      entropy = share |x| + ln(1 + q)      a_t = a t + (1 - a) (1 - t)
//
//   value  a_t u^g entropy
//   dx     a_t u^g (dentropy/dx + g (1 - 2 t) entropy / u p (1 - p))
//          = +-a_t u^g near (far q - share + g (far - share) entropy q / (far q + share))
//   dt     u^g ((2 a - 1) entropy - a_t x + a_t g entropy / u (1 - 2 p))
//
// Nothing is a difference where u is a tail (share = 0). Launches: src/cuda/loss/elementwise.rs.
#pragma once
#include "loss/divergence.cuh"
#include "schedule/elementwise.cuh"

// What an element's q and t make of it.
struct FocalParts {
  float share, far, rest;  // rest: far q + share
  WL_FN FocalParts(float x, float t, float q) : share(x < 0.f ? t : 1.f - t), far(x < 0.f ? 1.f - t : t) {
    rest = wl_fma(far, q, share);
  }
  WL_FN float u(float q) const { return rest * wl_rcp(1.f + q); }
};

// SQUARE: g is 2.
template <bool SQUARE>
struct Focal {
  static constexpr Third THIRD = THIRD_NONE;
  const float gamma;
  const float lean, base;  // a_t is lean t + base: 0 and 1 without alpha
  // Of g, a whole number up to 7 is a product; what is left over is even, or broken.
  const wl_u32 whole;
  const bool broken;
  WL_FN Focal(const ElementwiseArgs& a)
      : gamma(SQUARE ? 2.f : a.options[1]), lean(a.options[0] < 0.f ? 0.f : 2.f * a.options[0] - 1.f),
        base(a.options[0] < 0.f ? 1.f : 1.f - a.options[0]),
        whole(gamma < 8.f ? (wl_u32)gamma : gamma < 16777216.f ? 6 + ((wl_u32)gamma & 1) : 6),
        broken(gamma < 16777216.f && gamma != (float)(wl_u32)gamma) {}

  // q: u^g is taken anew where it is needed, as registers are scarcer than operations.
  WL_FN float shared(float x, float, bool narrow) const { return exp_of(-wl_abs(x), narrow); }
  WL_FN float value(const Element& e) const {
    const FocalParts parts(e.x, e.y, e.shared.one);
    return e.weight * silent_product(alpha(e.y), silent_product(power(e, parts), entropy(e, parts)));
  }
  WL_FN float grad_x(const Element& e, float factor) const {
    const FocalParts parts(e.x, e.y, e.shared.one);
    const float q = e.shared.one;
    // Where q is 0 the entropy may be infinite, or nothing over nothing.
    const float focus = q == 0.f || gamma == 0.f ? 0.f : entropy(e, parts) * (q * wl_rcp(parts.rest));
    const float bend = focus == 0.f ? 0.f : gamma * (parts.far - parts.share) * focus;
    const float slope = bend + wl_fma(parts.far, q, -parts.share);
    const float near = alpha(e.y) * power(e, parts) * wl_rcp(1.f + q);
    return near * (e.x < 0.f ? slope : -slope) * factor;
  }
  WL_FN float grad_y(const Element& e, float factor) const {
    const FocalParts parts(e.x, e.y, e.shared.one);
    const float q = e.shared.one, own = entropy(e, parts), a = alpha(e.y);
    // (1 - q) / (1 + q), no difference of near numbers, is |1 - 2 p|.
    const float down = e.narrow ? exp_m1_of<true>(-wl_abs(e.x)) : exp_m1_of<false>(-wl_abs(e.x));
    const float size = -down * wl_rcp(1.f + q), middle = e.x < 0.f ? size : -size;
    // Entropy over u tends to 1 where u tends to 0.
    const float ratio = parts.share == 0.f && q < 1e-8f ? 1.f : own / parts.u(q);
    const float slope = silent_product(lean, own) - silent_product(a, e.x);
    return silenced(power(e, parts), slope + silenced(gamma * a, ratio * middle)) * factor;
  }

 private:
  WL_FN float power(const Element& e, const FocalParts& parts) const {
    const float u = parts.u(e.shared.one), square = u * u;
    if (SQUARE) return square;
    // A product has more digits than the exponential of a logarithm.
    const float product = (whole & 1 ? u : 1.f) * (whole & 2 ? square : 1.f) * (whole & 4 ? square * square : 1.f);
    const bool tail = parts.share == 0.f;
    const float of = tail ? 1.f : broken ? parts.rest : wl_abs(parts.rest);
    const float ln = ln_plus(of, tail ? -wl_abs(e.x) : 0.f) - ln_1p_of_unit(e.shared.one, e.narrow);
    const float left = gamma - (float)whole;
    // NaN of a label that is infinite, u^0 as well.
    return wl_fma(parts.rest, 0.f, left == 0.f ? product : product * exp_of(left * ln, false));
  }
  static WL_FN float entropy(const Element& e, const FocalParts& parts) {
    const float l = ln_1p_of_unit(e.shared.one, e.narrow);
    return parts.share == 0.f ? l : wl_fma(parts.share, wl_abs(e.x), l);
  }
  WL_FN float alpha(float t) const { return wl_fma(lean, t, base); }
  // a * b, 0 where a is.
  static WL_FN float silenced(float a, float b) { return a == 0.f ? a : a * b; }
};

struct SigmoidFocal : Focal<true> {
  WL_FN SigmoidFocal(const ElementwiseArgs& a) : Focal<true>(a) {}
};
struct SigmoidFocalOfPower : Focal<false> {
  WL_FN SigmoidFocalOfPower(const ElementwiseArgs& a) : Focal<false>(a) {}
};
