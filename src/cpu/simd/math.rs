//! exp and tanh over vectors, with stated error bounds.

use crate::cpu::simd::vector::Simd;

/// 1.5·2^23 + 127: adding it leaves round(t) + 127, the biased exponent of 2^t, in the low bits.
const ROUND_TO_EXPONENT: f32 = 12_582_912.0 + 127.0;
/// Below this e^x counts as 0: round(x·log2 e) = −127, whose exponent bits are 0.
const EXP_LOWEST: f32 = -88.0;
/// Above this e^x is +∞: round(x·log2 e) = 128, whose exponent bits are all ones.
const EXP_HIGHEST: f32 = 88.9;

/// e^r ≈ 1 + r·(C1 + r·(C2 + …)) on |r| ≤ ln2/2: degree 5, minimax in relative error (9.2e-8).
const C1: f32 = 0.999_999_7;
const C2: f32 = 0.499_991_48;
const C3: f32 = 0.166_676_39;
const C4: f32 = 0.041_898_16;
const C5: f32 = 0.008_290_272;

/// e^x for x ≤ 0 (up to +1, where lse rounding put x): 0 below −87.68, NaN for NaN.
///
/// x = n·ln2 + r with n = round(x·log2 e); e^x = 2^n·P(r), the power set by its exponent bits.
/// Error ≤ 2.5 ulp for x ≥ −8, ≤ 6 ulp down to −87.33 (ln2 is one constant, so that the error of r
/// grows with n); results below 2^−126 are rounded to subnormals or 0. The test
/// `exp_error_bounds` holds these bounds at every level.
#[inline(always)]
pub(crate) fn exp_nonpositive<S: Simd>(s: S, x: S::V) -> S::V {
    let (p, power) = exp_parts(s, x, &splat_each(s, [1.0, C1, C2, C3, C4, C5]));
    s.mul(p, power)
}

/// `factor·e^x + shift` for x ≤ 0 and a finite factor, at the cost of e^x alone.
#[derive(Clone, Copy)]
pub(crate) struct ScaledExp<V> {
    coefficients: [V; 6],
    shift: V,
}

impl<V: Copy> ScaledExp<V> {
    #[inline(always)]
    pub(crate) fn new<S: Simd<V = V>>(s: S, factor: f32, shift: f32) -> Self {
        let c = [factor, factor * C1, factor * C2, factor * C3, factor * C4, factor * C5];
        ScaledExp { coefficients: splat_each(s, c), shift: s.splat(shift) }
    }

    #[inline(always)]
    pub(crate) fn of<S: Simd<V = V>>(&self, s: S, x: V) -> V {
        let (p, power) = exp_parts(s, x, &self.coefficients);
        s.fma(p, power, self.shift)
    }
}

#[inline(always)]
fn splat_each<S: Simd>(s: S, c: [f32; 6]) -> [S::V; 6] {
    [s.splat(c[0]), s.splat(c[1]), s.splat(c[2]), s.splat(c[3]), s.splat(c[4]), s.splat(c[5])]
}

/// P(r) with the given coefficients, and 2^n.
#[inline(always)]
fn exp_parts<S: Simd>(s: S, x: S::V, c: &[S::V; 6]) -> (S::V, S::V) {
    // max returns its second operand for NaN: NaN goes through, −∞ becomes EXP_LOWEST.
    let x = s.max(s.splat(EXP_LOWEST), x);
    let biased = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND_TO_EXPONENT));
    let n = s.sub(biased, s.splat(ROUND_TO_EXPONENT));
    let r = s.fma(n, s.splat(-std::f32::consts::LN_2), x);
    let p = s.fma(c[5], r, c[4]);
    let p = s.fma(p, r, c[3]);
    let p = s.fma(p, r, c[2]);
    let p = s.fma(p, r, c[1]);
    (s.fma(p, r, c[0]), s.low_bits_to_exponent(biased))
}

/// e^x for every x: as [`exp_nonpositive`], and +∞ from 88.38 on.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    exp_nonpositive(s, s.min(s.splat(EXP_HIGHEST), x))
}

/// e^x for every x, +∞ only where f32 has nothing else: from 88.73 on. Bounds as [`exp`].
#[inline(always)]
pub(crate) fn exp_to_the_end<S: Simd>(s: S, x: S::V) -> S::V {
    // 2^32 comes last, so that no exponent on the way is beyond those of f32.
    let (high, one) = (s.splat(64.0), s.splat(1.0));
    let lowered = s.sub(s.sub(x, s.splat(LN2_32_HIGH)), s.splat(LN2_32_LOW));
    let e = exp(s, s.select_lt(high, x, lowered, x));
    s.mul(e, s.select_lt(high, x, s.splat(4_294_967_296.0), one))
}

/// 32·ln 2 in two parts, of which few bits of the first are set.
const LN2_32_HIGH: f32 = 22.0 + 185.0 / 1024.0;
const LN2_32_LOW: f32 = 4.571_542e-5;

/// Where e^x − 1 is taken from its series: beyond, e^x has its digits.
pub(crate) const EXP_M1_NEAR: f32 = 0.25;

/// e^x − 1 − x for |x| ≤ [`EXP_M1_NEAR`]: error ≤ 8 ulp (test `exp_m1_error_bounds`).
#[inline(always)]
pub(crate) fn exp_m1_beyond_linear<S: Simd>(s: S, x: S::V) -> S::V {
    let p = s.fma(s.splat(1.0 / 720.0), x, s.splat(1.0 / 120.0));
    let p = s.fma(p, x, s.splat(1.0 / 24.0));
    let p = s.fma(p, x, s.splat(1.0 / 6.0));
    let p = s.fma(p, x, s.splat(0.5));
    s.mul(s.mul(p, x), x)
}

/// e^x − 1 for x ≤ 88, NaN for NaN: error ≤ 8 ulp (test `exp_m1_error_bounds`).
#[inline(always)]
pub(crate) fn exp_m1<S: Simd>(s: S, x: S::V) -> S::V {
    let near = s.splat(EXP_M1_NEAR);
    // Whatever the series makes of what is not near is not used.
    let small = s.add(x, exp_m1_beyond_linear(s, x));
    let far = s.sub(exp_nonpositive(s, x), s.splat(1.0));
    s.select_lt(s.abs(x), near, small, far)
}

/// (e^r − 1 − r)/r² on |r| ≤ ln2/2: degree 4, minimax in the relative error of e^r − 1 (1.6e-8).
const BEYOND: [f32; 5] = [0.5, 0.166_665_43, 0.041_666_284, 0.008_366_572, 0.001_394_642_6];

/// 1 − e^−t for t ≥ 0, NaN for NaN, as no difference of near numbers: error ≤ 3 ulp (test
/// `exp_m1_error_bounds`).
#[inline(always)]
pub(crate) fn one_minus_exp<S: Simd>(s: S, t: S::V) -> S::V {
    let (zero, one) = (s.splat(0.0), s.splat(1.0));
    // min returns its second operand for NaN.
    let t = s.min(s.splat(-EXP_LOWEST), t);
    let biased = s.fma(t, s.splat(-std::f32::consts::LOG2_E), s.splat(ROUND_TO_EXPONENT));
    let n = s.sub(biased, s.splat(ROUND_TO_EXPONENT));
    // −t = n·ln2 + r; what follows takes −r, and makes 1 − e^r.
    let r = s.fma(n, s.splat(std::f32::consts::LN_2), t);
    let p = s.fma(s.splat(BEYOND[4]), r, s.splat(-BEYOND[3]));
    let p = s.fma(p, r, s.splat(BEYOND[2]));
    let p = s.fma(p, r, s.splat(-BEYOND[1]));
    let p = s.fma(p, r, s.splat(BEYOND[0]));
    let p = s.fma(s.mul(r, s.sub(zero, r)), p, r);
    let power = s.low_bits_to_exponent(biased);
    s.fma(p, power, s.sub(one, power))
}

/// c·tanh(u) and 1 − tanh²(u), neither by a difference of near numbers; `line` is c·u, which may
/// have digits that u has lost to its range.
///
/// With q = e^(−2|u|): tanh = (1 − q)/(1 + q) from |u| = 0.625 on, an odd polynomial below;
/// 1 − tanh² = 4q/(1 + q)². Relative error ≤ 6 ulp each (test `tanh_error_bounds`).
#[inline(always)]
pub(crate) fn soft_cap<S: Simd>(s: S, u: S::V, line: S::V, cap: S::V) -> (S::V, S::V) {
    let one = s.splat(1.0);
    let size = s.abs(u);
    let q = exp_nonpositive(s, s.mul(size, s.splat(-2.0)));
    let rest = s.div(one, s.add(one, q));
    let slope = s.mul(s.mul(s.splat(4.0), q), s.mul(rest, rest));
    let large = s.mul(s.mul(s.sub(one, q), rest), cap);
    let large = s.select_lt(u, s.splat(0.0), s.sub(s.splat(0.0), large), large);
    // tanh(u) ≈ u + u³·T(u²), |u| < 0.625: minimax coefficients of the classic Cephes tanhf.
    let u2 = s.mul(u, u);
    let t = s.fma(s.splat(-5.704_989e-3), u2, s.splat(2.063_909e-2));
    let t = s.fma(t, u2, s.splat(-5.373_971_5e-2));
    let t = s.fma(t, u2, s.splat(0.133_314_42));
    let t = s.fma(t, u2, s.splat(-0.333_332_8));
    let small = s.fma(s.mul(t, u2), line, line);
    (s.select_lt(size, s.splat(0.625), small, large), slope)
}
