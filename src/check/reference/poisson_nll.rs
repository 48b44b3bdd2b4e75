//! Negative log-likelihood of a Poisson distribution.

use super::elementwise::{Element, Point, in_f32_range};
use std::f64::consts::TAU;

/// e^x − x·y, or x − y·ln(x + ε) of a rate; with Stirling's terms of ln y! where they are wanted.
pub fn poisson_nll(log_input: bool, full: bool, eps: f32, at: Point) -> Element {
    let Point { x, y, v, .. } = at;
    // The rate, what its logarithm is taken of, and that.
    let (rate, shifted, ln) = match log_input {
        true => (in_f32_range(x.exp()), 1.0, x),
        false => (x, x + f64::from(eps), (x + f64::from(eps)).ln()),
    };
    let product = if y == 0.0 && ln.is_infinite() { 0.0 } else { in_f32_range(y * ln) };
    let (stirling, slope) = match full && y > 1.0 {
        true => (y * (y.ln() - 1.0) + 0.5 * (TAU * y).ln(), y.ln() + 0.5 / y),
        false => (0.0, 0.0),
    };
    let stirling = in_f32_range(stirling);
    let quotient = match log_input {
        _ if y == 0.0 && shifted == 0.0 => 0.0,
        true => y,
        false => in_f32_range(y / shifted),
    };
    let up = if log_input { rate } else { 1.0 };
    Element {
        value: v * in_f32_range(in_f32_range(rate - product) + stirling),
        value_size: v.abs() * (rate.abs() + product.abs() + stirling + y.abs()),
        grad_x: up - quotient,
        grad_x_size: up.abs() + quotient.abs(),
        grad_y: slope - ln,
        grad_y_size: slope + ln.abs(),
        no_grad_y: false,
    }
}
