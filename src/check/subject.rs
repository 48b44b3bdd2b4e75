//! Who is checked, and the check: every result of a case beside the reference.

use super::cases::Case;
use super::compare::{self, Worst};
use super::reference::WithSizes;
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorRef};
use crate::device::Device;
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

/// Something that computes cases: the engine, or in tests of the check, something wrong.
pub trait Subject {
    /// Computes every result of the case.
    ///
    /// # Errors
    /// Whatever the engine says; cases are legal, so that an error is a mismatch.
    fn compute(&self, case: &Case) -> Result<Vec<Outcome>>;
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

/// Compares every result with the reference: a finding for each; what cannot be compared is a
/// mismatch in words.
///
/// # Errors
/// The subject returned an error or a result of another size than the reference's.
pub fn check(subject: &dyn Subject, case: &Case) -> std::result::Result<Vec<Finding>, String> {
    let expected = case.call.expect(case).map_err(|e| format!("the reference failed: {e}"))?;
    let outcomes = subject.compute(case).map_err(|e| format!("expected a result, got: {e}"))?;
    outcomes.iter().map(|outcome| outcome.compare(&expected)).collect()
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

    /// What stands between the rows of `memory`, laid out as the case's input.
    pub(super) fn padding(case: &Case, pass: &'static str, memory: &Tensor) -> Result<Outcome> {
        let shape = Shape::new(&case.shape).unwrap_or(Shape::SCALAR);
        let row: usize = shape.iter().skip(1).product();
        let data = memory.view().to_f64()?;
        let between = data.chunks(case.row_stride.max(1)).flat_map(|r| r.iter().skip(row));
        let values = between.copied().collect();
        let (quantity, dtype) = (Quantity::Padding, case.dtype);
        Ok(Outcome { quantity, pass, dtype, values })
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

/// The engine on a device.
#[derive(Debug, Clone)]
pub struct Engine(pub Device);

impl Subject for Engine {
    fn compute(&self, case: &Case) -> Result<Vec<Outcome>> {
        case.call.compute(&self.0, case)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases::Op;
    use super::*;

    /// The engine, except that one element of one quantity is off.
    struct Wrong(Quantity);

    impl Subject for Wrong {
        fn compute(&self, case: &Case) -> Result<Vec<Outcome>> {
            let mut outcomes = Engine(Device::cpu()).compute(case)?;
            for outcome in outcomes.iter_mut().filter(|o| o.quantity == self.0) {
                if let Some(value) = outcome.values.last_mut() {
                    *value = if value.is_finite() { *value * 1.1 + 1.0 } else { 0.0 };
                }
            }
            Ok(outcomes)
        }
    }

    fn mismatches(subject: &dyn Subject, case: &Case) -> Vec<Finding> {
        let findings = check(subject, case).unwrap();
        findings.into_iter().filter(|f| !f.worst.agrees()).collect()
    }

    #[test]
    fn the_engine_passes_and_a_wrong_one_is_found_out() {
        let engine = Engine(Device::cpu());
        for (op, quantity) in [
            (Op::CrossEntropy, Quantity::Loss),
            (Op::CrossEntropy, Quantity::Gradient),
            (Op::CrossEntropy, Quantity::Lse),
            (Op::CrossEntropy, Quantity::Padding),
            (Op::LogSoftmax, Quantity::Output),
            (Op::LogSumExp, Quantity::Gradient),
            (Op::Nll, Quantity::Gradient),
            (Op::SoftCrossEntropy, Quantity::Gradient),
            (Op::SoftCrossEntropy, Quantity::TargetGradient),
            (Op::AdaptiveLogSoftmax, Quantity::LogProb),
            (Op::AdaptiveLogSoftmax, Quantity::ParameterGradients),
        ] {
            let mut found = 0;
            for seed in 0..40 {
                let case = Case::new(op, seed).unwrap();
                assert!(mismatches(&engine, &case).is_empty(), "{case}");
                found += mismatches(&Wrong(quantity), &case).len();
            }
            assert!(found >= 10, "{op:?} {quantity:?}: found {found}");
        }
    }

    #[test]
    fn a_seed_makes_the_same_case_again() {
        for &op in Op::ALL {
            let [a, b] = [(); 2].map(|()| Case::new(op, 7).unwrap());
            assert_eq!(a.to_string(), b.to_string());
            assert_eq!(format!("{:?}", a.memory), format!("{:?}", b.memory));
        }
    }
}
