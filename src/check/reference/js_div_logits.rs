//! Jensen–Shannon divergence from logits, row by row.

use super::elementwise::js_slopes;
use super::{Lines, Softmax};
use crate::{JsDivLogits, Reduction};

/// What the divergence should give.
#[derive(Debug, Clone, Default)]
pub struct JsDivLogitsReference {
    /// One loss, or one a row.
    pub loss: Vec<f64>,
    /// Σ|terms| of each loss.
    pub loss_size: Vec<f64>,
    /// In the logits' order.
    pub grad_logits: Vec<f64>,
    /// Sizes of `grad_logits`.
    pub grad_logits_size: Vec<f64>,
    /// In the target's order.
    pub grad_target: Vec<f64>,
    /// Sizes of `grad_target`.
    pub grad_target_size: Vec<f64>,
}

/// The divergence of `logits` from a teacher's (both of `shape`), and its gradients. `labels` say
/// which rows count, if the options have any.
///
/// # Panics
/// Where the engine returns an error for shapes, this may panic.
pub fn js_div_logits(
    options: &JsDivLogits<'_>,
    shape: &[usize],
    (logits, target): (&[f64], &[f64]),
    labels: Option<&[i64]>,
    grad_output: &[f64],
) -> JsDivLogitsReference {
    let class_dim = usize::from(shape.len() > 1);
    let classes = shape[class_dim] as f64;
    let lines = Lines::new(shape, &[class_dim]);
    let rows = lines.bases.len();
    let keeps = |row: usize| labels.is_none_or(|labels| labels[row] != options.ignore_index);
    let kept = (0..rows).filter(|&row| keeps(row)).count() as f64;
    let denominator = match options.reduction {
        Reduction::None | Reduction::Sum => 1.0,
        Reduction::BatchMean => kept,
        Reduction::Mean => kept * classes,
    };
    let mut result = JsDivLogitsReference {
        grad_logits: vec![0.0; logits.len()],
        grad_logits_size: vec![0.0; logits.len()],
        grad_target: vec![0.0; target.len()],
        grad_target_size: vec![0.0; target.len()],
        ..Default::default()
    };
    for row in 0..rows {
        if !keeps(row) {
            result.loss.push(0.0);
            result.loss_size.push(0.0);
            continue;
        }
        let g = grad_output[if grad_output.len() == 1 { 0 } else { row }] / denominator;
        let (a, b) = (lines.read(row, logits), lines.read(row, target));
        let of = |z: &[f64], scale: f32| {
            let z: Vec<f64> = z.iter().map(|z| f64::from(scale) * z).collect();
            (Softmax::new(&z), z)
        };
        let scales = [options.logit_scale, options.teacher_scale];
        let ((q, x), (p, y)) = (of(&a, scales[0]), of(&b, scales[1]));
        let undefined = (q.undefined() || p.undefined()) && !x.is_empty();
        let mut slopes: Vec<[f64; 2]> =
            (0..x.len()).map(|j| js_slopes(options.beta, -q.nll(x[j]), -p.nll(y[j]))).collect();
        if undefined {
            slopes.fill([f64::NAN; 2]);
        }
        result.loss.push(slopes.iter().flatten().sum());
        result.loss_size.push(slopes.iter().flatten().map(|s| s.abs()).sum());
        let totals = [0, 1].map(|k| slopes.iter().map(|s| s[k]).sum::<f64>());
        let sizes = [0, 1].map(|k| slopes.iter().map(|s| s[k].abs()).sum::<f64>());
        let gradient = |k: usize, softmax: &Softmax| -> (Vec<f64>, Vec<f64>) {
            let factor = g * f64::from(scales[k]);
            (0..slopes.len())
                .map(|j| {
                    let (share, own) = (softmax.probability(j), slopes[j][k]);
                    let size = (factor * own).abs() + (factor * share).abs() * sizes[k];
                    (factor * (own - share * totals[k]), size)
                })
                .unzip()
        };
        let ((dx, dx_size), (dy, dy_size)) = (gradient(0, &q), gradient(1, &p));
        lines.write(row, &dx, &mut result.grad_logits);
        lines.write(row, &dx_size, &mut result.grad_logits_size);
        lines.write(row, &dy, &mut result.grad_target);
        lines.write(row, &dy_size, &mut result.grad_target_size);
    }
    if options.reduction != Reduction::None {
        let reduce = |values: &[f64]| vec![values.iter().sum::<f64>() / denominator];
        result.loss = reduce(&result.loss);
        result.loss_size = reduce(&result.loss_size);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_by_hand() {
        // Q = (1/2, 1/2), P = (1, 0): M = (3/4, 1/4).
        let (x, y) = ([0.0, 0.0], [0.0, f64::NEG_INFINITY]);
        let options = JsDivLogits::default();
        let out = js_div_logits(&options, &[2], (&x, &y), None, &[1.0]);
        let near = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-15, "{got}");
        near(out.loss[0], 0.75 * (4.0f64 / 3.0).ln());
        let slopes = [0.25 * (2.0f64 / 3.0).ln(), 0.25 * 2f64.ln()];
        near(out.grad_logits[0], slopes[0] - 0.5 * (slopes[0] + slopes[1]));
        near(out.grad_target[0], 0.0);
    }
}
