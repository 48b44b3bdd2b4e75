//! Distances, small or beyond a margin.

use super::elementwise::{Element, Point};

/// x unless y is −1, and max(0, margin − x) unless y is 1.
pub fn hinge_embedding(margin: f32, at: Point) -> Element {
    let Point { x, y, v, .. } = at;
    let left = f64::from(margin) - x;
    let (alike, apart) = (y != -1.0, y != 1.0);
    let pull = if alike { x } else { 0.0 };
    // f64::max would pass over a NaN.
    let push = match (apart, left <= 0.0) {
        (true, false) => left,
        _ => 0.0,
    };
    let slope = f64::from(u8::from(alike)) - f64::from(u8::from(apart && left > 0.0));
    Element {
        value: v * (push + pull),
        value_size: v.abs() * (push.abs() + pull.abs()),
        grad_x: slope,
        grad_x_size: slope.abs(),
        grad_y: 0.0,
        grad_y_size: 0.0,
        no_grad_y: false,
    }
}
