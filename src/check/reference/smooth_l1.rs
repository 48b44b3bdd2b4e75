//! Absolute error with a squared middle.

use super::elementwise::{Element, Point, sign};
use super::l1::l1;

/// d² / 2β below β, |d| − β/2 beyond.
pub fn smooth_l1(beta: f32, at: Point) -> Element {
    if beta == 0.0 {
        return l1(at);
    }
    let (d, beta) = (at.difference(), f64::from(beta));
    let (value, slope) = match d.abs() {
        size if size.is_nan() => (size, size),
        size if size < beta => (d * d / (2.0 * beta), d / beta),
        size => (size - beta / 2.0, sign(d)),
    };
    Element::of_difference(at.v, value, slope)
}
