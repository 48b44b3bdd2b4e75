//! Multi-class margin loss, row by row.

use super::Lines;
use super::elementwise::in_f32_range;
use crate::base::reduction::Reduction;
use crate::check::compare::FAR;

/// What a multi-class margin loss should give; of each number the size of its terms, Σ|terms|, too.
#[derive(Debug, Clone, Default)]
pub struct MarginReference {
    /// One loss per row for none, one number for sum and mean.
    pub loss: Vec<f64>,
    /// Sizes of `loss`.
    pub loss_size: Vec<f64>,
    /// Gradient with respect to the input, in its order.
    pub grad_input: Vec<f64>,
    /// Sizes of `grad_input`.
    pub grad_size: Vec<f64>,
}

/// max(0, margin − t + x) with what the first difference loses in rounding; NaN is above no margin.
fn hinge(margin: f64, x: f64, t: f64) -> f64 {
    let short_of = margin - t;
    let minus_t = short_of - margin;
    let lost = (margin - (short_of - minus_t)) + (-t - minus_t);
    (x + short_of + if lost.is_finite() { lost } else { 0.0 }).max(0.0)
}

/// The loss of `input` (of `shape`), p 1 or 2, and its gradient for the upstream gradient `grad_output` (one
/// number, or one per row).
///
/// # Panics
/// Where the engine returns an error for shapes or targets, this may panic.
pub fn multi_margin(
    (square, margin, reduction): (bool, f32, Reduction),
    weight: Option<&[f64]>,
    (shape, input): (&[usize], &[f64]),
    target: &[i64],
    grad_output: &[f64],
) -> MarginReference {
    let lines = Lines::new(shape, &[usize::from(shape.len() > 1)]);
    let denominator = match reduction {
        Reduction::None | Reduction::Sum => 1.0,
        Reduction::Mean | Reduction::BatchMean if target.is_empty() => f64::NAN,
        Reduction::Mean | Reduction::BatchMean => target.len() as f64,
    };
    let (mut losses, mut sizes) = (Vec::new(), Vec::new());
    let zeros = || vec![0.0; input.len()];
    let (mut grad_input, mut grad_size) = (zeros(), zeros());
    for (row, &class) in target.iter().enumerate() {
        let class = class as usize;
        let at = |c: usize| lines.bases[row] + lines.offsets[c];
        let weight = weight.map_or(1.0, |w| w[class]) / lines.offsets.len() as f64;
        let factor =
            grad_output[if grad_output.len() == 1 { 0 } else { row }] * weight / denominator;
        let (mut sum, mut slopes) = (0.0, 0.0);
        for other in (0..lines.offsets.len()).filter(|&c| c != class) {
            let hinge = hinge(f64::from(margin), input[at(other)], input[at(class)]);
            let (power, slope) = match square {
                true => (hinge * hinge, 2.0 * hinge),
                false => (hinge, if hinge > 0.0 { 1.0 } else { 0.0 }),
            };
            (sum, slopes) = (sum + power, slopes + slope);
            grad_input[at(other)] = factor * slope;
            let far = in_f32_range(slope) != slope && slope.is_finite();
            grad_size[at(other)] = if far { FAR } else { (factor * slope).abs() };
        }
        grad_input[at(class)] = -factor * slopes;
        let far = |sum: f64| in_f32_range(sum) != sum && sum.is_finite();
        grad_size[at(class)] = if far(slopes) { FAR } else { (factor * slopes).abs() };
        losses.push(weight * sum);
        sizes.push(if far(sum) { FAR } else { (weight * sum).abs() });
    }
    let reduce = |values: Vec<f64>| match reduction {
        Reduction::None => values,
        Reduction::Sum | Reduction::Mean | Reduction::BatchMean => {
            vec![values.iter().sum::<f64>() / denominator]
        }
    };
    MarginReference { loss: reduce(losses), loss_size: reduce(sizes), grad_input, grad_size }
}
