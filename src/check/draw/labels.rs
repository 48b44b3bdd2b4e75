//! What losses with class indices have besides their first tensor.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::Tensor;
use crate::check::case::First;
use crate::check::draw::targets::Targets;
use crate::check::draw::{Upstream, upstream};
use crate::check::random::Random;
use crate::check::typed;
use std::fmt;

/// Labels, class weights and what goes with them, owned.
#[derive(Debug)]
pub(in crate::check) struct Labels {
    pub(in crate::check) target: Tensor,
    pub(in crate::check) weight: Option<Tensor>,
    pub(in crate::check) ignore_index: i64,
    pub(in crate::check) reduction: Reduction,
    pub(in crate::check) grad_output: Upstream,
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Labels { target, weight, ignore_index, reduction, grad_output } = self;
        let weight = weight.as_ref().map(Tensor::dtype);
        write!(f, ", target {}, weight {weight:?}, {reduction}", target.dtype())?;
        write!(f, ", ignore_index {ignore_index}, grad_output {grad_output}")
    }
}

/// The number of classes, and the shape of what has one value a row.
pub(in crate::check) fn rows_of(shape: &[usize]) -> (usize, Vec<usize>) {
    let mut rows = shape.to_vec();
    (rows.remove(usize::from(shape.len() > 1)), rows)
}

impl Labels {
    pub(in crate::check) fn draw(random: &mut Random, first: &First<'_>) -> Result<Labels> {
        let (classes, shape) = rows_of(first.shape);
        let Targets { indices, ignore_index } = Targets::draw(random, classes, &shape)?;
        let reduction = random.pick(&[Reduction::None, Reduction::Sum, Reduction::Mean]);
        Ok(Labels {
            target: indices,
            weight: weight(random, first.dtype, classes)?,
            ignore_index,
            reduction,
            grad_output: grad_output(random, first.dtype, reduction, &shape)?,
        })
    }
}

/// Class weights, in a third of all cases; as many of them 0 as chance has it.
pub(in crate::check) fn weight(
    random: &mut Random,
    dtype: DType,
    classes: usize,
) -> Result<Option<Tensor>> {
    let dtype = random.pick(&[DType::F32, dtype]);
    if random.below(3) != 0 {
        return Ok(None);
    }
    let zeros = random.pick(&[1, 4, 1000]);
    // The mean does not depend on a common factor, whatever f32 has room for.
    let factor = match dtype {
        DType::F32 => random.pick(&[1.0, 1.0, 1.0, 1e-42, 1e-30, 1e36]),
        _ => 1.0,
    };
    let one =
        |_| if random.one_in(zeros) { 0.0 } else { factor * f64::from(random.normal()).abs() };
    let weight: Vec<f64> = (0..classes).map(one).collect();
    Ok(Some(typed::tensor(dtype, &[classes], &weight)?))
}

/// An upstream gradient: one number, or one for each of the rows.
pub(in crate::check) fn grad_output(
    random: &mut Random,
    dtype: DType,
    reduction: Reduction,
    shape: &[usize],
) -> Result<Upstream> {
    Ok(match (random.below(3), reduction) {
        (0, _) => Upstream::Number(1.0),
        (1, Reduction::None) => Upstream::Tensor(upstream(random, dtype, shape)?),
        _ => Upstream::Number(random.normal()),
    })
}
