//! Jensen–Shannon divergence of log-probabilities.

use super::elementwise::{Element, Point, in_f32_range, vanishes};
use super::kl_div::kl_div;

/// (1 − β)·e^x·(x − ln M) + β·e^y·(y − ln M), with M the mixture; at the ends of β a Kullback–Leibler
/// divergence, of either from the other.
pub fn js_div(beta: f32, at: Point) -> Element {
    if beta == 0.0 {
        return kl_div(true, at);
    }
    let Point { x, y, v, .. } = at;
    if beta == 1.0 {
        let e = kl_div(true, Point { x: y, y: x, ..at });
        let [grad_x, grad_x_size] = [e.grad_y, e.grad_y_size];
        return Element { grad_x, grad_x_size, grad_y: e.grad_x, grad_y_size: e.grad_x_size, ..e };
    }
    let [grad_x, grad_y] = js_slopes(beta, x, y);
    Element {
        value: v * (grad_x + grad_y),
        value_size: v.abs() * (grad_x.abs() + grad_y.abs()),
        grad_x,
        grad_x_size: grad_x.abs(),
        grad_y,
        grad_y_size: grad_y.abs(),
        no_grad_y: false,
    }
}

/// Slopes of the Jensen–Shannon divergence of log-probabilities x and y, which add up to it.
pub(super) fn js_slopes(beta: f32, x: f64, y: f64) -> [f64; 2] {
    let (own, other) = (1.0 - f64::from(beta), f64::from(beta));
    let kl = |x: f64, y: f64| {
        let (p, distance) = (y.exp(), y - x);
        let product = if distance.is_infinite() { distance } else { p * (distance + 1.0) };
        [-p, if y == f64::NEG_INFINITY { 0.0 } else { product }]
    };
    if beta == 0.0 {
        return kl(x, y);
    }
    if beta == 1.0 {
        let [at_y, at_x] = kl(y, x);
        return [at_x, at_y];
    }
    if x.is_nan() || y.is_nan() {
        return [f64::NAN; 2];
    }
    let distance = in_f32_range(x - y);
    // ln M less the larger of x and y.
    let lesser = if distance > 0.0 { other } else { own };
    let mixture = (lesser * (-distance.abs()).exp_m1()).ln_1p();
    let at_x = if distance > 0.0 { -mixture } else { -mixture + distance };
    let at_y = if distance > 0.0 { -mixture - distance } else { -mixture };
    // A probability of 0, as f32 has it, silences its distance.
    let of = |weight: f64, z: f64, distance: f64| match in_f32_range(z.exp()) {
        p if vanishes(p) => 0.0,
        p => in_f32_range(weight * p * distance),
    };
    [of(own, x, at_x), of(other, y, at_y)]
}
