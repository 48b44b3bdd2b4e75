//! How far a result may be from the reference.
//!
//! | result | allowed error |
//! |---|---|
//! | f32 losses, lse, log-probabilities | 2e-6·(1 + s), s = Σ\|terms\| / denominator |
//! | f32 gradients | 1e-5·\|ref\| + 1e-6·max\|ref\| |
//! | what passes a product | 2e-5·s, s = Σ\|terms\| of the products as well |
//! | f16, bf16 results | one unit in the last place on top: 2^-10·\|ref\| or 2^-7·\|ref\|, and 2^-24 for f16 subnormals |
//!
//! Results below the smallest normal f32 may come as 0. NaN and infinities agree only in place and
//! sign. A finite reference allows the infinity that something within its tolerance rounds to; and
//! where s is beyond f32 sums may leave it on their way, and come as infinities and NaN.

use crate::base::dtype::DType;
use half::{bf16, f16};
use std::fmt;

/// The element that comes closest to its allowed error, or passes it by most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worst {
    /// Which element, row-major without padding.
    pub index: usize,
    /// What the reference says.
    pub expected: f64,
    /// What came.
    pub got: f64,
    /// |got − expected|; +∞ where one of them is NaN or infinite and the other is not the same.
    pub error: f64,
    /// How large the error may be.
    pub allowed: f64,
}

impl Worst {
    const NONE: Worst = Worst { index: 0, expected: 0.0, got: 0.0, error: 0.0, allowed: 0.0 };

    /// Whether every element is within its tolerance.
    pub fn agrees(&self) -> bool {
        self.error <= self.allowed
    }

    /// The error as a share of what is allowed: 1 is the limit.
    pub fn share(&self) -> f64 {
        match self.error {
            0.0 => 0.0,
            error => error / self.allowed,
        }
    }
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Worst { index, expected, got, error, allowed } = self;
        write!(f, "element {index}: expected {expected:e}, got {got:e} ")?;
        write!(f, "(error {error:.2e}, allowed {allowed:.2e})")
    }
}

/// Compares losses, log-sum-exps or log-probabilities; `size` is s of the table above, element by
/// element (|expected| where a result is one term).
///
/// # Panics
/// Where the lengths differ.
pub fn losses(dtype: DType, got: &[f64], expected: &[f64], size: &[f64]) -> Worst {
    assert_eq!(expected.len(), size.len(), "elements and their sizes");
    worst(dtype, (got, expected, size), |_, size| 2e-6 * (1.0 + size))
}

/// Compares gradients.
///
/// # Panics
/// Where the lengths differ.
pub fn gradients(dtype: DType, got: &[f64], expected: &[f64]) -> Worst {
    summed_gradients(dtype, got, expected, expected)
}

/// Compares gradients that are sums of terms, of one sign or not: each may also err by 1e-6 of the
/// largest Σ|terms|, which is `size` for each.
///
/// # Panics
/// Where the lengths differ.
pub fn summed_gradients(dtype: DType, got: &[f64], expected: &[f64], size: &[f64]) -> Worst {
    assert_eq!(expected.len(), size.len(), "elements and their sizes");
    let known = expected.iter().chain(size).map(|e| e.abs()).filter(|&e| !is_far(e));
    let largest = known.fold(0.0, f64::max);
    let f32_relative = if dtype == DType::F32 { 1e-5 } else { 0.0 };
    let base = |expected: f64, _| f32_relative * expected.abs() + 1e-6 * largest;
    worst(dtype, (got, expected, size), base)
}

/// Compares what passes products of matrices, `size` for each.
///
/// # Panics
/// Where the lengths differ.
pub fn products(dtype: DType, got: &[f64], expected: &[f64], size: &[f64]) -> Worst {
    assert_eq!(expected.len(), size.len(), "elements and their sizes");
    worst(dtype, (got, expected, size), |_, size| 2e-5 * size)
}

/// `sizes` where every result is one term.
pub fn sizes(expected: &[f64]) -> Vec<f64> {
    expected.iter().map(|e| e.abs()).collect()
}

/// `base` is the tolerance of an expected value and its size, but for the result's rounding.
fn worst(
    dtype: DType,
    (got, expected, size): (&[f64], &[f64], &[f64]),
    base: impl Fn(f64, f64) -> f64,
) -> Worst {
    assert_eq!(got.len(), expected.len(), "elements of a result and of its reference");
    let (relative, absolute) = rounding(dtype);
    let mut worst = Worst::NONE;
    for (index, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let size = size[index].abs();
        let within = if is_far(size) { LARGEST } else { size };
        let allowed = base(expected, within) + relative * expected.abs() + absolute;
        let agree = got == expected
            || (got.is_nan() && expected.is_nan())
            || (got.is_infinite() && got == rounded(dtype, expected + allowed.copysign(got)))
            || (LARGEST < size && size.is_finite() && !(got.is_finite() && expected.is_finite()));
        let error = match (got - expected).abs() {
            _ if agree => 0.0,
            error if error.is_finite() => error,
            _ => f64::INFINITY,
        };
        // An infinite reference has an infinite `allowed`, which must excuse nothing.
        let allowed = if expected.is_finite() { allowed } else { 0.0 };
        let one = Worst { index, expected, got, error, allowed };
        if index == 0 || one.share() > worst.share() {
            worst = one;
        }
    }
    worst
}

/// One unit in the last place, relative; and the step between subnormals that matter.
fn rounding(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F16 => (2f64.powi(-10), 2f64.powi(-24)),
        DType::BF16 => (2f64.powi(-7), SMALLEST),
        DType::F32 | DType::I64 | DType::I32 | DType::U32 | DType::U8 => (0.0, SMALLEST),
    }
}

/// The size of what has a term that may be infinite on its way, though its value is not: many of them
/// add up, and are divided.
pub const FAR: f64 = 1e200;

fn is_far(size: f64) -> bool {
    size > 1e120
}

/// The largest f32.
const LARGEST: f64 = f32::MAX as f64;

/// The smallest normal f32: what underflows may come as 0.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64;

fn rounded(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F16 => f16::from_f64(value).to_f64(),
        DType::BF16 => bf16::from_f64(value).to_f64(),
        DType::F32 | DType::I64 | DType::I32 | DType::U32 | DType::U8 => f64::from(value as f32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_beyond_the_tolerance_are_found_where_they_are() {
        let expected = [1.0, -2.0, 0.0];
        assert!(
            losses(DType::F32, &[1.000_003, -2.0, 1e-6], &expected, &sizes(&expected)).agrees()
        );
        let bad = losses(DType::F32, &[1.0, -2.000_01, 1e-6], &expected, &sizes(&expected));
        assert!(!bad.agrees() && bad.index == 1, "{bad}");
        let bad = gradients(DType::F32, &[1.0, -2.0, 3e-6], &expected);
        assert!(!bad.agrees() && bad.index == 2, "{bad}");
        assert!(gradients(DType::BF16, &[1.007, -2.0, 0.0], &expected).agrees());
        assert!(!gradients(DType::F16, &[1.007, -2.0, 0.0], &expected).agrees());
    }

    #[test]
    fn nan_and_infinities_agree_in_place_and_sign_only() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let agree = |got: f64, expected: f64| {
            losses(DType::F32, &[got], &[expected], &[expected.abs()]).agrees()
                && gradients(DType::F32, &[got], &[expected]).agrees()
        };
        assert!(agree(nan, nan) && agree(inf, inf) && agree(-inf, -inf));
        for (a, b) in [(nan, 0.0), (inf, -inf), (nan, inf), (0.0, inf), (1e30, -inf)] {
            assert!(!agree(a, b) && !agree(b, a), "{a} and {b}");
        }
        assert!(agree(inf, 1e39), "1e39 rounds to infinity in f32");
        assert!(!agree(inf, 1e38) && !agree(-inf, 3.4e38));
        let left = |got| losses(DType::F32, &[got], &[1e38], &[4e38]).agrees();
        assert!(left(inf) && left(nan) && left(1e38) && !left(2e38));
        let far = |got| losses(DType::F32, &[got], &[1e30], &[FAR]).agrees();
        assert!(far(-inf) && far(nan) && far(1e30) && !far(1e34));
    }

    #[test]
    fn an_empty_result_agrees_with_an_empty_reference() {
        assert!(gradients(DType::F32, &[], &[]).agrees());
    }
}
