//! What layers have in common: hidden states as the first tensor, products on the way to all results,
//! and gradients of parameters.

use crate::check::cases::{Case, Values};
use crate::check::random::Random;
use crate::check::reference::{self, WithSizes};
use crate::check::subject::{Expected, Outcome, Quantity};
use crate::check::typed;
use crate::{DType, Device, Result, Tensor, TensorRef};

/// Rows of hidden states, or one.
pub(super) fn shape(random: &mut Random) -> Vec<usize> {
    let features = random.pick(&[1, 2, 3, 8, 17, 33]);
    if random.one_in(8) { vec![features] } else { vec![random.below(9), features] }
}

/// How large parameters are: large hidden states have logits as large, or not; f16 has no room for such.
pub(super) fn deviation(random: &mut Random, values: Values, dtype: DType) -> f64 {
    match (values.small(), dtype) {
        (true, _) => 0.4,
        (false, DType::F16) => 0.0004,
        (false, _) => random.pick(&[0.4, 0.0004]),
    }
}

/// The input without gaps.
pub(super) fn packed(case: &Case) -> Result<Tensor> {
    typed::tensor(case.dtype, &case.shape, &case.input()?.to_f64()?)
}

/// The input, but for a vector that without gaps: its elements are neighbours.
pub(super) fn input<'a>(case: &'a Case, packed: &'a Tensor) -> Result<TensorRef<'a>> {
    if case.shape.len() == 1 { Ok(packed.view()) } else { case.input() }
}

/// The hidden states of ignored rows.
pub(super) fn unread(case: &Case, target: TensorRef<'_>, ignore_index: i64) -> Result<Vec<usize>> {
    let features = case.shape.last().copied().unwrap_or(0);
    let target = reference::indices(target)?.into_iter().enumerate();
    let ignored = target.filter(|&(_, class)| class == ignore_index);
    // A vector's padding is between its elements, and what is unread is told by rows.
    if case.shape.len() == 1 {
        return Ok(Vec::new());
    }
    Ok(ignored.flat_map(|(row, _)| row * features..(row + 1) * features).collect())
}

/// All parameters' gradients, one after another.
pub(super) fn gradients(parts: impl Iterator<Item = WithSizes>) -> Expected {
    let (mut values, mut sizes) = (Vec::new(), Vec::new());
    for part in parts {
        values.extend(part.values);
        sizes.extend(part.sizes);
    }
    Expected::product(Quantity::ParameterGradients, values, sizes)
}

/// How results were made.
pub(super) struct Way {
    dtype: DType,
    on_the_way: DType,
    /// What logits are rounded by is no small part of them, so that no gradient is near.
    pub(super) vague: bool,
}

impl Way {
    /// On a card logits, or their gradients, have the input's type.
    pub(super) fn of(device: &Device, case: &Case) -> Way {
        let on_the_way = if device.name() == "cpu" { DType::F32 } else { case.dtype };
        let vague = on_the_way != DType::F32 && !case.values.small();
        Way { dtype: case.dtype, on_the_way, vague }
    }

    pub(super) fn outcome(
        &self,
        quantity: Quantity,
        pass: &'static str,
        tensor: &Tensor,
    ) -> Result<Outcome> {
        let outcome = Outcome::new(quantity, pass, tensor.view())?;
        Ok(Outcome { on_the_way: self.on_the_way, ..outcome })
    }

    pub(super) fn gradients(
        &self,
        pass: &'static str,
        parts: impl Iterator<Item = Tensor>,
    ) -> Result<Outcome> {
        let mut values = Vec::new();
        for part in parts {
            values.extend(part.view().to_f64()?);
        }
        let Way { dtype, on_the_way, .. } = *self;
        Ok(Outcome { quantity: Quantity::ParameterGradients, pass, dtype, on_the_way, values })
    }
}
