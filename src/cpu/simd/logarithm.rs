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

/// ln(1 + e)/e on 0 ≤ e ≤ 1: degree 9, minimax in relative error (4.7e-9).
const OF_UNIT: [f32; 10] = [
    1.0,
    -0.499_999_02,
    0.333_299_64,
    -0.249_541_34,
    0.196_759_39,
    -0.153_055_92,
    0.106_036_55,
    -0.056_959_532,
    0.019_851_461,
    -0.003_244_025,
];

/// ln(1 + e) for 0 ≤ e ≤ 1, NaN for NaN: error ≤ 1.5 ulp (test `ln_error_bounds`).
#[inline(always)]
pub(crate) fn ln_1p_of_unit<S: Simd>(s: S, e: S::V) -> S::V {
    let c = &OF_UNIT;
    let p = s.fma(s.splat(c[9]), e, s.splat(c[8]));
    let p = s.fma(p, e, s.splat(c[7]));
    let p = s.fma(p, e, s.splat(c[6]));
    let p = s.fma(p, e, s.splat(c[5]));
    let p = s.fma(p, e, s.splat(c[4]));
    let p = s.fma(p, e, s.splat(c[3]));
    let p = s.fma(p, e, s.splat(c[2]));
    // The last two steps about e itself, which is exact.
    let p = s.fma(p, e, s.splat(c[1]));
    s.fma(s.mul(p, e), e, e)
}

/// −ln(1 − m/2)/m on 0 ≤ m ≤ 1: degree 8, minimax in relative error (2.3e-8).
const OF_HALF: [f32; 9] = [
    0.5,
    0.124_998_21,
    0.041_712_58,
    0.015_175_317,
    0.008_425_399,
    -0.003_180_296_9,
    0.009_825_546,
    -0.006_624_266_5,
    0.002_814_664_3,
];

/// −ln(1 − m/2) for 0 ≤ m ≤ 1, NaN for NaN: error ≤ 2 ulp (test `ln_error_bounds`).
#[inline(always)]
pub(crate) fn minus_ln_1m_half<S: Simd>(s: S, m: S::V) -> S::V {
    let c = &OF_HALF;
    let p = s.fma(s.splat(c[8]), m, s.splat(c[7]));
    let p = s.fma(p, m, s.splat(c[6]));
    let p = s.fma(p, m, s.splat(c[5]));
    let p = s.fma(p, m, s.splat(c[4]));
    let p = s.fma(p, m, s.splat(c[3]));
    let p = s.fma(p, m, s.splat(c[2]));
    let p = s.fma(p, m, s.splat(c[1]));
    // The half is exact.
    s.fma(s.mul(p, m), m, s.mul(s.splat(c[0]), m))
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
