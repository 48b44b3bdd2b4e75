//! What cases and calls are drawn with.

pub(in crate::check) mod labels;
pub(in crate::check) mod layer;
pub(in crate::check) mod lists;
pub(in crate::check) mod targets;

use super::random::Random;
use super::typed;
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::spec::grad_output::GradOutput;
use std::fmt;

/// An upstream gradient, owned.
#[derive(Debug, Clone)]
pub(super) enum Upstream {
    Number(f32),
    Tensor(Tensor),
}

impl Upstream {
    pub(super) fn view(&self) -> GradOutput<'_> {
        match self {
            Upstream::Number(g) => GradOutput::Number(*g),
            Upstream::Tensor(g) => GradOutput::Tensor(g.view()),
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Upstream::Number(g) => write!(f, "{g}"),
            Upstream::Tensor(g) => write!(f, "{} per result", g.dtype()),
        }
    }
}

/// Dtypes of data.
pub(super) const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
/// Dtypes of class indices.
pub(super) const INDICES: [DType; 4] = [DType::I64, DType::I32, DType::U32, DType::U8];

/// Sizes on both sides of what loops are cut into: vectors, unrolled vectors, blocks.
pub(super) const CLASSES: [usize; 22] = [
    1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 257, 1000, 1031, 2047, 2048, 2049, 4100,
];

/// Shapes of logits: `[C]`, `[N, C]`, `[N, C, d1, …]`.
pub(super) fn logits_shape(random: &mut Random) -> Vec<usize> {
    let classes = if random.one_in(40) { 50_257 } else { random.pick(&CLASSES) };
    let rows = random.below(9);
    match random.below(8) {
        0 => vec![classes],
        1 => vec![rows, classes.min(1031), 1 + random.below(5)],
        2 => vec![rows, classes.min(257), 1 + random.below(3), 1 + random.below(4)],
        _ => vec![rows, classes],
    }
}

/// Up to four dimensions, one of which may be long.
pub(super) fn any_shape(random: &mut Random) -> Vec<usize> {
    let long = random.pick(&CLASSES);
    let mut shape: Vec<usize> = (0..random.below(4)).map(|_| random.below(6)).collect();
    if !random.one_in(12) {
        shape.insert(random.below(shape.len() + 1), long);
    }
    shape
}

/// The dimensions in a random order, some counted from the end.
pub(super) fn dims(random: &mut Random, rank: usize) -> Vec<isize> {
    let rank = rank.max(1);
    let mut dims: Vec<isize> = (0..rank as isize).collect();
    for i in (1..rank).rev() {
        dims.swap(i, random.below(i + 1));
    }
    dims.iter().map(|&d| if random.one_in(2) { d - rank as isize } else { d }).collect()
}

/// An upstream gradient of `shape`, in f32 or `dtype`.
pub(super) fn upstream(random: &mut Random, dtype: DType, shape: &[usize]) -> Result<Tensor> {
    let g: Vec<f64> = (0..shape.iter().product()).map(|_| random.normal().into()).collect();
    typed::tensor(random.pick(&[DType::F32, dtype]), shape, &g)
}
