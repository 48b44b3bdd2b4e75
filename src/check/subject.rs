//! Who is checked, and the check: every result of a case beside the reference.

use super::case::Case;
use super::outcome::{Finding, Outcome};
use crate::base::error::Result;
use crate::device::Device;

/// Something that computes cases: the engine, or in tests of the check, something wrong.
pub trait Subject {
    /// Computes every result of the case.
    ///
    /// # Errors
    /// Whatever the engine says; cases are legal, so that an error is a mismatch.
    fn compute(&self, case: &Case) -> Result<Vec<Outcome>>;
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
    use super::*;
    use crate::check::catalogue::Op;
    use crate::check::outcome::Quantity;

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
                let case = op.case(seed).unwrap();
                assert!(mismatches(&engine, &case).is_empty(), "{case}");
                found += mismatches(&Wrong(quantity), &case).len();
            }
            assert!(found >= 10, "{op:?} {quantity:?}: found {found}");
        }
    }

    #[test]
    fn a_seed_makes_the_same_case_again() {
        for &op in Op::ALL {
            let [a, b] = [(); 2].map(|()| op.case(7).unwrap());
            assert_eq!(a.to_string(), b.to_string());
            assert_eq!(format!("{:?}", a.memory), format!("{:?}", b.memory));
        }
    }
}
