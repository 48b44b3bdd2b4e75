//! Whether two devices say the same of a call.

use super::bound::{Bound, Memory};
use super::call::{Call, Role};
use super::ops;
use super::run::{Ending, Outcome, Value};
use crate::check::compare;
use crate::check::subject::{self, Expected, Quantity};
use crate::{DType, Device, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A device's name, and what came of the call there.
pub type Named<'a> = (&'a str, &'a Outcome);

/// What differs, in words; `None` where nothing does.
pub fn difference(call: &Call, a: Named<'_>, b: Named<'_>) -> Option<String> {
    for (name, outcome) in [a, b] {
        if let Ending::Panicked(text) = &outcome.ending {
            return Some(format!("{name} panicked: {text}"));
        }
        if !outcome.touched.is_empty() {
            let told = ending(outcome);
            return Some(format!("{name} touched {}: {told}", outcome.touched.join(", ")));
        }
    }
    if ending(a.1) != ending(b.1) {
        return Some(format!("{}: {}; {}: {}", a.0, ending(a.1), b.0, ending(b.1)));
    }
    values(call, a, b)
}

/// In words and to the letter.
fn ending(outcome: &Outcome) -> String {
    match &outcome.ending {
        Ending::Done => "done".into(),
        Ending::Refused(error) => format!("refused, {error} ({})", kind(error)),
        Ending::Panicked(text) => format!("panicked, {text}"),
    }
}

/// The name of an error's variant.
fn kind(error: &crate::Error) -> String {
    let text = format!("{error:?}");
    text.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}

fn values(call: &Call, a: Named<'_>, b: Named<'_>) -> Option<String> {
    let layout = |o: &Outcome| -> Vec<(String, DType, Vec<usize>)> {
        o.values.iter().map(|v| (v.name.clone(), v.dtype, v.shape.clone())).collect()
    };
    if layout(a.1) != layout(b.1) {
        return Some(format!("{}: {:?}; {}: {:?}", a.0, layout(a.1), b.0, layout(b.1)));
    }
    let apart: Vec<(&Value, &Value)> = a.1.values.iter().zip(&b.1.values).collect();
    let apart = apart.into_iter().filter(|(x, y)| !near(call, x, y));
    let mut reference = None;
    for (x, y) in apart {
        let reference = reference.get_or_insert_with(|| expected(call));
        let verdicts = [x, y].map(|value| verdict(call, reference, value));
        let told = match &verdicts {
            [Verdict::Agrees, Verdict::Agrees] => continue,
            [Verdict::Unknown, _] | [_, Verdict::Unknown] => apart_at(x, y),
            [Verdict::Off(why), Verdict::Agrees] => format!("{} is off: {why}", a.0),
            [Verdict::Agrees, Verdict::Off(why)] => format!("{} is off: {why}", b.0),
            [Verdict::Off(one), Verdict::Off(other)] => {
                format!("{} is off: {one}; {} is off: {other}", a.0, b.0)
            }
        };
        return Some(format!("{}: {told}", x.name));
    }
    None
}

/// The first element at which two values are not the same, in words.
fn apart_at(x: &Value, y: &Value) -> String {
    let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
    let pairs = x.values.iter().zip(&y.values);
    let largest = pairs.clone().enumerate().filter(|(_, (a, b))| !same(**a, **b));
    let gap = |(a, b): (&f64, &f64)| {
        let gap = (a - b).abs();
        if gap.is_finite() { gap } else { f64::INFINITY }
    };
    let worst = largest.max_by(|(_, p), (_, q)| gap(*p).total_cmp(&gap(*q)));
    worst.map_or(String::new(), |(i, (a, b))| format!("element {i}: {a:e} and {b:e}"))
}

/// Whether a result passes products of matrices.
fn products(call: &Call) -> bool {
    use crate::check::cases::Op::{AdaptiveEmbedding, AdaptiveLogSoftmax, SampledSoftmax};
    matches!(call.op, AdaptiveEmbedding | AdaptiveLogSoftmax | SampledSoftmax)
}

/// Whether two answers are within the specification's tolerance of one another, as far as that is
/// to be told from the two alone: sums of terms that cancel are for the reference.
fn near(call: &Call, x: &Value, y: &Value) -> bool {
    let (dtype, a, b) = (x.dtype, &x.values, &y.values);
    if dtype.is_index() {
        return a == b;
    }
    let worst = match quantity(&x.name) {
        Quantity::Gradient | Quantity::TargetGradient | Quantity::ParameterGradients => {
            compare::gradients(dtype, a, b)
        }
        _ => compare::losses(dtype, a, b, &compare::sizes(b)),
    };
    let factor = if products(call) { 10.0 } else { 1.0 };
    worst.error <= factor * worst.allowed
}

/// What the reference has under a value's name.
fn quantity(name: &str) -> Quantity {
    match name {
        "z_loss" => Quantity::ZLoss,
        "lse" => Quantity::Lse,
        "output" | "logprob" => Quantity::Output,
        "log_prob" => Quantity::LogProb,
        "top" => Quantity::Top,
        "entropy" => Quantity::Entropy,
        "argmax" => Quantity::Argmax,
        "rank" => Quantity::Rank,
        "grad_target" => Quantity::TargetGradient,
        "logits" | "input" | "grad_input" | "grad_logits" => Quantity::Gradient,
        _ if name.starts_with("grad_") => Quantity::ParameterGradients,
        _ => Quantity::Loss,
    }
}

enum Verdict {
    Agrees,
    Off(String),
    /// The reference does not say.
    Unknown,
}

/// What the reference says of a value.
fn verdict(call: &Call, expected: &Option<Vec<Expected>>, value: &Value) -> Verdict {
    let Some(expected) = expected else { return Verdict::Unknown };
    let quantity = quantity(&value.name);
    if quantity == Quantity::ParameterGradients {
        return Verdict::Unknown;
    }
    let outcome = subject::Outcome {
        quantity,
        pass: call.form,
        dtype: value.dtype,
        values: value.values.clone(),
    };
    match outcome.compare(expected) {
        Ok(finding) if finding.worst.agrees() => Verdict::Agrees,
        Ok(finding) => Verdict::Off(finding.to_string()),
        Err(_) => Verdict::Unknown,
    }
}

/// The f64 reference; it takes right calls only, and may say nothing.
fn expected(call: &Call) -> Option<Vec<Expected>> {
    let of = |call: &Call| -> Result<Vec<Expected>> {
        let device = Device::cpu();
        let mut memory = Memory::new(call, &device)?;
        let bound = Bound::new(call, &device, &mut memory)?;
        (ops::row(call.op).expect)(&bound)
    };
    let mut call = call.clone();
    call.resident = false;
    call.tensors.iter_mut().filter(|g| g.role != Role::Written).for_each(|g| g.role = Role::Read);
    catch_unwind(AssertUnwindSafe(|| of(&call))).ok()?.ok()
}
