//! Log-probability of the target and entropy, row by row.

use super::cross_entropy::{in_f32_range, transform};
use super::{Lines, Softmax};
use crate::spec::logprob_entropy::LogprobEntropy;

/// What log-probability and entropy should be: one of each per row, 0 for ignored rows.
#[derive(Debug, Clone, Default)]
pub struct LogprobEntropyReference {
    /// Log-probability of the target.
    pub logprob: Vec<f64>,
    /// Entropy of the row.
    pub entropy: Vec<f64>,
    /// Log-sum-exp.
    pub lse: Vec<f64>,
    /// Gradient with respect to the logits, in their order.
    pub grad_logits: Vec<f64>,
    /// Σ|terms| of `grad_logits`; the mean distance is no better than 1 is in f32.
    pub grad_logits_size: Vec<f64>,
}

/// Below this f32 arithmetic may have a number as 0.
const FLUSHED: f64 = f32::MIN_POSITIVE as f64;

/// Log-probability and entropy of `logits` (of `shape`), and their gradient for upstream gradients
/// of the one and of the other (one number each, or one per row).
///
/// # Panics
/// Where the engine returns an error for shapes or targets, this may panic.
pub fn logprob_entropy(
    options: &LogprobEntropy,
    shape: &[usize],
    logits: &[f64],
    target: &[i64],
    upstream: [&[f64]; 2],
) -> LogprobEntropyReference {
    let lines = Lines::new(shape, &[usize::from(shape.len() > 1)]);
    let zeros = vec![0.0; target.len()];
    let mut result = LogprobEntropyReference {
        logprob: zeros.clone(),
        entropy: zeros.clone(),
        lse: zeros,
        grad_logits: vec![0.0; logits.len()],
        grad_logits_size: vec![0.0; logits.len()],
    };
    for (row, &t) in target.iter().enumerate().filter(|(_, t)| **t != options.rows.ignore_index) {
        let [a, b] = upstream.map(|g| g[if g.len() == 1 { 0 } else { row }]);
        let t = t as usize;
        let x = lines.read(row, logits);
        let (z, slope): (Vec<f64>, Vec<f64>) =
            x.iter().map(|&x| transform(&options.rows, x)).unzip();
        let softmax = Softmax::new(&z);
        result.lse[row] = softmax.lse();
        if softmax.undefined() {
            (result.logprob[row], result.entropy[row]) = (f64::NAN, f64::NAN);
            lines.write(row, &vec![f64::NAN; x.len()], &mut result.grad_logits);
            continue;
        }
        // max − z, where there is any probability.
        let distance = |j: usize| match softmax.probability(j) {
            0.0 => 0.0,
            _ => softmax.max - z[j],
        };
        let mean: f64 = (0..z.len()).map(|j| softmax.probability(j) * distance(j)).sum();
        result.logprob[row] = -softmax.nll(in_f32_range(z[t], softmax.max));
        result.entropy[row] = softmax.log_total() + mean;
        let gradient = |j: usize| {
            let p = softmax.probability(j);
            let hard = if j == t { softmax.complement(j) } else { -p };
            let away = 1.0 + mean + distance(j);
            // Exponentials that f32 flushes to 0 are missed with all that multiplies them.
            let size = (a * hard).abs() + b.abs() * (p + 1e6 * FLUSHED) * away;
            ((a * hard - b * p * (mean - distance(j))) * slope[j], size * slope[j].abs())
        };
        let (gradient, size): (Vec<f64>, Vec<f64>) = (0..z.len()).map(gradient).unzip();
        lines.write(row, &gradient, &mut result.grad_logits);
        lines.write(row, &size, &mut result.grad_logits_size);
    }
    result
}
