//! Squared error with straight ends.

use super::elementwise::{Element, Point, sign};

/// d²/2 up to δ, δ·(|d| − δ/2) beyond.
pub fn huber(delta: f32, at: Point) -> Element {
    let (d, delta) = (at.difference(), f64::from(delta));
    let (value, slope) = match d.abs() {
        size if size.is_nan() => (size, size),
        size if size <= delta => (d * d / 2.0, d),
        size => (delta * (size - delta / 2.0), delta * sign(d)),
    };
    Element::of_difference(at.v, value, slope)
}
