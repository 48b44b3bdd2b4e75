//! What layers have in common: hidden states as the first tensor, products on the way to all results,
//! and gradients of parameters.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::{Tensor, TensorRef};
use crate::check::case::Case;
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::reference::WithSizes;
use crate::check::values::Values;
use crate::check::{reference, typed};
use crate::spec::output_layer::LayerOutput;

/// Rows of hidden states, or one.
pub(in crate::check) fn shape(random: &mut Random) -> Vec<usize> {
    let features = random.pick(&[1, 2, 3, 8, 17, 33]);
    if random.one_in(8) { vec![features] } else { vec![random.below(9), features] }
}

/// How large parameters are: large hidden states have logits as large, or not; f16 has no room for such.
pub(in crate::check) fn deviation(random: &mut Random, values: Values, dtype: DType) -> f64 {
    match (values.small(), dtype) {
        (true, _) => 0.4,
        (false, DType::F16) => 0.0004,
        (false, _) => random.pick(&[0.4, 0.0004]),
    }
}

/// The input without gaps.
pub(in crate::check) fn packed(case: &Case) -> Result<Tensor> {
    typed::tensor(case.dtype, &case.shape, &case.input()?.to_f64()?)
}

/// The input, but for a vector that without gaps: its elements are neighbours.
pub(in crate::check) fn input<'a>(case: &'a Case, packed: &'a Tensor) -> Result<TensorRef<'a>> {
    if case.shape.len() == 1 { Ok(packed.view()) } else { case.input() }
}

/// The hidden states of ignored rows.
pub(in crate::check) fn unread(
    case: &Case,
    target: TensorRef<'_>,
    ignore_index: i64,
) -> Result<Vec<usize>> {
    // A vector's padding is between its elements, and what is unread is told by rows.
    let [_, features] = case.shape[..] else { return Ok(Vec::new()) };
    let target = reference::indices(target)?.into_iter().enumerate();
    let ignored = target.filter(|&(_, class)| class == ignore_index);
    Ok(ignored.flat_map(|(row, _)| row * features..(row + 1) * features).collect())
}

/// A parameter of numbers that are nearly normal.
pub(in crate::check) fn parameter(
    random: &mut Random,
    dtype: DType,
    shape: &[usize],
    deviation: f64,
) -> Result<Tensor> {
    let n = shape.iter().product();
    let numbers: Vec<f64> = (0..n).map(|_| deviation * f64::from(random.normal())).collect();
    typed::tensor(dtype, shape, &numbers)
}

/// All parameters' gradients, one after another.
pub(in crate::check) fn gradients(parts: impl Iterator<Item = WithSizes>) -> Expected {
    let mut all = WithSizes::default();
    parts.for_each(|part| all.extend(part));
    Expected::product(Quantity::ParameterGradients, all)
}

/// What forward, and forward and backward, give, the latter with the input's gradient; and the
/// parameters' gradients, where those are numbers.
pub(in crate::check) fn passes(
    forward: &LayerOutput,
    (both, input): (&LayerOutput, &Tensor),
    parameters: Option<Vec<Tensor>>,
) -> Result<Vec<Outcome>> {
    let pass = "forward-backward";
    let mut outcomes = vec![
        Outcome::new(Quantity::Loss, "forward", forward.loss.view())?,
        Outcome::new(Quantity::Output, "forward", forward.output.view())?,
        Outcome::new(Quantity::Loss, pass, both.loss.view())?,
        Outcome::new(Quantity::Output, pass, both.output.view())?,
        Outcome::new(Quantity::Gradient, pass, input.view())?,
    ];
    if let Some(parameters) = parameters {
        outcomes.push(all_gradients(input.dtype(), pass, parameters.into_iter())?);
    }
    Ok(outcomes)
}

/// The parameters' gradients, one after another.
pub(in crate::check) fn all_gradients(
    dtype: DType,
    pass: &'static str,
    parts: impl Iterator<Item = Tensor>,
) -> Result<Outcome> {
    let mut values = Vec::new();
    for part in parts {
        values.extend(part.view().to_f64()?);
    }
    Ok(Outcome { quantity: Quantity::ParameterGradients, pass, dtype, values })
}
