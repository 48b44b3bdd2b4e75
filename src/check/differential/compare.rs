//! Whether two devices say the same of a call.

use super::run::{Ending, Outcome, Value};
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::check::call::bound::{Bound, Memory};
use crate::check::call::{Call, Given, Role, Setpoint, Setting};
use crate::check::entry::Reference;
use crate::check::outcome::{self, Expected, Quantity};
use crate::check::{catalogue, compare};
use crate::device::Device;
use half::f16;
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
fn kind(error: &Error) -> String {
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
    let mut reference = None;
    let (wild, overflows) = (wild(call), overflows(call));
    for (x, y) in a.1.values.iter().zip(&b.1.values) {
        let excused;
        let (x, y) = if wild || overflows {
            excused = excuse([x.clone(), y.clone()], overflows);
            (&excused[0], &excused[1])
        } else {
            (x, y)
        };
        let Some(apart) = apart(call, x, y) else { continue };
        let reference = reference.get_or_insert_with(|| expected(call));
        let verdicts = [(x, y), (y, x)].map(|pair| verdict(call, reference, pair));
        let told = match &verdicts {
            [Verdict::Agrees, Verdict::Agrees] => continue,
            [Verdict::Unknown, _] | [_, Verdict::Unknown] => apart,
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

/// The tensors that a call reads and leaves as they are.
fn read(call: &Call) -> impl Iterator<Item = &Given> {
    call.tensors.iter().filter(|given| given.present && given.role == Role::Read)
}

/// Whether a factor of the results other than the upstream gradient is infinite or NaN: what vanishes
/// beside it is NaN or infinite as it is 0 or nearly so.
fn wild(call: &Call) -> bool {
    let factor = |name: &str| match name {
        "weight" | "pos_weight" | "variance" => true,
        _ => catalogue::of(call).traits.factors.contains(&name),
    };
    read(call).any(|given| {
        factor(&given.name)
            && !given.dtype.is_index()
            && !given.values.iter().all(|x| finite(given.dtype, *x))
    })
}

/// Whether it is a number in the dtype.
fn finite(dtype: DType, x: f64) -> bool {
    match dtype {
        DType::F16 => f16::from_f64(x).is_finite(),
        _ => (x as f32).is_finite(),
    }
}

/// Whether products may leave f32 on one device's way to results, and not on another's: those of
/// matrices, those of what is no probability with its logarithm, and those with an upstream gradient
/// near the end of f32.
fn overflows(call: &Call) -> bool {
    const LARGE: f64 = 1e18;
    const END: f64 = 1e30;
    let upstream = |name: &str| name.starts_with("grad_");
    let at_end = |given: &Given| {
        upstream(&given.name)
            && given.values.iter().any(|x| x.abs() > END || !finite(given.dtype, *x))
    };
    let number = |setting: &Setting| match &setting.value {
        Setpoint::Number(x) => upstream(setting.name) && x.abs() > END,
        _ => false,
    };
    if read(call).any(at_end) || call.settings.iter().any(number) {
        return true;
    }
    let large = |given: &Given| {
        given.present && given.values.iter().any(|x| x.is_finite() && x.abs() > LARGE)
    };
    catalogue::of(call).traits.overflows && call.tensors.iter().any(large)
}

/// NaN for both elements where neither is finite, or with `one` where one is not.
fn excuse([mut a, mut b]: [Value; 2], one: bool) -> [Value; 2] {
    for (x, y) in a.values.iter_mut().zip(&mut b.values) {
        let infinite = [!x.is_finite(), !y.is_finite()];
        if infinite == [true; 2] || (one && infinite != [false; 2]) {
            (*x, *y) = (f64::NAN, f64::NAN);
        }
    }
    [a, b]
}

/// Whether a result passes products of matrices.
fn products(call: &Call) -> bool {
    catalogue::of(call).traits.layer
}

/// The element at which two answers are further from one another than the specification's tolerance,
/// in words, as far as that is to be told from the two alone: sums of terms that cancel are for the
/// reference.
fn apart(call: &Call, x: &Value, y: &Value) -> Option<String> {
    let (dtype, a, b) = (x.dtype, &x.values, &y.values);
    let at = |i: usize| format!("element {i}: {:e} and {:e}", a[i], b[i]);
    if dtype.is_index() {
        return (0..a.len()).find(|&i| a[i] != b[i]).map(at);
    }
    let worst = match quantity(&x.name) {
        Quantity::Gradient | Quantity::TargetGradient | Quantity::ParameterGradients => {
            compare::gradients(dtype, a, b)
        }
        _ => compare::losses(dtype, a, b, &compare::sizes(b)),
    };
    let factor = if products(call) { 10.0 } else { 1.0 };
    (worst.error > factor * worst.allowed).then(|| at(worst.index))
}

/// What the reference has under a value's name.
fn quantity(name: &str) -> Quantity {
    match name {
        "z_loss" => Quantity::ZLoss,
        "lse" => Quantity::Lse,
        "output" | "logprob" => Quantity::Output,
        "log_prob" => Quantity::LogProb,
        "top" | "top_k.logprob" => Quantity::Top,
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

/// What the reference says of a value where another one differs: what is wrong alike on both devices
/// is for `check` without `--differential`.
fn verdict(
    call: &Call,
    reference: &Option<Reference>,
    (value, other): (&Value, &Value),
) -> Verdict {
    let Some(reference) = reference else { return Verdict::Unknown };
    if matches!(value.name.as_str(), "predict" | "top_classes") {
        return picks(reference, value);
    }
    if value.dtype.is_index() && !matches!(value.name.as_str(), "argmax" | "rank") {
        return Verdict::Unknown;
    }
    let named = reference.gradients.iter().find(|(name, _)| *name == value.name);
    let quantity = match named {
        Some(_) => Quantity::ParameterGradients,
        None => quantity(&value.name),
    };
    let own = named.map(|(_, grad)| [Expected::product(quantity, grad.clone())]);
    let expected = own.as_ref().map_or(&reference.expected[..], |own| own);
    let outcome = outcome::Outcome {
        quantity,
        pass: call.form,
        dtype: value.dtype,
        values: value.values.clone(),
    };
    let (a, b) = (&value.values, &other.values);
    let outcome = outcome.only(expected, |i| a[i] != b[i] && !(a[i].is_nan() && b[i].is_nan()));
    match outcome.compare(expected) {
        Ok(finding) if finding.worst.agrees() => Verdict::Agrees,
        Ok(finding) => Verdict::Off(finding.to_string()),
        Err(_) => Verdict::Unknown,
    }
}

/// Whether classes are as likely as those that the reference would pick, one after another.
fn picks(reference: &Reference, value: &Value) -> Verdict {
    let Some((log_prob, classes)) = &reference.picked_by else { return Verdict::Unknown };
    let rows = log_prob.values.len() / (*classes).max(1);
    let k = value.values.len().checked_div(rows).unwrap_or(0);
    let best = log_prob.top(*classes, k.min(*classes));
    let pairs = value.values.iter().zip(best.values.iter().zip(&best.sizes));
    for (i, (&class, (&best, &size))) in pairs.enumerate() {
        let row = i / k.max(1);
        let own = log_prob.values[row * classes..][..*classes].get(class as usize);
        let likely = own.is_some_and(|own| {
            let worst = compare::products(DType::F32, &[*own], &[best], &[size]);
            worst.agrees()
        });
        if !likely {
            return Verdict::Off(format!(
                "element {i}: class {class} has {own:?}, the best {best}"
            ));
        }
    }
    Verdict::Agrees
}

/// The f64 reference; it takes right calls only, and may say nothing.
fn expected(call: &Call) -> Option<Reference> {
    let of = |call: &Call| -> Result<Reference> {
        let device = Device::cpu();
        let mut memory = Memory::new(call, &device)?;
        let bound = Bound::new(call, &device, &mut memory)?;
        (catalogue::of(call).calls.expect)(&bound)
    };
    let mut call = call.clone();
    call.resident = false;
    call.tensors.iter_mut().filter(|g| g.role != Role::Written).for_each(|g| g.role = Role::Read);
    catch_unwind(AssertUnwindSafe(|| of(&call))).ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::super::run::run;
    use super::*;
    use crate::base::error::Error;
    use crate::base::reduction::Reduction;
    use crate::check::catalogue::Op;

    /// A call of the op that ends as asked, and its outcome.
    fn call(op: Op, refused: bool) -> (Call, Outcome) {
        let ends = |seed: u64| {
            let call = super::super::draw(op, seed);
            let outcome = run(&call, &Device::cpu());
            let fits = matches!(outcome.ending, Ending::Refused(_)) == refused;
            fits.then_some((call, outcome))
        };
        (0..).find_map(ends).unwrap()
    }

    #[test]
    fn another_message_or_another_kind_of_error_differs() {
        for &op in Op::ALL {
            let (call, right) = call(op, true);
            assert_eq!(difference(&call, ("a", &right), ("b", &right)), None, "{op:?}");
            let text = "a text".to_owned();
            let mut wrong = right.clone();
            wrong.ending = Ending::Refused(Error::Device { reason: text.clone() });
            let found = difference(&call, ("a", &right), ("b", &wrong)).unwrap();
            assert!(found.contains("b: refused, device: a text"), "{found}");
            let value = Error::Value { argument: "x", expected: text.clone(), got: text.clone() };
            let shape = Error::Rank { argument: "x", expected: text.clone(), got: 1 };
            let [a, b] = [value, shape]
                .map(|error| Outcome { ending: Ending::Refused(error), ..right.clone() });
            assert!(difference(&call, ("a", &a), ("b", &b)).is_some());
            let done = Outcome { ending: Ending::Done, ..right.clone() };
            assert!(difference(&call, ("a", &right), ("b", &done)).is_some());
            let panicked = Outcome { ending: Ending::Panicked(text), ..right.clone() };
            let found = difference(&call, ("a", &panicked), ("b", &panicked)).unwrap();
            assert!(found.contains("panicked: a text"), "{found}");
            let touched = Outcome { touched: vec!["loss".into()], ..right.clone() };
            let found = difference(&call, ("a", &right), ("b", &touched)).unwrap();
            assert!(found.contains("b touched loss"), "{found}");
        }
    }

    #[test]
    fn another_value_differs_unless_it_is_within_the_tolerance() {
        let call = |seed| super::super::draw(Op::CrossEntropy, seed);
        let fits = |call: &Call| {
            call.form == "forward" && *call.setting("reduction") == reduction() && {
                let outcome = run(call, &Device::cpu());
                outcome.values.iter().any(|v| v.name == "loss" && v.values[0].is_finite())
            }
        };
        let call = (0..).map(call).find(fits).unwrap();
        let right = run(&call, &Device::cpu());
        let off = |by: f64| {
            let mut wrong = right.clone();
            let loss = wrong.values.iter_mut().find(|v| v.name == "loss").unwrap();
            loss.values[0] += by * (1.0 + loss.values[0].abs());
            difference(&call, ("a", &right), ("b", &wrong))
        };
        assert_eq!(off(1e-6), None);
        assert!(off(1e-4).unwrap().contains("b is off"));
        assert!(off(f64::NAN).is_some() && off(f64::INFINITY).is_some());
    }

    fn reduction() -> Setpoint {
        Setpoint::Reduction(Reduction::Sum)
    }
}
