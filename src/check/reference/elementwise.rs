//! Losses of one element of the input and one of the target.

use crate::base::reduction::Reduction;

/// Which loss, with PyTorch's options.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ElementLoss {
    /// [`crate::Mse`].
    Mse,
    /// [`crate::L1`].
    L1,
    /// [`crate::SmoothL1`].
    SmoothL1 {
        /// Where the square ends.
        beta: f32,
    },
    /// [`crate::Huber`].
    Huber {
        /// Where the square ends.
        delta: f32,
    },
    /// [`crate::BceWithLogits`].
    BceWithLogits,
    /// [`crate::KlDiv`].
    KlDiv {
        /// Whether the target holds logarithms.
        log_target: bool,
    },
    /// [`crate::JsDiv`].
    JsDiv {
        /// The target's share.
        beta: f32,
    },
}

/// A tensor without padding.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// Its shape.
    pub shape: &'a [usize],
    /// Its elements, row-major.
    pub data: &'a [f64],
}

/// A call of an elementwise loss.
#[derive(Debug, Clone, Copy)]
pub struct ElementwiseCall<'a> {
    /// Which loss.
    pub loss: ElementLoss,
    /// How elements become the result.
    pub reduction: Reduction,
    /// The input.
    pub input: Values<'a>,
    /// The target.
    pub target: Values<'a>,
    /// Element weights.
    pub weight: Option<Values<'a>>,
    /// Weights of the positive part.
    pub pos_weight: Option<Values<'a>>,
    /// One number, or one for each element of the broadcast shape.
    pub grad_output: &'a [f64],
}

/// What an elementwise loss should give; of each number the size of its terms, Σ|terms|, too.
#[derive(Debug, Clone, Default)]
pub struct ElementwiseReference {
    /// One loss, or one for each element.
    pub loss: Vec<f64>,
    /// Sizes of `loss`.
    pub loss_size: Vec<f64>,
    /// In the input's order.
    pub grad_input: Vec<f64>,
    /// Sizes of `grad_input`.
    pub grad_input_size: Vec<f64>,
    /// In the target's order.
    pub grad_target: Vec<f64>,
    /// Sizes of `grad_target`.
    pub grad_target_size: Vec<f64>,
}

/// The shape that two shapes broadcast to.
///
/// # Panics
/// Where they do not.
pub fn broadcast(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let size = |shape: &[usize], d: usize| match (d + shape.len()).checked_sub(rank) {
        Some(own) => shape[own],
        None => 1,
    };
    let both = |d| match (size(a, d), size(b, d)) {
        (1, n) | (n, 1) => n,
        (n, m) if n == m => n,
        (n, m) => panic!("sizes {n} and {m} of {a:?} and {b:?}"),
    };
    (0..rank).map(both).collect()
}

/// For each index of `result`, row-major, the element of a tensor of `shape` that serves it.
fn elements(shape: &[usize], result: &[usize]) -> Vec<usize> {
    let mut all = vec![0];
    for (d, &size) in result.iter().enumerate() {
        let own = (d + shape.len()).checked_sub(result.len()).map_or(1, |own| shape[own]);
        let step = |at: usize| (0..size).map(move |i| at * own + if own == 1 { 0 } else { i });
        all = all.iter().flat_map(|&at| step(at)).collect();
    }
    all
}

/// A loss and its gradients.
///
/// # Panics
/// Where the engine returns an error for shapes, this may panic.
pub fn elementwise(call: &ElementwiseCall<'_>) -> ElementwiseReference {
    let shape = broadcast(call.input.shape, call.target.shape);
    let count: usize = shape.iter().product();
    let [at_x, at_y] = [call.input.shape, call.target.shape].map(|s| elements(s, &shape));
    let spread = |weight: Option<Values<'_>>| match weight {
        Some(w) => elements(w.shape, &shape).iter().map(|&i| w.data[i]).collect(),
        None => vec![1.0; count],
    };
    let (v, r) = (spread(call.weight), spread(call.pos_weight));
    let divides =
        matches!(call.loss, ElementLoss::Mse | ElementLoss::L1 | ElementLoss::SmoothL1 { .. });
    let by_weights = call.reduction == Reduction::Mean && call.weight.is_some() && divides;
    let denominator = match call.reduction {
        Reduction::None | Reduction::Sum => 1.0,
        Reduction::Mean if by_weights => v.iter().sum(),
        Reduction::Mean => count as f64,
        Reduction::BatchMean => call.input.shape.first().map_or(1.0, |&n| n as f64),
    };
    // No denominator, no mean: 0/0 makes everything NaN.
    let denominator = if denominator == 0.0 { f64::NAN } else { denominator };

    let n = (call.input.data.len(), call.target.data.len());
    let mut result = ElementwiseReference {
        grad_input: vec![0.0; n.0],
        grad_input_size: vec![0.0; n.0],
        grad_target: vec![0.0; n.1],
        grad_target_size: vec![0.0; n.1],
        ..Default::default()
    };
    for i in 0..count {
        let (x, y) = (call.input.data[at_x[i]], call.target.data[at_y[i]]);
        let g = call.grad_output[if call.grad_output.len() == 1 { 0 } else { i }];
        let one = element(call.loss, x, y, v[i], r[i]);
        let factor = g / denominator * v[i];
        // Where the mean divides by the weights, their common factor is nowhere.
        result.loss.push(if by_weights { one.value } else { in_f32_range(one.value) });
        result.loss_size.push(one.value_size);
        let (dx, dy) = (one.grad_x * factor, one.grad_y * factor);
        result.grad_input[at_x[i]] += dx;
        result.grad_input_size[at_x[i]] += (one.grad_x_size * factor).abs();
        // A probability below 0 has no logarithm, which nobody asked for where g = 0.
        let silent = matches!(call.loss, ElementLoss::KlDiv { log_target: false });
        result.grad_target[at_y[i]] += if silent && y < 0.0 && factor == 0.0 { 0.0 } else { dy };
        result.grad_target_size[at_y[i]] += (one.grad_y_size * factor).abs();
    }
    if call.reduction != Reduction::None {
        let reduce = |values: &[f64], d: f64| vec![values.iter().sum::<f64>() / d];
        result.loss = reduce(&result.loss, denominator);
        result.loss_size = reduce(&result.loss_size, denominator.abs());
    }
    result
}

/// One element: v·ℓ, the slopes of ℓ, and the sizes of the terms of each.
struct Element {
    value: f64,
    value_size: f64,
    grad_x: f64,
    grad_x_size: f64,
    grad_y: f64,
    grad_y_size: f64,
}

fn element(loss: ElementLoss, x: f64, y: f64, v: f64, r: f64) -> Element {
    let d = in_f32_range(x - y);
    // Value and slope of a loss of d alone.
    let of_difference = |value: f64, slope: f64| Element {
        value: v * in_f32_range(value),
        value_size: (v * value).abs(),
        grad_x: slope,
        grad_x_size: slope.abs(),
        grad_y: -slope,
        grad_y_size: slope.abs(),
    };
    match loss {
        ElementLoss::Mse => of_difference(d * d, 2.0 * d),
        ElementLoss::L1 => of_difference(d.abs(), sign(d)),
        ElementLoss::SmoothL1 { beta: 0.0 } => of_difference(d.abs(), sign(d)),
        ElementLoss::SmoothL1 { beta } => {
            let beta = f64::from(beta);
            match d.abs() {
                size if size.is_nan() => of_difference(size, size),
                size if size < beta => of_difference(d * d / (2.0 * beta), d / beta),
                size => of_difference(size - beta / 2.0, sign(d)),
            }
        }
        ElementLoss::Huber { delta } => {
            let delta = f64::from(delta);
            match d.abs() {
                size if size.is_nan() => of_difference(size, size),
                size if size <= delta => of_difference(d * d / 2.0, d),
                size => of_difference(delta * (size - delta / 2.0), delta * sign(d)),
            }
        }
        ElementLoss::BceWithLogits => {
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
            }
        }
        ElementLoss::KlDiv { log_target: false } => {
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
            }
        }
        ElementLoss::KlDiv { log_target: true } => {
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
            }
        }
        ElementLoss::JsDiv { beta: 0.0 } => {
            element(ElementLoss::KlDiv { log_target: true }, x, y, v, r)
        }
        ElementLoss::JsDiv { beta: 1.0 } => {
            let e = element(ElementLoss::KlDiv { log_target: true }, y, x, v, r);
            let [grad_x, grad_x_size] = [e.grad_y, e.grad_y_size];
            Element { grad_x, grad_x_size, grad_y: e.grad_x, grad_y_size: e.grad_x_size, ..e }
        }
        ElementLoss::JsDiv { beta } => {
            let [grad_x, grad_y] = js_slopes(beta, x, y);
            Element {
                value: v * (grad_x + grad_y),
                value_size: v.abs() * (grad_x.abs() + grad_y.abs()),
                grad_x,
                grad_x_size: grad_x.abs(),
                grad_y,
                grad_y_size: grad_y.abs(),
            }
        }
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

/// Whether f32 arithmetic may have a probability as 0: devices flush subnormal exponentials.
pub(super) fn vanishes(p: f64) -> bool {
    p < f64::from(f32::MIN_POSITIVE)
}

/// ±1, or 0 for 0 and for NaN.
fn sign(d: f64) -> f64 {
    if d > 0.0 {
        1.0
    } else if d < 0.0 {
        -1.0
    } else {
        0.0
    }
}

fn softplus(x: f64) -> f64 {
    if x.is_nan() { x } else { x.max(0.0) + (-x.abs()).exp().ln_1p() }
}

/// Coefficient times softplus; a coefficient that f32 has as 0 silences an infinite one.
fn term(coefficient: f64, softplus: f64) -> f64 {
    if coefficient as f32 == 0.0 && softplus == f64::INFINITY {
        0.0
    } else {
        coefficient * softplus
    }
}

/// `value`, or the infinity that it is in f32.
fn in_f32_range(value: f64) -> f64 {
    if (value as f32).is_infinite() { f64::INFINITY.copysign(value) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_element_serves_where_its_size_is_1() {
        assert_eq!(broadcast(&[4, 1], &[3]), [4, 3]);
        assert_eq!(elements(&[2, 1], &[2, 3]), [0, 0, 0, 1, 1, 1]);
        assert_eq!(elements(&[3], &[2, 3]), [0, 1, 2, 0, 1, 2]);
        assert_eq!(elements(&[], &[2]), [0, 0]);
        assert_eq!(elements(&[2, 3], &[2, 3]), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn squares_by_hand() {
        let call = ElementwiseCall {
            loss: ElementLoss::Mse,
            reduction: Reduction::Mean,
            input: Values { shape: &[2, 2], data: &[1.0, 2.0, 3.0, 4.0] },
            target: Values { shape: &[2], data: &[1.0, 4.0] },
            weight: None,
            pos_weight: None,
            grad_output: &[2.0],
        };
        let out = elementwise(&call);
        assert_eq!(out.loss, [2.0]);
        assert_eq!(out.grad_input, [0.0, -2.0, 2.0, 0.0]);
        assert_eq!(out.grad_target, [-2.0, 2.0]);
    }
}
