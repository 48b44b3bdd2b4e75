//! Every loss in f64, written to be read: no vectors, no threads, no blocks.
//!
//! Tensors are row-major without padding (what [`TensorRef::to_f64`] returns). A line is the set
//! of elements that a softmax runs over; [`Lines`] finds them in any layout, so that each loss is
//! written for one line only. Inputs must be legal: the checks of bad input are the engine's.

use crate::{CrossEntropy, Error, GradOutput, Reduction, Result, TensorRef};

/// Where the lines of a tensor lie: line `i` has the elements `bases[i] + offset`, for each offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    /// First element of each line, row-major over the dimensions that are not reduced.
    pub bases: Vec<usize>,
    /// Distances of a line's elements from its first, row-major over the reduced dimensions.
    pub offsets: Vec<usize>,
}

impl Lines {
    /// The lines along `dims` (each in `0..rank`) of a contiguous tensor.
    pub fn new(shape: &[usize], dims: &[usize]) -> Lines {
        let mut lines = Lines { bases: vec![0], offsets: vec![0] };
        for (d, &size) in shape.iter().enumerate() {
            let stride: usize = shape[d + 1..].iter().product();
            let list = if dims.contains(&d) { &mut lines.offsets } else { &mut lines.bases };
            *list = list.iter().flat_map(|&at| (0..size).map(move |i| at + i * stride)).collect();
        }
        lines
    }

    fn read(&self, line: usize, data: &[f64]) -> Vec<f64> {
        self.offsets.iter().map(|offset| data[self.bases[line] + offset]).collect()
    }

    fn write(&self, line: usize, values: &[f64], data: &mut [f64]) {
        for (offset, value) in self.offsets.iter().zip(values) {
            data[self.bases[line] + offset] = *value;
        }
    }
}

/// Resolves a dimension as PyTorch does: negative counts from the end, 0-d counts as 1-d.
fn resolve(dim: isize, rank: usize) -> usize {
    let rank = rank.max(1) as isize;
    assert!((-rank..rank).contains(&dim), "dim {dim} out of range for rank {rank}");
    dim.rem_euclid(rank) as usize
}

/// The softmax of one line.
struct Softmax {
    /// Largest element.
    max: f64,
    /// Σ e^(z − max).
    total: f64,
    /// e^(z − max), element by element.
    exps: Vec<f64>,
}

impl Softmax {
    fn new(z: &[f64]) -> Softmax {
        // f64::max would pass over a NaN.
        let max = match z.iter().any(|z| z.is_nan()) {
            true => f64::NAN,
            false => z.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        };
        let exps: Vec<f64> = z.iter().map(|z| (z - max).exp()).collect();
        Softmax { max, total: exps.iter().sum(), exps }
    }

    /// All −∞, any +∞, or any NaN: there are no probabilities.
    fn undefined(&self) -> bool {
        !self.max.is_finite()
    }

    /// −∞ for a line of −∞ (or of nothing), +∞ beside a +∞, NaN with a NaN.
    fn lse(&self) -> f64 {
        if self.undefined() { self.max } else { self.max + self.total.ln() }
    }

    /// lse − z, which an offset common to all logits does not touch.
    fn nll(&self, z: f64) -> f64 {
        self.total.ln() + (self.max - z)
    }

    fn probability(&self, j: usize) -> f64 {
        self.exps[j] / self.total
    }

    /// 1 − p_j, a sum and not a difference.
    fn complement(&self, j: usize) -> f64 {
        let rest: f64 = self.exps[..j].iter().chain(&self.exps[j + 1..]).sum();
        rest / self.total
    }
}

/// What cross entropy should give.
#[derive(Debug, Clone, Default)]
pub struct CrossEntropyReference {
    /// One loss per row for none, one number for sum and mean; the z-loss is part of it.
    pub loss: Vec<f64>,
    /// For each loss, Σ|terms| / denominator: what its tolerance grows with.
    pub loss_size: Vec<f64>,
    /// The z-loss part of `loss`.
    pub z_loss: Vec<f64>,
    /// One log-sum-exp per row; 0 for ignored rows.
    pub lse: Vec<f64>,
    /// Gradient with respect to the logits, in their order.
    pub grad_logits: Vec<f64>,
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
    let weight = match &options.weight {
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
        ..Default::default()
    };
    let (mut losses, mut z_losses) = (vec![0.0; target.len()], vec![0.0; target.len()]);
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
        (losses[row], z_losses[row]) = (out.loss, out.z_loss);
        result.lse[row] = out.lse;
        lines.write(row, &out.grad, &mut result.grad_logits);
    }

    let reduce = |values: &[f64], denominator: f64| match options.reduction {
        Reduction::None => values.to_vec(),
        Reduction::Sum => vec![values.iter().sum()],
        Reduction::Mean | Reduction::BatchMean if denominator == 0.0 => vec![f64::NAN],
        Reduction::Mean | Reduction::BatchMean => vec![values.iter().sum::<f64>() / denominator],
    };
    let add = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(&b).map(|(a, b)| a + b).collect();
    let sizes = |values: &[f64]| values.iter().map(|v| v.abs()).collect::<Vec<f64>>();
    result.z_loss = match options.lse_square_scale {
        0.0 => reduce(&z_losses, 1.0),
        _ => reduce(&z_losses, count),
    };
    result.loss = add(reduce(&losses, weight_kept), result.z_loss.clone());
    result.loss_size =
        add(reduce(&sizes(&losses), weight_kept.abs()), reduce(&sizes(&z_losses), count));
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
    z_loss: f64,
    lse: f64,
    grad: Vec<f64>,
}

impl Row<'_> {
    fn evaluate(&self, x: &[f64], g_loss: f64, g_z: f64) -> RowResult {
        let (z, slope): (Vec<f64>, Vec<f64>) = x.iter().map(|&x| self.transform(x)).unzip();
        let softmax = Softmax::new(&z);
        let lambda = self.options.lse_square_scale;
        let lse = softmax.lse();
        if softmax.undefined() {
            let z_loss = if lambda > 0.0 { f64::NAN } else { 0.0 };
            return RowResult { loss: f64::NAN, z_loss, lse, grad: vec![f64::NAN; x.len()] };
        }
        let epsilon = self.options.label_smoothing;
        let hard = (1.0 - epsilon) * self.weight[self.target];
        let soft = epsilon / x.len() as f64;
        let mut loss = term(hard, softmax.nll(in_f32_range(z[self.target], softmax.max)));
        for (z, w) in z.iter().zip(self.weight) {
            loss += term(soft * w, softmax.nll(in_f32_range(*z, softmax.max)));
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
        RowResult {
            loss,
            z_loss: lambda * lse * lse,
            lse,
            grad: (0..x.len()).map(gradient).collect(),
        }
    }

    /// z and dz/dx: scale, then soft-cap. A masked class (−∞) stays masked.
    fn transform(&self, x: f64) -> (f64, f64) {
        let scale = f64::from(self.options.logit_scale);
        match self.options.softcap.map(f64::from) {
            None => (scale * x, scale),
            Some(_) if x == f64::NEG_INFINITY => (x, 0.0),
            Some(cap) => {
                // 1 − tanh² as 1/cosh²: near the cap the difference would lose all digits.
                let u = scale * x / cap;
                (cap * u.tanh(), scale / u.cosh().powi(2))
            }
        }
    }
}

/// Coefficient times (lse − z); a coefficient of 0 silences an infinite term.
fn term(coefficient: f64, nll: f64) -> f64 {
    if coefficient == 0.0 { 0.0 } else { coefficient * nll }
}

/// `z`, or −∞ where `z − max` does not fit an f32: such a class has probability 0 and loss +∞.
fn in_f32_range(z: f64, max: f64) -> f64 {
    if ((z - max) as f32).is_infinite() { f64::NEG_INFINITY } else { z }
}

/// Log-softmax along `dim`: x − lse.
pub fn log_softmax(shape: &[usize], dim: isize, input: &[f64]) -> Vec<f64> {
    let lines = Lines::new(shape, &[resolve(dim, shape.len())]);
    let mut output = vec![0.0; input.len()];
    for line in 0..lines.bases.len() {
        let x = lines.read(line, input);
        let softmax = Softmax::new(&x);
        let y = |&x: &f64| {
            if softmax.undefined() { f64::NAN } else { -softmax.nll(x) }
        };
        lines.write(line, &x.iter().map(y).collect::<Vec<_>>(), &mut output);
    }
    output
}

/// Gradient of [`log_softmax`]: g − p·Σg.
pub fn log_softmax_grad(
    shape: &[usize],
    dim: isize,
    input: &[f64],
    grad_output: &[f64],
) -> Vec<f64> {
    let lines = Lines::new(shape, &[resolve(dim, shape.len())]);
    let mut grad = vec![0.0; input.len()];
    for line in 0..lines.bases.len() {
        let softmax = Softmax::new(&lines.read(line, input));
        let g = lines.read(line, grad_output);
        let sum: f64 = g.iter().sum();
        let gradient = |j: usize| match softmax.undefined() {
            true => f64::NAN,
            false => g[j] - softmax.probability(j) * sum,
        };
        lines.write(line, &(0..g.len()).map(gradient).collect::<Vec<_>>(), &mut grad);
    }
    grad
}

/// Log-sum-exp along `dims`, one number per line.
pub fn logsumexp(shape: &[usize], dims: &[isize], input: &[f64]) -> Vec<f64> {
    let dims: Vec<usize> = dims.iter().map(|&d| resolve(d, shape.len())).collect();
    let lines = Lines::new(shape, &dims);
    (0..lines.bases.len()).map(|line| Softmax::new(&lines.read(line, input)).lse()).collect()
}

/// Gradient of [`logsumexp`]: g·e^(x − lse) by the rules of IEEE, so that it is NaN where x and
/// lse are the same infinity.
pub fn logsumexp_grad(
    shape: &[usize],
    dims: &[isize],
    input: &[f64],
    grad_output: &[f64],
) -> Vec<f64> {
    let dims: Vec<usize> = dims.iter().map(|&d| resolve(d, shape.len())).collect();
    let lines = Lines::new(shape, &dims);
    let mut grad = vec![0.0; input.len()];
    for (line, g) in grad_output.iter().enumerate() {
        let x = lines.read(line, input);
        let softmax = Softmax::new(&x);
        let gradient = |j: usize| {
            let p = match softmax.undefined() {
                true => (x[j] - softmax.lse()).exp(),
                false => softmax.probability(j),
            };
            g * p
        };
        lines.write(line, &(0..x.len()).map(gradient).collect::<Vec<_>>(), &mut grad);
    }
    grad
}

/// Class indices in order, widened exactly.
///
/// # Errors
/// Memory of a device, or a dtype that is not an index.
pub fn indices(target: TensorRef<'_>) -> Result<Vec<i64>> {
    let n = target.elements();
    if let Some(data) = target.host::<i64>() {
        return Ok(data[..n].to_vec());
    }
    if target.dtype().is_index() {
        // The other index types are exact in f64.
        return Ok(target.to_f64()?.iter().map(|&v| v as i64).collect());
    }
    Err(Error::Dtype { argument: "target", expected: "class indices".into(), got: target.dtype() })
}

/// The upstream gradient's values: one, or one per row.
///
/// # Errors
/// Memory of a device.
pub fn upstream(grad_output: GradOutput<'_>) -> Result<Vec<f64>> {
    match grad_output {
        GradOutput::Number(g) => Ok(vec![f64::from(g)]),
        GradOutput::Tensor(g) => g.to_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_row_major_over_the_other_dimensions() {
        let lines = Lines::new(&[2, 3, 2], &[1]);
        assert_eq!(lines.bases, [0, 1, 6, 7]);
        assert_eq!(lines.offsets, [0, 2, 4]);
        assert_eq!(Lines::new(&[], &[0]).bases, [0]);
    }

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
