//! The normal distribution's negative log-likelihood.

use super::elementwise::{Element, Point, in_f32_range};

/// x − y, max(r, ε), and (x − y)/max(r, ε) as f32 has it.
fn parts(eps: f32, at: Point) -> (f64, f64, f64) {
    let v = if at.r < f64::from(eps) { f64::from(eps) } else { at.r };
    let d = at.difference();
    (d, v, in_f32_range(d / v))
}

/// ½·(ln v + d²/v), with ½·ln 2π if it is wanted, v = max(r, ε).
pub fn gaussian_nll(eps: f32, full: bool, at: Point) -> Element {
    let (d, v, slope) = parts(eps, at);
    let constant = if full { 0.5 * std::f64::consts::TAU.ln() } else { 0.0 };
    Element {
        value: at.v * in_f32_range(0.5 * (v.ln() + d * slope) + constant),
        value_size: (at.v * (0.5 * (v.ln().abs() + (d * slope).abs()) + constant)).abs(),
        grad_x: slope,
        grad_x_size: slope.abs(),
        grad_y: -slope,
        grad_y_size: slope.abs(),
        no_grad_y: false,
    }
}

/// ½·(1/v − d²/v²), and Σ|terms| of it.
pub fn gaussian_nll_slope(eps: f32, at: Point) -> [f64; 2] {
    let (d, v, slope) = parts(eps, at);
    let square = in_f32_range(d * slope);
    [0.5 * in_f32_range((1.0 - square) / v), 0.5 * (1.0 + square) / v]
}
