//! The logistic loss of labels −1 and 1.

use super::elementwise::{Element, LOST, Point, in_f32_range, softplus};

/// softplus(w) of w = −x·y.
pub fn soft_margin(at: Point) -> Element {
    let Point { x, y, v, .. } = at;
    let w = in_f32_range(-x * y);
    let sigma = 1.0 / (1.0 + (-w).exp());
    Element {
        value: v * softplus(w),
        value_size: (v * softplus(w)).abs(),
        grad_x: -y * sigma,
        grad_x_size: y.abs() * (sigma + LOST),
        grad_y: -x * sigma,
        grad_y_size: x.abs() * (sigma + LOST),
        no_grad_y: false,
    }
}
