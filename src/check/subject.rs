//! Who is checked, and the check: every result of a case beside the reference.

use super::cases::{Call, Case, CrossEntropyCall};
use super::compare::{self, Worst};
use super::{reference, typed};
use crate::{CrossEntropyOut, DType, Device, LogSoftmax, LogSumExp, Result, Shape, Tensor};
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
    /// Log-probabilities.
    Output,
    /// The gradient with respect to the input.
    Gradient,
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
    let expected = expect(case).map_err(|e| format!("the reference failed: {e}"))?;
    let outcomes = subject.compute(case).map_err(|e| format!("expected a result, got: {e}"))?;
    outcomes.iter().map(|outcome| expected.compare(outcome)).collect()
}

/// What the reference says about a case.
#[derive(Debug, Default)]
struct Expected {
    loss: Vec<f64>,
    loss_size: Vec<f64>,
    z_loss: Vec<f64>,
    lse: Vec<f64>,
    output: Vec<f64>,
    gradient: Vec<f64>,
}

impl Expected {
    fn compare(&self, outcome: &Outcome) -> std::result::Result<Finding, String> {
        let Outcome { quantity, pass, dtype, values } = outcome;
        let sizes;
        let (expected, size) = match quantity {
            Quantity::Loss => (&self.loss, &self.loss_size),
            Quantity::ZLoss => (&self.z_loss, &compare::sizes(&self.z_loss)),
            Quantity::Lse => (&self.lse, &compare::sizes(&self.lse)),
            Quantity::Output => (&self.output, &compare::sizes(&self.output)),
            Quantity::Gradient => (&self.gradient, &self.gradient),
            Quantity::Padding => {
                sizes = vec![f64::NAN; values.len()];
                (&sizes, &sizes)
            }
        };
        if expected.len() != values.len() {
            let (expected, got) = (expected.len(), values.len());
            return Err(format!("{quantity:?} of {pass}: expected {expected} elements, got {got}"));
        }
        let worst = match quantity {
            Quantity::Gradient => compare::gradients(*dtype, values, expected),
            _ => compare::losses(*dtype, values, expected, size),
        };
        Ok(Finding { quantity: *quantity, pass, worst })
    }
}

fn expect(case: &Case) -> Result<Expected> {
    let x = case.input()?.to_f64()?;
    Ok(match &case.call {
        Call::CrossEntropy(call) => {
            let target = reference::indices(call.target())?;
            let g = reference::upstream(call.grad_output())?;
            let out = reference::cross_entropy(&call.loss(), &case.shape, &x, &target, &g);
            Expected {
                loss: out.loss,
                loss_size: out.loss_size,
                z_loss: out.z_loss,
                lse: out.lse,
                gradient: out.grad_logits,
                ..Expected::default()
            }
        }
        Call::LogSoftmax { dim, grad_output, .. } => {
            let g = grad_output.view().to_f64()?;
            Expected {
                output: reference::log_softmax(&case.shape, *dim, &x),
                gradient: reference::log_softmax_grad(&case.shape, *dim, &x, &g),
                ..Expected::default()
            }
        }
        Call::LogSumExp { dims, grad_output, .. } => {
            let g = grad_output.view().to_f64()?;
            Expected {
                lse: reference::logsumexp(&case.shape, dims, &x),
                gradient: reference::logsumexp_grad(&case.shape, dims, &x, &g),
                ..Expected::default()
            }
        }
    })
}

/// The engine on a device.
#[derive(Debug, Clone)]
pub struct Engine(pub Device);

impl Subject for Engine {
    fn compute(&self, case: &Case) -> Result<Vec<Outcome>> {
        match &case.call {
            Call::CrossEntropy(call) => self.cross_entropy(case, call),
            Call::LogSoftmax { dim, output, grad_output } => {
                let input = case.input()?;
                let op = LogSoftmax::dim(*dim);
                let mut out = Tensor::zeros("output", *output, input.shape())?;
                op.forward_into(&self.0, input, out.view_mut())?;
                let grad = op.backward(&self.0, input, grad_output.view())?;
                Ok(vec![
                    outcome(Quantity::Output, "forward", &out)?,
                    outcome(Quantity::Gradient, "backward", &grad)?,
                ])
            }
            Call::LogSumExp { dims, keepdim, grad_output } => {
                let input = case.input()?;
                let op = LogSumExp::dims(dims)?.keepdim(*keepdim);
                let lse = op.forward(&self.0, input)?;
                let grad = op.backward(&self.0, input, lse.view(), grad_output.view())?;
                Ok(vec![
                    outcome(Quantity::Lse, "forward", &lse)?,
                    outcome(Quantity::Gradient, "backward", &grad)?,
                ])
            }
        }
    }
}

impl Engine {
    /// Forward, backward from its log-sum-exp, and the fused call on a copy of the logits.
    fn cross_entropy(&self, case: &Case, call: &CrossEntropyCall) -> Result<Vec<Outcome>> {
        let (logits, target, loss) = (case.input()?, call.target(), call.loss());
        let g = call.grad_output();
        let out = loss.forward(&self.0, logits, target)?;
        let grad = loss.backward(&self.0, logits, target, out.lse.view(), g)?;
        let mut outcomes = vec![
            outcome(Quantity::Loss, "forward", &out.loss)?,
            outcome(Quantity::ZLoss, "forward", &out.z_loss)?,
            outcome(Quantity::Lse, "forward", &out.lse)?,
            outcome(Quantity::Gradient, "backward", &grad)?,
        ];

        let mut memory = case.memory.clone();
        let mut fused_loss = Tensor::zeros("loss", DType::F32, out.loss.shape())?;
        let mut fused_lse = Tensor::zeros("lse", DType::F32, out.lse.shape())?;
        let fused = CrossEntropyOut {
            loss: fused_loss.view_mut(),
            lse: Some(fused_lse.view_mut()),
            z_loss: None,
        };
        let view = typed::strided_mut(&mut memory, &case.shape, case.row_stride)?;
        loss.forward_backward_in_place(&self.0, view, target, g, fused)?;
        let pass = "forward-backward";
        outcomes.push(outcome(Quantity::Loss, pass, &fused_loss)?);
        outcomes.push(outcome(Quantity::Lse, pass, &fused_lse)?);
        let gradient = typed::strided(&memory, &case.shape, case.row_stride)?.to_f64()?;
        outcomes.push(Outcome {
            quantity: Quantity::Gradient,
            pass,
            dtype: case.dtype,
            values: gradient,
        });
        outcomes.push(Outcome {
            quantity: Quantity::Padding,
            pass,
            dtype: case.dtype,
            values: padding(case, &memory)?,
        });
        Ok(outcomes)
    }
}

fn outcome(quantity: Quantity, pass: &'static str, tensor: &Tensor) -> Result<Outcome> {
    let values = tensor.view().to_f64()?;
    Ok(Outcome { quantity, pass, dtype: tensor.dtype(), values })
}

/// What stands between the rows.
fn padding(case: &Case, memory: &Tensor) -> Result<Vec<f64>> {
    let shape = Shape::new(&case.shape).unwrap_or(Shape::SCALAR);
    let row: usize = shape.iter().skip(1).product();
    let data = memory.view().to_f64()?;
    let between = data.chunks(case.row_stride.max(1)).flat_map(|r| r.iter().skip(row));
    Ok(between.copied().collect())
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
        for op in Op::ALL {
            let [a, b] = [(); 2].map(|()| Case::new(op, 7).unwrap());
            assert_eq!(a.to_string(), b.to_string());
            assert_eq!(format!("{:?}", a.memory), format!("{:?}", b.memory));
        }
    }
}
