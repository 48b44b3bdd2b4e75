//! Log-softmax and log-sum-exp, line by line.

use super::{Lines, Softmax, resolve};

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
