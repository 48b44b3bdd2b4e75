//! Negative log-likelihood, row by row.

use super::Lines;
use crate::base::reduction::Reduction;
use crate::spec::nll::Nll;

/// What a negative log-likelihood should give.
#[derive(Debug, Clone, Default)]
pub struct NllReference {
    /// One loss per row for none, one number for sum and mean.
    pub loss: Vec<f64>,
    /// For each loss, Σ|terms| / denominator.
    pub loss_size: Vec<f64>,
    /// Gradient with respect to the input, in its order.
    pub grad_input: Vec<f64>,
}

/// The loss of `input` (of `shape`), and its gradient for the upstream gradient `grad_output` (one
/// number, or one per row).
///
/// # Panics
/// Where the engine returns an error for shapes or targets, this may panic.
pub fn nll(
    options: &Nll<'_>,
    shape: &[usize],
    input: &[f64],
    target: &[i64],
    grad_output: &[f64],
) -> NllReference {
    let class_dim = usize::from(shape.len() > 1);
    let lines = Lines::new(shape, &[class_dim]);
    let weight = match options.class_weight() {
        Some(weight) => weight.to_f64().expect("weights in host memory"),
        None => vec![1.0; shape[class_dim]],
    };
    let kept: Vec<usize> =
        (0..target.len()).filter(|&row| target[row] != options.ignore_index).collect();
    let total: f64 = kept.iter().map(|&row| weight[target[row] as usize]).sum();
    let denominator = match options.reduction {
        Reduction::None | Reduction::Sum => 1.0,
        // Rows that weigh nothing have no mean, whatever their sum.
        Reduction::Mean | Reduction::BatchMean if total == 0.0 => f64::NAN,
        Reduction::Mean | Reduction::BatchMean => total,
    };
    let mut losses = vec![0.0; target.len()];
    let mut grad_input = vec![0.0; input.len()];
    for &row in &kept {
        let class = target[row] as usize;
        let at = lines.bases[row] + lines.offsets[class];
        let silent = weight[class] == 0.0 && input[at] == f64::NEG_INFINITY;
        losses[row] = if silent { 0.0 } else { -weight[class] * input[at] };
        let g = grad_output[if grad_output.len() == 1 { 0 } else { row }];
        grad_input[at] = -g * weight[class] / denominator;
    }
    let reduce = |values: Vec<f64>, denominator: f64| match options.reduction {
        Reduction::None => values,
        Reduction::Sum | Reduction::Mean | Reduction::BatchMean => {
            vec![values.iter().sum::<f64>() / denominator]
        }
    };
    let sizes = losses.iter().map(|v| v.abs()).collect();
    NllReference {
        loss: reduce(losses, denominator),
        loss_size: reduce(sizes, denominator.abs()),
        grad_input,
    }
}
