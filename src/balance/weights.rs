//! Class weights from how often each class occurs.

use crate::base::error::{Count, Error, Result};
use crate::base::validate;

/// How a class's weight follows from its count n_c.
///
/// With n = Σ n_c and C the number of classes that have samples:
///
/// | rule | weight | normalisation unless set |
/// |---|---|---|
/// | [`inverse_frequency`](ClassWeights::inverse_frequency) | n / (C·n_c) | none |
/// | [`effective_number`](ClassWeights::effective_number) | (1 − β) / (1 − β^n_c) | Σ w = C |
///
/// A class without samples has weight 0 under every rule and normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassWeights {
    rule: Rule,
    normalization: Normalization,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    InverseFrequency,
    EffectiveNumber { beta: f64 },
}

/// What weights are scaled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Normalization {
    /// As the rule gives them.
    None,
    /// Σ w_c = C, the number of classes that have samples.
    Classes,
    /// Σ n_c·w_c = n: over the data set the mean weight of a sample is 1, and so a learning rate
    /// keeps its meaning.
    Samples,
}

impl ClassWeights {
    /// n / (C·n_c), scikit-learn's "balanced": Σ n_c·w_c = n without further scaling.
    pub fn inverse_frequency() -> ClassWeights {
        ClassWeights { rule: Rule::InverseFrequency, normalization: Normalization::None }
    }

    /// (1 − β) / (1 − β^n_c), scaled to Σ w = C (Cui et al. 2019, "Class-Balanced Loss Based on
    /// Effective Number of Samples"): β = 0 makes all alike, β towards 1 the inverse frequency.
    pub fn effective_number(beta: f64) -> ClassWeights {
        let rule = Rule::EffectiveNumber { beta };
        ClassWeights { rule, normalization: Normalization::Classes }
    }

    /// What the weights are scaled to.
    pub fn normalization(mut self, normalization: Normalization) -> Self {
        self.normalization = normalization;
        self
    }

    fn weight(&self, count: u64, mean_count: f64) -> f64 {
        let n = count as f64;
        match self.rule {
            _ if count == 0 => 0.0,
            Rule::InverseFrequency => mean_count / n,
            // 1 − β^n, without the cancellation of a β near 1.
            Rule::EffectiveNumber { beta } => (1.0 - beta) / -(n * beta.ln()).exp_m1(),
        }
    }
}

/// The weight of every class from its number of samples, as the losses' `weight` takes it.
///
/// Computed in f64 and rounded once; every weight is finite, for any counts.
///
/// ```
/// use warploss::balance::{ClassWeights, weights_from_counts};
/// let weights = weights_from_counts(&[60, 30, 0, 10], ClassWeights::inverse_frequency())?;
/// assert_eq!(weights, [100.0 / 180.0, 100.0 / 90.0, 0.0, 100.0 / 30.0]);
/// # Ok::<(), warploss::Error>(())
/// ```
///
/// # Errors
/// [`Error::Value`] where no class has samples, or β lies outside [0, 1).
pub fn weights_from_counts(counts: &[u64], rule: ClassWeights) -> Result<Vec<f32>> {
    if let Rule::EffectiveNumber { beta } = rule.rule {
        validate::value("beta", beta, (0.0..1.0).contains(&beta), "a number in [0, 1)")?;
    }
    let samples: f64 = counts.iter().map(|&n| u128::from(n)).sum::<u128>() as f64;
    let classes = counts.iter().filter(|&&n| n > 0).count() as f64;
    if classes == 0.0 {
        return Err(Error::Value {
            argument: "counts",
            expected: "at least one class with samples".into(),
            got: format!("none among {}", Count(counts.len(), "class")),
        });
    }
    let weight = |&count: &u64| rule.weight(count, samples / classes);
    let scale = match rule.normalization {
        Normalization::None => 1.0,
        Normalization::Classes => classes / counts.iter().map(weight).sum::<f64>(),
        Normalization::Samples => {
            samples / counts.iter().map(|n| *n as f64 * weight(n)).sum::<f64>()
        }
    };
    let mut weights = Vec::new();
    weights
        .try_reserve_exact(counts.len())
        .map_err(|_| Error::no_memory("weight", size_of_val(counts) / 2))?;
    weights.extend(counts.iter().map(|count| (scale * weight(count)) as f32));
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ClassWeights as W;

    #[track_caller]
    fn close(got: &[f32], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (g, e) in got.iter().zip(expected) {
            assert!((f64::from(*g) - e).abs() <= 6e-8 * e.abs(), "{got:?} {expected:?}");
        }
    }

    #[test]
    fn inverse_frequency_is_scikit_learns_balanced() {
        // compute_class_weight("balanced", …) for 5, 3 and 1 samples.
        let weights = weights_from_counts(&[5, 3, 1], W::inverse_frequency()).unwrap();
        close(&weights, &[0.6, 1.0, 3.0]);
        // A class without samples changes nothing for the others.
        let weights = weights_from_counts(&[5, 0, 3, 1, 0], W::inverse_frequency()).unwrap();
        close(&weights, &[0.6, 0.0, 1.0, 3.0, 0.0]);
    }

    #[test]
    fn effective_numbers_are_those_of_their_definition() {
        let (beta, counts) = (0.9, [1u64, 2, 10, 400]);
        let raw = counts.map(|n| (1.0 - beta) / (1.0 - f64::powi(beta, n as i32)));
        let sum: f64 = raw.iter().sum();
        let rule = W::effective_number(beta);
        close(&weights_from_counts(&counts, rule).unwrap(), &raw.map(|w| 4.0 * w / sum));
        let unscaled = rule.normalization(Normalization::None);
        close(&weights_from_counts(&counts, unscaled).unwrap(), &raw);
    }

    #[test]
    fn beta_0_makes_all_alike_and_beta_near_1_is_the_inverse_frequency() {
        let counts = [1, 10, 0, 1000];
        let alike = weights_from_counts(&counts, W::effective_number(0.0)).unwrap();
        assert_eq!(alike, [1.0, 1.0, 0.0, 1.0]);
        // 1 − β^n by subtraction would have no digit left.
        let near = W::effective_number(1.0 - f64::EPSILON / 2.0);
        let near = weights_from_counts(&counts, near.normalization(Normalization::Samples));
        close(&near.unwrap(), &[1011.0 / 3.0, 1011.0 / 30.0, 0.0, 1011.0 / 3000.0]);
    }

    #[test]
    fn normalisations_give_the_sums_that_they_promise() {
        let counts: Vec<u64> = (0..2_000_000u64).map(|i| i * i % 977).collect();
        let n: u64 = counts.iter().sum();
        let classes = counts.iter().filter(|&&n| n > 0).count() as f64;
        for rule in [W::inverse_frequency(), W::effective_number(0.999)] {
            let sums = |normalization| {
                let weights = weights_from_counts(&counts, rule.normalization(normalization));
                let weights = weights.unwrap();
                assert!(weights.iter().all(|w| w.is_finite()));
                assert!(weights.iter().zip(&counts).all(|(w, n)| (*w == 0.0) == (*n == 0)));
                let plain: f64 = weights.iter().map(|w| f64::from(*w)).sum();
                let per_sample = weights.iter().zip(&counts);
                (plain, per_sample.map(|(w, n)| f64::from(*w) * *n as f64).sum::<f64>())
            };
            assert!((sums(Normalization::Classes).0 / classes - 1.0).abs() < 1e-7);
            assert!((sums(Normalization::Samples).1 / n as f64 - 1.0).abs() < 1e-7);
        }
    }

    #[test]
    fn the_largest_counts_give_finite_weights() {
        let counts = [u64::MAX, 1, u64::MAX, 0];
        let betas = [0.0, f64::MIN_POSITIVE, 0.5, 1.0 - f64::EPSILON / 2.0];
        let rules = betas.map(W::effective_number).into_iter().chain([W::inverse_frequency()]);
        for rule in rules {
            for to in [Normalization::None, Normalization::Classes, Normalization::Samples] {
                let weights = weights_from_counts(&counts, rule.normalization(to)).unwrap();
                let legal = |w: &f32| w.is_finite() && *w > 0.0;
                assert!(weights[..3].iter().all(legal), "{rule:?} {to:?} {weights:?}");
                assert_eq!(weights[3], 0.0);
            }
        }
    }

    #[test]
    fn illegal_arguments_are_named() {
        for counts in [&[][..], &[0, 0]] {
            let error = weights_from_counts(counts, W::inverse_frequency()).unwrap_err();
            assert!(error.to_string().starts_with("counts: expected at least one"), "{error}");
        }
        for beta in [1.0, -0.1, f64::NAN, f64::INFINITY] {
            let error = weights_from_counts(&[1, 2], W::effective_number(beta)).unwrap_err();
            let text = format!("beta: expected a number in [0, 1), got {beta}");
            assert_eq!(error.to_string(), text);
        }
    }
}
