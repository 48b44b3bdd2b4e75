//! Argmax and the target's rank, row by row.

use super::Lines;

/// The class that beats all others and the number of classes that beat the target, for each row of
/// `logits` (of `shape`); −1 for ignored rows.
///
/// # Panics
/// Where the engine returns an error for shapes or targets, this may panic.
pub fn ranks(shape: &[usize], logits: &[f64], target: &[i64], ignore_index: i64) -> [Vec<f64>; 2] {
    let lines = Lines::new(shape, &[usize::from(shape.len() > 1)]);
    let mut result = [vec![-1.0; target.len()], vec![-1.0; target.len()]];
    for (row, &t) in target.iter().enumerate().filter(|(_, t)| **t != ignore_index) {
        let x = lines.read(row, logits);
        // NaN is the largest; of equals the lower index wins.
        let beats = |i: usize, j: usize| match (x[i].is_nan(), x[j].is_nan()) {
            (true, true) => i < j,
            (a, b) if a != b => a,
            _ => x[i] > x[j] || (x[i] == x[j] && i < j),
        };
        let mut best = 0;
        for i in 1..x.len() {
            if beats(i, best) {
                best = i;
            }
        }
        result[0][row] = best as f64;
        result[1][row] = (0..x.len()).filter(|&i| beats(i, t as usize)).count() as f64;
    }
    result
}
