//! e^(s·x) of numbers x of 16 bits, relative to a power of two, with a stated error bound.

use crate::cpu::simd::vector::Simd;

/// What [`Powers`] can be made for: beyond, x·rate has no digits behind the point.
const FARTHEST: f32 = 3e4;
/// x·rate of what is as good as −∞: below every other by more than f32's exponents.
const LOWEST: f32 = -9e4;
/// How far x·rate may lie below that of the largest and have a power that is a normal number.
const SPAN: f32 = 120.0;

/// 2^r ≈ 1 + r·(c1 + r·(c2 + …)), minimax in relative error: on |r| ≤ 1/64 (5.3e-8) and on |r| ≤ ½
/// (1.1e-7).
const NEAR: [f32; 2] = [0.693_157_4, 0.240_226_5];
const FAR: [f32; 5] =
    [std::f32::consts::LN_2 - 1.8e-7, 0.240_222_41, 0.055_507_347, 0.009_671_566, 0.001_326_465_9];

/// The rate and the power of two that a stretch's exponentials are relative to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    /// s·log2(e).
    rate: f32,
    /// The whole number next to the largest x times the rate.
    exponent: f32,
}

impl Unit {
    /// For numbers up to `largest`, which is finite; none where f32 has not the digits.
    pub(crate) fn new(scale: f32, largest: f32) -> Option<Unit> {
        let rate = (f64::from(scale) * std::f64::consts::LOG2_E) as f32;
        let at_largest = largest * rate;
        // Not beyond what LOWEST may be divided by.
        let fits = at_largest.abs() <= FARTHEST && (1e-30..=1e30).contains(&rate);
        fits.then_some(Unit { rate, exponent: at_largest.round_ties_even() })
    }

    /// The power of two.
    pub(crate) fn exponent(self) -> f32 {
        self.exponent
    }

    /// Whether numbers from `least` to `largest` have powers that are normal numbers.
    pub(crate) fn spans(self, least: f32, largest: f32) -> bool {
        (largest - least) * self.rate <= SPAN
    }

    /// Whether a sum of powers has all its digits where `own` is the largest of what it is the sum of.
    pub(crate) fn reaches(self, own: f32, largest: f32) -> bool {
        (largest - own) * self.rate <= SPAN / 2.0
    }
}

/// 2^n of a whole number n ≤ 0, or 0.
pub(crate) fn power_of_two(n: f32) -> f64 {
    let biased = 1023.0 + n;
    f64::from_bits(if biased > 0.0 { (biased as u64) << 52 } else { 0 })
}

/// e^(s·x)/2^exponent.
///
/// x·rate = n + r with n the nearest multiple of 1/[`Simd::STEPS`], and r rounded once, as both come
/// from x itself. Over the power of the largest, which is next to 1, the error is ≤ 4 ulp and 2 more for
/// each 1 of s·(largest − x), by which the rounded rate is off (test `power_error_bounds`).
#[derive(Clone, Copy)]
pub(crate) struct Powers<V> {
    rate: V,
    round: V,
    /// x of [`LOWEST`].
    least: V,
    /// What `round` makes of an x that has a power of 0.
    none: V,
    c: [V; 5],
}

impl<V: Copy> Powers<V> {
    #[inline(always)]
    pub(crate) fn new<S: Simd<V = V>>(s: S, unit: Unit) -> Self {
        let [near, far] = [[NEAR[0], NEAR[1], 0.0, 0.0, 0.0], FAR];
        let c = if S::STEPS > 1.0 { near } else { far };
        Powers {
            rate: s.splat(unit.rate),
            round: s.splat(S::ROUND - unit.exponent),
            least: s.splat(LOWEST / unit.rate),
            none: s.splat(S::ROUND - 127.0),
            c: [s.splat(c[0]), s.splat(c[1]), s.splat(c[2]), s.splat(c[3]), s.splat(c[4])],
        }
    }

    /// Of any x up to the largest; NaN for NaN, 0 for −∞. Without `ANY` x is one of those that
    /// [`Unit::spans`] has heard of.
    #[inline(always)]
    pub(crate) fn of<S: Simd<V = V>, const ANY: bool>(&self, s: S, x: V) -> V {
        // max returns its second operand for NaN.
        let x = if ANY { s.max(self.least, x) } else { x };
        let rounded = s.fma(x, self.rate, self.round);
        let r = s.fma(x, self.rate, s.sub(self.round, rounded));
        // An r that is not small only meets a power of 0.
        let power = s.power(if ANY { s.max(self.none, rounded) } else { rounded });
        let [c1, c2, c3, c4, c5] = self.c;
        let p = match S::STEPS > 1.0 {
            true => s.fma(c2, r, c1),
            false => s.fma(s.fma(s.fma(s.fma(c5, r, c4), r, c3), r, c2), r, c1),
        };
        s.fma(power, s.mul(p, r), power)
    }
}
