//! Binary cross entropy of probabilities.

use super::elementwise::{Element, Point, in_f32_range};

/// −y·max(ln x, −100) − (1 − y)·max(ln(1 − x), −100), of an x outside of [0, 1] NaN.
pub fn bce(at: Point) -> Element {
    let Point { x, y, v, .. } = at;
    let [yes, no] = [x.ln(), (-x).ln_1p()];
    // f64::max would pass over a NaN.
    let clamped = |ln: f64| if ln < -100.0 { -100.0 } else { ln };
    let [positive, negative] =
        [y * clamped(yes), (1.0 - y) * clamped(no)].map(|term| -in_f32_range(v * term));
    let slope = match (0.0..=1.0).contains(&x) {
        true => in_f32_range((x - y) / ((1.0 - x) * x).max(f64::from(1e-12_f32))),
        false => f64::NAN,
    };
    Element {
        value: positive + negative,
        value_size: positive.abs() + negative.abs(),
        grad_x: slope,
        grad_x_size: slope.abs(),
        grad_y: no - yes,
        grad_y_size: no.abs() + yes.abs(),
        no_grad_y: false,
    }
}
