//! What a call gives, what is expected of it, and how far the two are from one another.

use super::compare::{self, Worst};
use super::reference::WithSizes;
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::TensorRef;
use std::fmt;

/// What a result is, and so what it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantity {
    /// The loss.
    Loss,
    /// The z-loss part of it.
    ZLoss,
    /// Log-sum-exp.
    Lse,
    /// Log-probabilities: all, or those of targets.
    Output,
    /// Log-probabilities of all classes, beside those of targets.
    LogProb,
    /// The largest log-probabilities of a row.
    Top,
    /// The classes that have them.
    TopClasses,
    /// The entropy of a row.
    Entropy,
    /// The class that beats all others.
    Argmax,
    /// How many classes beat the target.
    Rank,
    /// The gradient with respect to the input.
    Gradient,
    /// The gradient with respect to the target.
    TargetGradient,
    /// The gradients of all parameters, one after another.
    ParameterGradients,
    /// What lies between the rows of the input, which must stay as it was (NaN).
    Padding,
}

/// One result of a case.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What it is.
    pub quantity: Quantity,
    /// Which call gave it.
    pub pass: &'static str,
    /// The dtype that it was rounded to.
    pub dtype: DType,
    /// The elements, row-major.
    pub values: Vec<f64>,
}

/// A result that comes closest to what is allowed, or passes it.
#[derive(Debug, Clone, Copy)]
pub struct Finding {
    /// What was compared.
    pub quantity: Quantity,
    /// Which call gave it.
    pub pass: &'static str,
    /// The element in question.
    pub worst: Worst,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {}: {}", self.quantity, self.pass, self.worst)
    }
}

/// What the reference says about one quantity.
#[derive(Debug, Clone)]
pub struct Expected {
    quantity: Quantity,
    values: Vec<f64>,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    /// As a loss whose terms have these sizes.
    Loss(Vec<f64>),
    /// As a gradient whose terms have these sizes.
    Gradient(Vec<f64>),
    /// As what passes products whose terms have these sizes.
    Product(Vec<f64>),
}

impl Expected {
    /// Compared as a loss; `sizes` is s of [`compare`]'s table.
    pub fn loss(quantity: Quantity, values: Vec<f64>, sizes: Vec<f64>) -> Expected {
        Expected { quantity, values, rule: Rule::Loss(sizes) }
    }

    /// A result of one term each, like a log-sum-exp.
    pub fn term(quantity: Quantity, values: Vec<f64>) -> Expected {
        let sizes = compare::sizes(&values);
        Expected::loss(quantity, values, sizes)
    }

    /// Compared as a gradient.
    pub fn gradient(quantity: Quantity, values: Vec<f64>) -> Expected {
        let sizes = compare::sizes(&values);
        Expected::summed_gradient(quantity, values, sizes)
    }

    /// Compared as what passes products of matrices, with Σ|terms| of all of them.
    pub fn product(quantity: Quantity, of: WithSizes) -> Expected {
        let WithSizes { values, sizes } = of;
        Expected { quantity, values, rule: Rule::Product(sizes) }
    }

    /// With so many times the tolerance.
    pub(super) fn coarser(mut self, factor: f64) -> Expected {
        match &mut self.rule {
            Rule::Loss(sizes) => sizes.iter_mut().for_each(|s| *s = (1.0 + *s) * factor - 1.0),
            Rule::Gradient(sizes) | Rule::Product(sizes) => {
                sizes.iter_mut().for_each(|s| *s *= factor);
            }
        }
        self
    }

    /// Compared as a gradient that is a sum of terms, with Σ|terms|.
    pub fn summed_gradient(quantity: Quantity, values: Vec<f64>, sizes: Vec<f64>) -> Expected {
        Expected { quantity, values, rule: Rule::Gradient(sizes) }
    }
}

impl Outcome {
    /// An element-by-element copy of a result.
    pub(super) fn new(
        quantity: Quantity,
        pass: &'static str,
        tensor: TensorRef<'_>,
    ) -> Result<Outcome> {
        Ok(Outcome { quantity, pass, dtype: tensor.dtype(), values: tensor.to_f64()? })
    }

    /// With what is expected in the place of elements that are not in question.
    pub(super) fn only(
        mut self,
        expected: &[Expected],
        in_question: impl Fn(usize) -> bool,
    ) -> Outcome {
        let own = expected.iter().find(|e| e.quantity == self.quantity);
        for (i, value) in self.values.iter_mut().enumerate().filter(|(i, _)| !in_question(*i)) {
            *value = own.and_then(|own| own.values.get(i)).copied().unwrap_or(*value);
        }
        self
    }

    pub(super) fn compare(&self, expected: &[Expected]) -> std::result::Result<Finding, String> {
        let Outcome { quantity, pass, dtype, values } = self;
        let untouched;
        let expected = match (expected.iter().find(|e| e.quantity == *quantity), quantity) {
            (Some(expected), _) => expected,
            (None, Quantity::Padding) => {
                untouched = Expected::term(*quantity, vec![f64::NAN; values.len()]);
                &untouched
            }
            (None, _) => return Err(format!("nobody expects {quantity:?} of {pass}")),
        };
        if expected.values.len() != values.len() {
            let (expected, got) = (expected.values.len(), values.len());
            return Err(format!("{quantity:?} of {pass}: expected {expected} elements, got {got}"));
        }
        let worst = match &expected.rule {
            Rule::Gradient(sizes) => {
                compare::summed_gradients(*dtype, values, &expected.values, sizes)
            }
            Rule::Loss(sizes) => compare::losses(*dtype, values, &expected.values, sizes),
            Rule::Product(sizes) => compare::products(*dtype, values, &expected.values, sizes),
        };
        Ok(Finding { quantity: *quantity, pass, worst })
    }
}

/// How many times the tolerance exponentials need that are multiplied by much: logarithms of no
/// probabilities, positive weights of 1e30. Of 16 bits they are good to 2^-17
/// (kernels/core/logarithm.cuh).
pub(super) fn roughness(dtype: DType) -> f64 {
    if dtype == DType::F32 { 1.0 } else { 2f64.powi(-17) / 2e-6 }
}
