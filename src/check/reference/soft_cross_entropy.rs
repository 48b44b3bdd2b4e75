//! Cross entropy against probabilities or a teacher's logits, row by row.

use super::cross_entropy::{in_f32_range, in_key_range, term, transform, z_loss_size};
use super::{CrossEntropyReference, Lines, Softmax};
use crate::base::reduction::Reduction;
use crate::check::compare::FAR;
use crate::spec::cross_entropy::CrossEntropy;

/// Cross entropy of `logits` against `target` (both of `shape`), its gradient, and the gradient
/// with respect to probabilities.
///
/// # Panics
/// Where the engine returns an error for shapes, this may panic.
pub fn soft_cross_entropy(
    options: &CrossEntropy<'_>,
    shape: &[usize],
    logits: &[f64],
    target: &[f64],
    grad_output: &[f64],
) -> (CrossEntropyReference, Vec<f64>) {
    let class_dim = usize::from(shape.len() > 1);
    let classes = shape[class_dim];
    let lines = Lines::new(shape, &[class_dim]);
    let rows = lines.bases.len();
    let weight = match options.class_weight() {
        Some(weight) => weight.to_f64().expect("weights in host memory"),
        None => vec![1.0; classes],
    };
    let denominator = match options.reduction {
        Reduction::None | Reduction::Sum => 1.0,
        Reduction::Mean | Reduction::BatchMean if classes == 0 => 0.0,
        Reduction::Mean | Reduction::BatchMean => rows as f64,
    };
    let mut result =
        CrossEntropyReference { grad_logits: vec![0.0; logits.len()], ..Default::default() };
    result.grad_logits_size = vec![0.0; logits.len()];
    result.grad_target_size = vec![0.0; logits.len()];
    let mut grad_target = vec![0.0; target.len()];
    let [mut losses, mut sizes, mut z_losses, mut z_loss_sizes] = [const { Vec::new() }; 4];
    for row in 0..rows {
        let g = grad_output[if grad_output.len() == 1 { 0 } else { row }] / denominator;
        let one = Row { options, weight: &weight, g };
        let out = one.evaluate(&lines.read(row, logits), &lines.read(row, target));
        lines.write(row, &out.grad_logits, &mut result.grad_logits);
        lines.write(row, &out.grad_logits_size, &mut result.grad_logits_size);
        lines.write(row, &out.grad_target, &mut grad_target);
        lines.write(row, &out.grad_target_size, &mut result.grad_target_size);
        losses.push(out.loss + out.z_loss);
        sizes.push(out.size);
        z_losses.push(out.z_loss);
        z_loss_sizes.push(z_loss_size(options.lse_square_scale, out.lse));
        result.lse.push(out.lse);
    }
    let reduce = |values: Vec<f64>, denominator: f64| match options.reduction {
        Reduction::None => values,
        Reduction::Sum | Reduction::Mean | Reduction::BatchMean => {
            vec![values.iter().sum::<f64>() / denominator]
        }
    };
    result.loss = reduce(losses, denominator);
    result.loss_size = reduce(sizes, denominator);
    // Without a z-loss there is nothing to take the mean of.
    let none = options.lse_square_scale == 0.0;
    let denominator = if none { 1.0 } else { denominator };
    result.z_loss = reduce(z_losses, denominator);
    result.z_loss_size = reduce(z_loss_sizes, denominator);
    (result, grad_target)
}

struct Row<'a> {
    options: &'a CrossEntropy<'a>,
    weight: &'a [f64],
    /// Upstream gradient, divided as the loss is.
    g: f64,
}

struct RowResult {
    loss: f64,
    size: f64,
    z_loss: f64,
    lse: f64,
    grad_logits: Vec<f64>,
    grad_logits_size: Vec<f64>,
    grad_target: Vec<f64>,
    grad_target_size: Vec<f64>,
}

impl Row<'_> {
    fn evaluate(&self, x: &[f64], target: &[f64]) -> RowResult {
        let (z, slope): (Vec<f64>, Vec<f64>) =
            x.iter().map(|&x| transform(self.options, x)).unzip();
        let softmax = Softmax::new(&z);
        let lambda = self.options.lse_square_scale;
        let lse = softmax.lse();
        let probabilities = self.probabilities(target);
        let (Some(q), false) = (probabilities, softmax.undefined()) else {
            // Without classes there is nothing to be undefined.
            let nan = if x.is_empty() { 0.0 } else { f64::NAN };
            return RowResult {
                loss: nan,
                size: nan,
                z_loss: if lambda > 0.0 { nan } else { 0.0 },
                lse,
                grad_logits: vec![nan; x.len()],
                grad_logits_size: vec![nan; x.len()],
                grad_target: vec![nan; x.len()],
                grad_target_size: vec![nan; x.len()],
            };
        };
        let epsilon = self.options.label_smoothing;
        let u: Vec<f64> = q
            .iter()
            .zip(self.weight)
            .map(|(q, w)| w * ((1.0 - epsilon) * q + epsilon / x.len() as f64))
            .collect();
        let nll = |j: usize| softmax.nll(z[j]);
        let terms: Vec<f64> = (0..x.len()).map(|j| term(u[j], nll(j))).collect();
        // A distance that leaves f32 may be infinite on the way.
        let far = |j: usize| {
            let max = softmax.max;
            let in_range = in_f32_range(in_key_range(self.options, z[j], max), max);
            // A masked class is infinite by itself, and excuses nothing.
            z[j].is_finite() && in_range == f64::NEG_INFINITY
        };
        let size = |j: usize| match u[j] {
            0.0 => 0.0,
            _ if far(j) => FAR,
            // Distances have no more digits than 1; where u is one of probabilities, its tolerance has
            // that already.
            u => terms[j].abs() + (u.abs() - 1.0).max(0.0),
        };
        let mass: f64 = u.iter().sum();
        // What multiplies all probabilities may be beyond f32, though the products are not.
        let beyond = (self.g * (mass + 2.0 * lambda * lse)).abs() > f64::from(f32::MAX);
        let gradient = |j: usize| {
            let p = softmax.probability(j);
            // A class that has most of p: sums over the others, and no difference of near numbers.
            let dz = if p > 0.5 {
                let others: f64 = u[..j].iter().chain(&u[j + 1..]).sum();
                others - mass * softmax.complement(j)
            } else {
                mass * p - u[j]
            };
            let z_loss = if lambda > 0.0 { 2.0 * lambda * lse * p } else { 0.0 };
            let size = mass.abs() * p + u[j].abs() + 2.0 * lambda * (1.0 + lse.abs()) * p;
            let size = if beyond { FAR } else { (self.g * slope[j]).abs() * size };
            (self.g * (dz + z_loss) * slope[j], size)
        };
        let (grad_logits, grad_logits_size) = (0..x.len()).map(gradient).unzip();
        let target_gradient = |j: usize| {
            let coefficient = self.g * (1.0 - epsilon) * self.weight[j];
            let nll = softmax.nll(in_f32_range(z[j], softmax.max));
            let size = if far(j) { FAR } else { term(coefficient, 1.0 + nll).abs() };
            (term(coefficient, nll), size)
        };
        let (grad_target, grad_target_size) = (0..x.len()).map(target_gradient).unzip();
        let z_loss = lambda * lse * lse;
        RowResult {
            loss: terms.iter().sum(),
            size: (0..x.len()).map(size).sum::<f64>() + z_loss_size(lambda, lse),
            z_loss,
            lse,
            grad_logits,
            grad_logits_size,
            grad_target,
            grad_target_size,
        }
    }

    /// The target as probabilities; `None` where a teacher has none.
    fn probabilities(&self, target: &[f64]) -> Option<Vec<f64>> {
        let Some(scale) = self.options.teacher_scale.map(f64::from) else {
            return Some(target.to_vec());
        };
        let softmax = Softmax::new(&target.iter().map(|y| scale * y).collect::<Vec<_>>());
        // What f32 has as 0 silences an infinite term.
        let normal = |e: f64| if e < f64::from(f32::MIN_POSITIVE) { 0.0 } else { e };
        let q = |j: usize| normal(softmax.exps[j]) / softmax.total;
        (!softmax.undefined()).then(|| (0..target.len()).map(q).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_cross_entropy_of_a_row_by_hand() {
        let options = CrossEntropy::default();
        let (x, q) = ([0.0, 3f64.ln()], [0.5, 0.25]);
        let (out, grad_target) = soft_cross_entropy(&options, &[2], &x, &q, &[2.0]);
        let (a, b) = (4f64.ln(), (4.0f64 / 3.0).ln());
        assert!((out.loss[0] - (0.5 * a + 0.25 * b)).abs() < 1e-15);
        let near = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-15, "{got}");
        near(out.grad_logits[0], 2.0 * (0.75 * 0.25 - 0.5));
        near(out.grad_logits[1], 2.0 * (0.75 * 0.75 - 0.25));
        near(grad_target[0], 2.0 * a);
        near(grad_target[1], 2.0 * b);
    }
}
