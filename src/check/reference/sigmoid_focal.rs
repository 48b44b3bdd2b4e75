//! Focal loss of logits.

use super::elementwise::{Element, LOST, Point, softplus, term};
use crate::check::compare::FAR;

/// α_y·u^γ·binary cross entropy, u the probability of what is not the target; α < 0: without α_y.
pub fn sigmoid_focal(alpha: f32, gamma: f32, at: Point) -> Element {
    let Point { x, y, v, .. } = at;
    let (weighs, alpha, gamma) = (alpha >= 0.0, f64::from(alpha), f64::from(gamma));
    let (sigma, rest) = (1.0 / (1.0 + (-x).exp()), 1.0 / (1.0 + x.exp()));
    let sum = |parts: [f64; 2]| (parts[0] + parts[1], parts[0].abs() + parts[1].abs());
    let [up, down] = [(1.0 - y) * sigma, y * rest];
    let (u, u_size) = sum([up, down]);
    // y·softplus(−x) + (1 − y)·softplus(x), whose coefficients have the sum 1.
    let (share, l) = (if x < 0.0 { y } else { 1.0 - y }, softplus(-x.abs()));
    let (entropy, entropy_size) = match share {
        0.0 => (l, l),
        _ => sum([share * x.abs(), l]),
    };
    let (alpha_y, alpha_size) = match weighs {
        true => sum([alpha * y, (1.0 - alpha) * (1.0 - y)]),
        false => (1.0, 1.0),
    };
    // u is a tail and nothing else.
    let sure = (y == 0.0 && x < 0.0) || (y == 1.0 && x >= 0.0);
    let power = |u: f64| match (gamma, sure) {
        _ if y.is_infinite() => f64::NAN,
        (0.0, _) => 1.0,
        (_, true) => (-gamma * softplus(x.abs())).exp(),
        (_, false) => u.powf(gamma),
    };
    // Terms of u that cancel, as they may of labels outside of [0, 1], leave their rounding.
    let strain = if sure || u == 0.0 { 1.0 } else { u_size / u.abs() };
    let power = power(u);
    let power_size = power.abs() * (1.0 + gamma * (strain - 1.0)) + LOST;
    let ratio = match sure && x.abs() > 40.0 {
        true => [1.0; 2],
        false => [entropy / u, entropy_size / u.abs() * strain],
    };
    let product = sigma * rest;
    let focus = ratio.map(|ratio| match gamma * product {
        0.0 => 0.0,
        share => share * (1.0 - 2.0 * y) * ratio,
    });
    let lean = if weighs { 2.0 * alpha - 1.0 } else { 0.0 };
    let [own, linear] = [term(lean, entropy), term(alpha_y, x)];
    // 1 − 2p.
    let pull = ratio.map(|ratio| match gamma * alpha_y {
        0.0 => 0.0,
        share => share * ratio * -(x / 2.0).tanh(),
    });
    let silenced = |a: f64, b: f64| if a == 0.0 { 0.0 } else { a * b };
    let sizes = term(lean.abs(), entropy_size) + term(alpha_size, x.abs()) + pull[1].abs();
    // Of finite numbers: what leaves f32 on its way.
    let beyond = |size: f64| x.is_finite() && y.is_finite() && size > f64::from(f32::MAX);
    let size = |parts: f64| match beyond(parts) || beyond(power_size * parts) {
        true => FAR,
        false => power_size * parts,
    };
    let slopes = u_size + focus[1].abs() + LOST;
    Element {
        value: v * term(alpha_y, term(power, entropy)),
        value_size: v.abs() * term(alpha_size, size(entropy_size)),
        grad_x: alpha_y * power * (up - down + focus[0]),
        grad_x_size: if beyond(gamma * slopes) { FAR } else { alpha_size * size(slopes) },
        grad_y: silenced(power, own - linear + pull[0]),
        grad_y_size: size(sizes),
        no_grad_y: false,
    }
}
