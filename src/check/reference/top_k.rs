//! The likeliest classes of rows.

use super::cross_entropy::{in_f32_range, transform};
use super::{Lines, Softmax};
use crate::spec::cross_entropy::CrossEntropy;

/// The k likeliest classes of each row of `logits` (of `shape`), likeliest first, and their
/// log-probabilities, row after row; −1 and 0 for ignored rows.
///
/// # Panics
/// Where the engine returns an error for shapes or targets, this may panic.
pub fn top_k(
    options: &CrossEntropy<'_>,
    shape: &[usize],
    logits: &[f64],
    target: &[i64],
    k: usize,
) -> [Vec<f64>; 2] {
    let lines = Lines::new(shape, &[usize::from(shape.len() > 1)]);
    let mut result = [vec![-1.0; target.len() * k], vec![0.0; target.len() * k]];
    for (row, _) in target.iter().enumerate().filter(|(_, t)| **t != options.ignore_index) {
        let x = lines.read(row, logits);
        let z: Vec<f64> = x.iter().map(|&x| transform(options, x).0).collect();
        let softmax = Softmax::new(&z);
        let mut order: Vec<usize> = (0..x.len()).collect();
        // NaN is the largest; the sort keeps equals in their order.
        order.sort_by(|&i, &j| match (x[i].is_nan(), x[j].is_nan()) {
            (false, false) => x[j].partial_cmp(&x[i]).expect("numbers"),
            (i, j) => j.cmp(&i),
        });
        for (i, &j) in order[..k].iter().enumerate() {
            let undefined = softmax.undefined();
            let nll = softmax.nll(in_f32_range(z[j], softmax.max));
            result[0][row * k + i] = j as f64;
            result[1][row * k + i] = if undefined { f64::NAN } else { -nll };
        }
    }
    result
}
