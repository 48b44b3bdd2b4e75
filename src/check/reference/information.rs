//! Entropy, cross entropy and Kullback–Leibler divergence of probabilities.

use super::Lines;
use super::products::WithSizes;

/// One value a row, and Σ|terms| of it; `what` is the function's name in [`crate::information`].
///
/// A class of probability 0 adds nothing, whatever q is; what is below 0, or NaN, gives NaN.
pub fn information(what: &str, shape: &[usize], (p, q): (&[f64], &[f64])) -> WithSizes {
    let lines = Lines::new(shape, &[usize::from(shape.len() > 1)]);
    let term = |p: f64, q: f64| match what {
        _ if p == 0.0 => 0.0,
        "entropy" => -p * p.ln(),
        "cross_entropy" => -p * q.ln(),
        _ => p * (p.ln() - q.ln()),
    };
    let mut result = WithSizes::default();
    for line in 0..lines.bases.len() {
        let terms = lines.read(line, p).into_iter().zip(lines.read(line, q));
        let terms: Vec<f64> = terms.map(|(p, q)| term(p, q)).collect();
        result.push(terms.iter().sum(), terms.iter().map(|t| t.abs()).sum());
    }
    result
}
