//! Logarithms over vectors, with stated error bounds.

use crate::cpu::simd::vector::Simd;

/// ln 2 in two parts: an integer of up to 8 bits times the first is exact in f32.
const LN2_HIGH: f32 = 355.0 / 512.0;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// (ln(1 + f) − f + f²/2)/f³ on √½ − 1 ≤ f ≤ √2 − 1: degree 7, minimax in the relative error of
/// ln(1 + f) (5.8e-9).
const P: [f32; 8] = [
    0.333_333_3,
    -0.250_008_2,
    0.200_012_27,
    -0.166_233_57,
    0.142_017_57,
    -0.131_601_83,
    0.127_615_76,
    -0.076_344_97,
];

/// ln(1 + f) − f for f as [`P`] has it.
#[inline(always)]
fn beyond_linear<S: Simd>(s: S, f: S::V) -> S::V {
    let p = s.fma(s.splat(P[7]), f, s.splat(P[6]));
    let p = s.fma(p, f, s.splat(P[5]));
    let p = s.fma(p, f, s.splat(P[4]));
    let p = s.fma(p, f, s.splat(P[3]));
    let p = s.fma(p, f, s.splat(P[2]));
    let p = s.fma(p, f, s.splat(P[1]));
    let p = s.fma(p, f, s.splat(P[0]));
    s.mul(s.mul(f, f), s.fma(p, f, s.splat(-0.5)))
}

/// ln x + c: −∞ + c for 0, +∞ + c for +∞, NaN below 0 and for NaN.
///
/// x = 2^n·m with √½ ≤ m < √2; n·ln2 meets c before ln m comes to it, so that c ≈ −ln x costs
/// no digits. With c = 0 the error is ≤ 1.5 ulp, for every x, subnormals among them (test
/// `ln_error_bounds`).
#[inline(always)]
pub(crate) fn ln_plus<S: Simd>(s: S, x: S::V, c: S::V) -> S::V {
    let zero = s.splat(0.0);
    let inf = s.splat(f32::INFINITY);
    // A subnormal is brought among the normal numbers.
    let normal = s.splat(f32::MIN_POSITIVE);
    let (n, m) = s.split(s.select_lt(x, normal, s.mul(x, s.splat(33_554_432.0)), x));
    let n = s.select_lt(x, normal, s.sub(n, s.splat(25.0)), n);
    let f = s.sub(m, s.splat(1.0));
    let rest = s.fma(n, s.splat(LN2_LOW), beyond_linear(s, f));
    let ln = s.add(s.fma(n, s.splat(LN2_HIGH), c), s.add(f, rest));
    let below = s.select_eq(x, zero, s.sub(c, inf), s.splat(f32::NAN));
    s.select_lt(zero, x, s.select_eq(x, inf, s.add(c, inf), ln), below)
}

/// ln(1 + e) for 0 ≤ e ≤ 1, NaN for NaN: error ≤ 1.5 ulp (test `ln_error_bounds`).
#[inline(always)]
pub(crate) fn ln_1p_of_unit<S: Simd>(s: S, e: S::V) -> S::V {
    // Above √2 − 1, 1 + e is halved: (1 + e)/2 − 1 = (e − 1)/2.
    let edge = s.splat(std::f32::consts::SQRT_2 - 1.0);
    let f = s.select_lt(edge, e, s.mul(s.sub(e, s.splat(1.0)), s.splat(0.5)), e);
    let small = beyond_linear(s, f);
    let halved = s.add(s.splat(LN2_HIGH), s.add(f, s.add(s.splat(LN2_LOW), small)));
    s.select_lt(edge, e, halved, s.add(f, small))
}

/// ln(1 + f) for f ≥ −1, −∞ for −1, NaN below and for NaN: error ≤ 2.5 ulp (test
/// `ln_error_bounds`).
#[inline(always)]
pub(crate) fn ln_1p<S: Simd>(s: S, f: S::V) -> S::V {
    // Near 0 of f itself, so that no digits of it go into a 1.
    let near = s.splat(0.25);
    let small = s.add(f, beyond_linear(s, s.min(s.max(f, s.splat(-0.25)), near)));
    let far = ln_plus(s, s.add(s.splat(1.0), f), s.splat(0.0));
    s.select_lt(s.abs(f), near, small, far)
}
