//! Losses of one element of the input and one of the target.

use crate::base::reduction::Reduction;

/// A loss ℓ(x, y) with its options, word for word.
pub trait Formula {
    /// ℓ and its slopes.
    fn element(&self, at: Point) -> Element;

    /// ∂ℓ/∂r and Σ|terms| of it, of a loss that has a gradient of its third tensor.
    fn third_slope(&self, _: Point) -> Option<[f64; 2]> {
        None
    }

    /// Whether a mean divides by the weights' sum, and not by the number of elements.
    fn mean_divides_by_weights(&self) -> bool;
}

/// Where a loss is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// The input.
    pub x: f64,
    /// The target.
    pub y: f64,
    /// The element's weight.
    pub v: f64,
    /// The third number: a weight of the positive part, a variance.
    pub r: f64,
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
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations)] // A formula has none.
pub struct ElementwiseCall<'a> {
    /// Which loss.
    pub loss: &'a dyn Formula,
    /// How elements become the result.
    pub reduction: Reduction,
    /// The input.
    pub input: Values<'a>,
    /// The target.
    pub target: Values<'a>,
    /// Element weights.
    pub weight: Option<Values<'a>>,
    /// The third tensor; one that has a gradient may lack the last dimension.
    pub third: Option<Values<'a>>,
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
    /// In the third tensor's order, where there is one with a gradient.
    pub grad_third: Vec<f64>,
    /// Sizes of `grad_third`.
    pub grad_third_size: Vec<f64>,
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
    let v = spread(call.weight);
    let (at_r, r) = third(call, &shape);
    let divides = call.loss.mean_divides_by_weights();
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
        grad_third: vec![0.0; call.third.map_or(0, |third| third.data.len())],
        ..Default::default()
    };
    result.grad_third_size = result.grad_third.clone();
    for i in 0..count {
        let (x, y) = (call.input.data[at_x[i]], call.target.data[at_y[i]]);
        let g = call.grad_output[if call.grad_output.len() == 1 { 0 } else { i }];
        let point = Point { x, y, v: v[i], r: r[i] };
        let one = call.loss.element(point);
        let factor = g / denominator * v[i];
        // Where the mean divides by the weights, their common factor is nowhere.
        result.loss.push(if by_weights { one.value } else { in_f32_range(one.value) });
        result.loss_size.push(one.value_size);
        let (dx, dy) = (one.grad_x * factor, one.grad_y * factor);
        result.grad_input[at_x[i]] += dx;
        result.grad_input_size[at_x[i]] += (one.grad_x_size * factor).abs();
        // Nobody asked for it where g = 0.
        result.grad_target[at_y[i]] += if one.no_grad_y && factor == 0.0 { 0.0 } else { dy };
        result.grad_target_size[at_y[i]] += (one.grad_y_size * factor).abs();
        if let (Some(at), Some([slope, size])) = (at_r.get(i), call.loss.third_slope(point)) {
            result.grad_third[*at] += slope * factor;
            result.grad_third_size[*at] += (size * factor).abs();
        }
    }
    if call.loss.third_slope(Point { x: 0.0, y: 0.0, v: 1.0, r: 1.0 }).is_none() {
        (result.grad_third, result.grad_third_size) = (Vec::new(), Vec::new());
    }
    if call.reduction != Reduction::None {
        let reduce = |values: &[f64], d: f64| vec![values.iter().sum::<f64>() / d];
        result.loss = reduce(&result.loss, denominator);
        result.loss_size = reduce(&result.loss_size, denominator.abs());
    }
    result
}

/// Of each element the one of the third tensor that serves it, and its number; 1 without a tensor.
fn third(call: &ElementwiseCall<'_>, shape: &[usize]) -> (Vec<usize>, Vec<f64>) {
    let Some(third) = call.third else {
        return (Vec::new(), vec![1.0; shape.iter().product()]);
    };
    let mut own = third.shape.to_vec();
    let sloped = call.loss.third_slope(Point { x: 0.0, y: 0.0, v: 1.0, r: 1.0 }).is_some();
    if sloped && shape.split_last().is_some_and(|(_, outer)| outer == own) {
        own.push(1);
    }
    let at = elements(&own, shape);
    let numbers = at.iter().map(|&i| third.data[i]).collect();
    (at, numbers)
}

/// One element: v·ℓ, the slopes of ℓ, and the sizes of the terms of each.
#[derive(Debug, Clone, Copy, Default)]
pub struct Element {
    /// v·ℓ.
    pub value: f64,
    /// Σ|terms| of it.
    pub value_size: f64,
    /// ∂ℓ/∂x.
    pub grad_x: f64,
    /// Σ|terms| of it.
    pub grad_x_size: f64,
    /// ∂ℓ/∂y.
    pub grad_y: f64,
    /// Σ|terms| of it.
    pub grad_y_size: f64,
    /// There is no ∂ℓ/∂y here: a logarithm of what is negative.
    pub no_grad_y: bool,
}

impl Element {
    /// Of a loss of x − y alone, by its value and slope.
    pub(super) fn of_difference(v: f64, value: f64, slope: f64) -> Element {
        Element {
            value: v * in_f32_range(value),
            value_size: (v * value).abs(),
            grad_x: slope,
            grad_x_size: slope.abs(),
            grad_y: -slope,
            grad_y_size: slope.abs(),
            no_grad_y: false,
        }
    }
}

impl Point {
    /// x − y, as f32 has it.
    pub(super) fn difference(self) -> f64 {
        in_f32_range(self.x - self.y)
    }
}

/// Whether f32 arithmetic may have a probability as 0: devices flush subnormal exponentials.
pub(super) fn vanishes(p: f64) -> bool {
    p < f64::from(f32::MIN_POSITIVE)
}

/// What f32 arithmetic may lose of a factor that vanishes, as a share of the term's size.
pub(super) const LOST: f64 = 1.2e-32;

/// ±1, or 0 for 0 and for NaN.
pub(super) fn sign(d: f64) -> f64 {
    if d > 0.0 {
        1.0
    } else if d < 0.0 {
        -1.0
    } else {
        0.0
    }
}

pub(super) fn softplus(x: f64) -> f64 {
    if x.is_nan() { x } else { x.max(0.0) + (-x.abs()).exp().ln_1p() }
}

/// Coefficient times value; a coefficient that f32 has as 0 silences an infinite one.
pub(super) fn term(coefficient: f64, value: f64) -> f64 {
    if coefficient as f32 == 0.0 && value.is_infinite() { 0.0 } else { coefficient * value }
}

/// `value`, or the infinity that it is in f32.
pub(super) fn in_f32_range(value: f64) -> f64 {
    if (value as f32).is_infinite() { f64::INFINITY.copysign(value) } else { value }
}

#[cfg(test)]
mod tests {
    use super::super::mse::mse;
    use super::*;

    struct Square;

    impl Formula for Square {
        fn element(&self, at: Point) -> Element {
            mse(at)
        }
        fn mean_divides_by_weights(&self) -> bool {
            true
        }
    }

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
            loss: &Square,
            reduction: Reduction::Mean,
            input: Values { shape: &[2, 2], data: &[1.0, 2.0, 3.0, 4.0] },
            target: Values { shape: &[2], data: &[1.0, 4.0] },
            weight: None,
            third: None,
            grad_output: &[2.0],
        };
        let out = elementwise(&call);
        assert_eq!(out.loss, [2.0]);
        assert_eq!(out.grad_input, [0.0, -2.0, 2.0, 0.0]);
        assert_eq!(out.grad_target, [-2.0, 2.0]);
    }
}
