//! Cross entropy with class indices, row by row.

use super::{Lines, Softmax};
use crate::base::reduction::Reduction;
use crate::check::compare::FAR;
use crate::spec::cross_entropy::CrossEntropy;

/// What cross entropy should give.
#[derive(Debug, Clone, Default)]
pub struct CrossEntropyReference {
    /// One loss per row for none, one number for sum and mean; the z-loss is part of it.
    pub loss: Vec<f64>,
    /// For each loss, Σ|terms| / denominator: what its tolerance grows with.
    pub loss_size: Vec<f64>,
    /// The z-loss part of `loss`.
    pub z_loss: Vec<f64>,
    /// The same for it.
    pub z_loss_size: Vec<f64>,
    /// One log-sum-exp per row; 0 for ignored rows.
    pub lse: Vec<f64>,
    /// Gradient with respect to the logits, in their order.
    pub grad_logits: Vec<f64>,
    /// Σ|terms| of `grad_logits`.
    pub grad_logits_size: Vec<f64>,
    /// Likewise of the gradient with respect to probabilities, each a coefficient times a loss, of
    /// which f32 has no more digits than of 1.
    pub grad_target_size: Vec<f64>,
}

/// Cross entropy with class indices of `logits` (of `shape`), and its gradient for the upstream
/// gradient `grad_output` (one number, or one per row).
///
/// # Panics
/// Where the engine returns an error for shapes or targets, this may panic.
pub fn cross_entropy(
    options: &CrossEntropy<'_>,
    shape: &[usize],
    logits: &[f64],
    target: &[i64],
    grad_output: &[f64],
) -> CrossEntropyReference {
    let class_dim = usize::from(shape.len() > 1);
    let classes = shape[class_dim];
    let lines = Lines::new(shape, &[class_dim]);
    let weight = match options.class_weight() {
        Some(weight) => weight.to_f64().expect("weights in host memory"),
        None => vec![1.0; classes],
    };
    let kept: Vec<usize> =
        (0..target.len()).filter(|&row| target[row] != options.ignore_index).collect();
    let count = kept.len() as f64;
    let weight_kept: f64 = kept.iter().map(|&row| weight[target[row] as usize]).sum();

    let mut result = CrossEntropyReference {
        lse: vec![0.0; target.len()],
        grad_logits: vec![0.0; logits.len()],
        grad_logits_size: vec![0.0; logits.len()],
        ..Default::default()
    };
    let [mut losses, mut z_losses, mut loss_sizes] = [(); 3].map(|()| vec![0.0; target.len()]);
    for &row in &kept {
        let g = grad_output[if grad_output.len() == 1 { 0 } else { row }];
        let (g_loss, g_z) = match options.reduction {
            Reduction::None | Reduction::Sum => (g, g),
            // No weight, no mean: 0/0 makes the whole row NaN.
            Reduction::Mean | Reduction::BatchMean if weight_kept == 0.0 => (f64::NAN, f64::NAN),
            Reduction::Mean | Reduction::BatchMean => (g / weight_kept, g / count),
        };
        let x = lines.read(row, logits);
        let one = Row { options, weight: &weight, target: target[row] as usize };
        let out = one.evaluate(&x, g_loss, g_z);
        (losses[row], z_losses[row], loss_sizes[row]) = (out.loss, out.z_loss, out.size);
        result.lse[row] = out.lse;
        lines.write(row, &out.grad, &mut result.grad_logits);
        lines.write(row, &out.grad_size, &mut result.grad_logits_size);
    }

    let reduce = |values: &[f64], denominator: f64| match options.reduction {
        Reduction::None => values.to_vec(),
        Reduction::Sum => vec![values.iter().sum()],
        Reduction::Mean | Reduction::BatchMean if denominator == 0.0 => vec![f64::NAN],
        Reduction::Mean | Reduction::BatchMean => vec![values.iter().sum::<f64>() / denominator],
    };
    let add = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(&b).map(|(a, b)| a + b).collect();
    let of_lse = |&lse: &f64| z_loss_size(options.lse_square_scale, lse);
    let z_loss_sizes: Vec<f64> = result.lse.iter().map(of_lse).collect();
    let rows = if options.lse_square_scale == 0.0 { 1.0 } else { count };
    result.z_loss = reduce(&z_losses, rows);
    result.z_loss_size = reduce(&z_loss_sizes, rows);
    result.loss = add(reduce(&losses, weight_kept), result.z_loss.clone());
    result.loss_size = add(reduce(&loss_sizes, weight_kept.abs()), result.z_loss_size.clone());
    result
}

/// A kept row and what its loss depends on besides the logits.
struct Row<'a> {
    options: &'a CrossEntropy<'a>,
    weight: &'a [f64],
    target: usize,
}

struct RowResult {
    loss: f64,
    size: f64,
    z_loss: f64,
    lse: f64,
    grad: Vec<f64>,
    grad_size: Vec<f64>,
}

impl Row<'_> {
    fn evaluate(&self, x: &[f64], g_loss: f64, g_z: f64) -> RowResult {
        let (z, slope): (Vec<f64>, Vec<f64>) =
            x.iter().map(|&x| transform(self.options, x)).unzip();
        let softmax = Softmax::new(&z);
        let lambda = self.options.lse_square_scale;
        let lse = softmax.lse();
        if softmax.undefined() {
            let z_loss = if lambda > 0.0 { f64::NAN } else { 0.0 };
            let (nan, grad) = (f64::NAN, vec![f64::NAN; x.len()]);
            return RowResult { loss: nan, size: nan, z_loss, lse, grad_size: grad.clone(), grad };
        }
        let epsilon = self.options.label_smoothing;
        let hard = (1.0 - epsilon) * self.weight[self.target];
        let soft = epsilon / x.len() as f64;
        let mut loss = term(hard, softmax.nll(in_f32_range(z[self.target], softmax.max)));
        let mut far = false;
        for (&z, w) in z.iter().zip(self.weight) {
            loss += term(soft * w, softmax.nll(z));
            far |= soft * w != 0.0 && in_key_range(self.options, z, softmax.max) != z;
        }
        let weight_sum: f64 = self.weight.iter().sum();
        let gradient = |j: usize| {
            let p = softmax.probability(j);
            let hard_part = match j == self.target {
                true => -hard * softmax.complement(j),
                false => hard * p,
            };
            let dz = g_loss * (hard_part + soft * (weight_sum * p - self.weight[j]));
            let dz_z_loss = if lambda > 0.0 { g_z * 2.0 * lambda * lse * p } else { 0.0 };
            (dz + dz_z_loss) * slope[j]
        };
        let grad: Vec<f64> = (0..x.len()).map(gradient).collect();
        // What multiplies all probabilities may be beyond f32, though the products are not.
        let factor = g_loss * (hard + soft * weight_sum) + g_z * 2.0 * lambda * lse;
        let of_lse = g_z * 2.0 * lambda * (1.0 + lse.abs());
        let beyond = factor.abs().max((g_loss * soft * weight_sum).abs()) > f64::from(f32::MAX);
        let size = |j: usize| match beyond {
            true => FAR,
            // lse has no more digits than 1.
            false => grad[j].abs() + (of_lse * softmax.probability(j) * slope[j]).abs(),
        };
        RowResult {
            loss,
            // A distance that leaves f32 may be infinite on the way.
            size: if far { FAR } else { loss.abs() },
            z_loss: lambda * lse * lse,
            lse,
            grad_size: (0..x.len()).map(size).collect(),
            grad,
        }
    }
}

/// z and dz/dx: scale, then soft-cap. A masked class (−∞) stays masked.
pub(super) fn transform(options: &CrossEntropy<'_>, x: f64) -> (f64, f64) {
    let scale = f64::from(options.logit_scale);
    match options.softcap.map(f64::from) {
        None => (scale * x, scale),
        Some(_) if x == f64::NEG_INFINITY => (x, 0.0),
        Some(cap) => {
            // 1 − tanh² as 1/cosh²: near the cap the difference would lose all digits.
            let u = scale * x / cap;
            let slope = scale / u.cosh().powi(2);
            // One that f32 has as 0 is nothing, of an infinite upstream gradient as well.
            (cap * u.tanh(), if slope < f64::from(f32::MIN_POSITIVE) { 0.0 } else { slope })
        }
    }
}

/// How many times the tolerance logits under a soft-cap need: each is rounded to f32 with whatever
/// offset it has.
pub fn coarseness(options: &CrossEntropy<'_>, logits: &[f64]) -> f64 {
    const FINE: f64 = 8.0;
    let largest = |m: f64, &x: &f64| m.max(transform(options, x).0.abs());
    match options.softcap {
        Some(_) => (logits.iter().filter(|x| x.is_finite()).fold(0.0, largest) / FINE).max(1.0),
        None => 1.0,
    }
}

/// What a z-loss adds to the size of a loss: lse has no more digits than 1.
pub(super) fn z_loss_size(lambda: f64, lse: f64) -> f64 {
    if lambda == 0.0 { 0.0 } else { lambda * lse.abs() * (1.0 + lse.abs()) }
}

/// Coefficient times (lse − z); a coefficient of 0 silences an infinite term.
pub(super) fn term(coefficient: f64, nll: f64) -> f64 {
    if coefficient == 0.0 { 0.0 } else { coefficient * nll }
}

/// `z`, or −∞ where `z − max` does not fit an f32: such a class has probability 0 and loss +∞.
pub(super) fn in_f32_range(z: f64, max: f64) -> f64 {
    if ((z - max) as f32).is_infinite() { f64::NEG_INFINITY } else { z }
}

/// As [`in_f32_range`], of what z is made of by a constant: a scale is multiplied in at last.
pub(super) fn in_key_range(options: &CrossEntropy<'_>, z: f64, max: f64) -> f64 {
    let unit = if options.softcap.is_some() { 1.0 } else { f64::from(options.logit_scale) };
    if in_f32_range(z / unit, max / unit).is_finite() { z } else { f64::NEG_INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_of_two_rows_by_hand() {
        let options = CrossEntropy::default();
        let logits = [0.0, 3f64.ln(), 0.0, 0.0];
        let out = cross_entropy(&options, &[2, 2], &logits, &[1, 0], &[1.0]);
        let expected = ((4.0f64 / 3.0).ln() + 2f64.ln()) / 2.0;
        assert!((out.loss[0] - expected).abs() < 1e-15);
        assert!((out.lse[0] - 4f64.ln()).abs() < 1e-15);
        for (got, expected) in out.grad_logits.iter().zip([0.125, -0.125, -0.25, 0.25]) {
            assert!((got - expected).abs() < 1e-15);
        }
    }
}
