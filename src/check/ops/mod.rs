//! One file an op: how a random case of it is drawn, what the reference says about it, and every
//! way to make the call.

pub(super) mod adaptive_embedding;
pub(super) mod adaptive_log_softmax;
pub(super) mod cross_entropy;
pub(super) mod elementwise;
pub(super) mod information;
pub(super) mod js_div_logits;
mod labels;
mod layer;
pub(super) mod log_softmax;
pub(super) mod logprob_entropy;
pub(super) mod logsumexp;
pub(super) mod nll;
pub(super) mod sampled_softmax;
pub(super) mod soft_cross_entropy;
pub(super) mod targets;

use super::cases::{Case, Values};
use super::random::Random;
use super::subject::{Expected, Outcome};
use super::typed;
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::device::Device;
use crate::spec::grad_output::GradOutput;
use labels::Labels;
use std::fmt;

/// What a case has besides its first tensor: the options and the other tensors of one op.
pub trait Call: fmt::Debug + Send + Sync {
    /// Options and dtypes in words, each after a comma.
    ///
    /// # Errors
    /// The formatter's.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// What the reference says.
    ///
    /// # Errors
    /// None for a case made by [`Case::new`].
    fn expect(&self, case: &Case) -> Result<Vec<Expected>>;

    /// Every form of the call on the device.
    ///
    /// # Errors
    /// Whatever the engine says.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>>;

    /// Elements of the first tensor that must never be read (indices without padding): they
    /// become NaN.
    ///
    /// # Errors
    /// None for a case made by [`Case::new`].
    fn unread(&self, _case: &Case) -> Result<Vec<usize>> {
        Ok(Vec::new())
    }
}

/// How an op draws its cases.
pub(super) struct Draw {
    /// The shape of the first tensor.
    pub(super) shape: fn(&mut Random) -> Vec<usize>,
    /// Options and the other tensors.
    pub(super) call: fn(&mut Random, &First<'_>) -> Result<Box<dyn Call>>,
}

/// What is known of the first tensor when the rest is drawn.
pub(super) struct First<'a> {
    pub(super) values: Values,
    pub(super) dtype: DType,
    pub(super) shape: &'a [usize],
    pub(super) row_stride: usize,
    /// Its memory, padding included.
    pub(super) memory: &'a Tensor,
}

impl First<'_> {
    /// Its elements with a little noise: a teacher that its model is nearly.
    fn nearly(&self, random: &mut Random) -> Result<Vec<f64>> {
        let noise = random.pick(&[0.0, 1e-5, 1e-4, 1e-3]);
        let x = typed::strided(self.memory, self.shape, self.row_stride)?.to_f64()?;
        Ok(x.iter().map(|x| x + noise * f64::from(random.normal())).collect())
    }
}

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
const INDICES: [DType; 4] = [DType::I64, DType::I32, DType::U32, DType::U8];

/// Sizes on both sides of what loops are cut into: vectors, unrolled vectors, blocks.
const CLASSES: [usize; 22] = [
    1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 257, 1000, 1031, 2047, 2048, 2049, 4100,
];

/// Shapes of logits: `[C]`, `[N, C]`, `[N, C, d1, …]`.
fn logits_shape(random: &mut Random) -> Vec<usize> {
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
fn any_shape(random: &mut Random) -> Vec<usize> {
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
fn upstream(random: &mut Random, dtype: DType, shape: &[usize]) -> Result<Tensor> {
    let g: Vec<f64> = (0..shape.iter().product()).map(|_| random.normal().into()).collect();
    typed::tensor(random.pick(&[DType::F32, dtype]), shape, &g)
}
