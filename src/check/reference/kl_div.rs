//! Kullback–Leibler divergence of a target from log-probabilities.

use super::elementwise::{Element, Point, in_f32_range};

/// y·(ln y − x); of a target of logarithms e^y·(y − x).
pub fn kl_div(log_target: bool, at: Point) -> Element {
    if log_target { of_logarithms(at) } else { of_probabilities(at) }
}

fn of_probabilities(at: Point) -> Element {
    let Point { x, y, v, .. } = at;
    let ln = y.ln();
    let silent = y == 0.0 && x == f64::NEG_INFINITY;
    let entropy = if y == 0.0 { 0.0 } else { y * ln };
    let value = match (silent, y == 0.0) {
        (true, _) => 0.0,
        (_, true) => -y * x,
        _ => y * (ln - x),
    };
    Element {
        value: v * value,
        value_size: if silent { 0.0 } else { entropy.abs() + (y * x).abs() },
        grad_x: -y,
        grad_x_size: y.abs(),
        grad_y: if y == 0.0 { f64::NAN } else { ln + 1.0 - x },
        grad_y_size: ln.abs() + 1.0 + x.abs(),
        no_grad_y: y < 0.0,
    }
}

fn of_logarithms(at: Point) -> Element {
    let Point { x, y, v, .. } = at;
    let (p, distance) = (in_f32_range(y.exp()), y - x);
    let silent = y == f64::NEG_INFINITY && !x.is_nan();
    let product = |more: f64| match distance {
        _ if silent => 0.0,
        // Whether e^y underflows or not.
        _ if distance.is_infinite() => distance,
        // Whether e^y overflows or not.
        _ if distance + more == 0.0 => 0.0,
        _ => p * (distance + more),
    };
    let size = if silent { 0.0 } else { p * (y.abs() + x.abs() + 1.0) };
    Element {
        value: v * in_f32_range(product(0.0)),
        value_size: size,
        grad_x: -p,
        grad_x_size: p,
        grad_y: in_f32_range(product(1.0)),
        grad_y_size: size,
        no_grad_y: false,
    }
}
