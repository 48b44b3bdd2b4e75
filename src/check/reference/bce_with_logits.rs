//! Binary cross entropy of logits.

use super::elementwise::{Element, Point, softplus, term};

/// r·y·softplus(−x) + (1 − y)·softplus(x).
pub fn bce_with_logits(at: Point) -> Element {
    let Point { x, y, v, r } = at;
    let (above, below) = (softplus(x), softplus(-x));
    let positive = term(v * r * y, below);
    let negative = term(v * (1.0 - y), above);
    let (sigma, rest) = (1.0 / (1.0 + (-x).exp()), 1.0 / (1.0 + x.exp()));
    let (up, down) = ((1.0 - y) * sigma, r * y * rest);
    let grad_y = match r {
        // softplus(−x) − softplus(x), which has no value at ±∞.
        1.0 => -x,
        _ => term(r, below) - above,
    };
    Element {
        value: positive + negative,
        value_size: positive.abs() + negative.abs(),
        grad_x: up - down,
        grad_x_size: up.abs() + down.abs(),
        grad_y,
        grad_y_size: if r == 1.0 { x.abs() } else { term(r, below).abs() + above },
        no_grad_y: false,
    }
}
