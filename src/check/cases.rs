//! Random cases: shapes, dtypes, options and adversarial values, each made from one seed.

use super::ops::{self, Call, Draw, FLOATS, First};
use super::random::Random;
use super::typed;
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::{Tensor, TensorRef};
use std::fmt;

/// The one table of ops: a variant, its name on the command line, how its cases are drawn.
macro_rules! ops {
    ($($(#[$doc:meta])* $variant:ident $name:literal $draw:path,)*) => {
        /// An op that can be checked.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Op {
            $($(#[$doc])* $variant,)*
        }

        impl Op {
            /// Every op.
            pub const ALL: &[Op] = &[$(Op::$variant),*];

            /// The name as the command line has it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Op::$variant => $name,)*
                }
            }

            fn draw(self) -> Draw {
                match self {
                    $(Op::$variant => $draw,)*
                }
            }
        }
    };
}

ops! {
    /// [`crate::CrossEntropy`].
    CrossEntropy "cross-entropy" ops::cross_entropy::DRAW,
    /// [`crate::LogSoftmax`].
    LogSoftmax "log-softmax" ops::log_softmax::DRAW,
    /// [`crate::LogSumExp`].
    LogSumExp "logsumexp" ops::logsumexp::DRAW,
    /// [`crate::LogprobEntropy`].
    LogprobEntropy "logprob-entropy" ops::logprob_entropy::DRAW,
    /// [`crate::Nll`].
    Nll "nll" ops::nll::DRAW,
    /// [`crate::CrossEntropy`] against probabilities or a teacher's logits.
    SoftCrossEntropy "soft-cross-entropy" ops::soft_cross_entropy::DRAW,
    /// [`crate::Mse`].
    Mse "mse" ops::elementwise::MSE,
    /// [`crate::L1`].
    L1 "l1" ops::elementwise::L1,
    /// [`crate::SmoothL1`].
    SmoothL1 "smooth-l1" ops::elementwise::SMOOTH_L1,
    /// [`crate::Huber`].
    Huber "huber" ops::elementwise::HUBER,
    /// [`crate::BceWithLogits`].
    BceWithLogits "bce-with-logits" ops::elementwise::BCE_WITH_LOGITS,
    /// [`crate::KlDiv`].
    KlDiv "kl-div" ops::elementwise::KL_DIV,
    /// [`crate::JsDiv`].
    JsDiv "js-div" ops::elementwise::JS_DIV,
    /// [`crate::JsDivLogits`].
    JsDivLogits "js-div-logits" ops::js_div_logits::DRAW,
    /// [`crate::AdaptiveLogSoftmax`].
    AdaptiveLogSoftmax "adaptive-log-softmax" ops::adaptive_log_softmax::DRAW,
    /// [`crate::AdaptiveEmbedding`].
    AdaptiveEmbedding "adaptive-embedding" ops::adaptive_embedding::DRAW,
    /// [`crate::SampledSoftmax`].
    SampledSoftmax "sampled-softmax" ops::sampled_softmax::DRAW,
    /// The functions of [`crate::information`].
    Information "information" ops::information::DRAW,
}

impl Op {
    /// Whether cases can be made of any shape of the first tensor, as long as it has rows: of all but
    /// layers, whose inputs have the features that their parameters say.
    pub const fn takes_shape(self) -> bool {
        !matches!(self, Op::AdaptiveLogSoftmax | Op::AdaptiveEmbedding | Op::SampledSoftmax)
    }
}

/// What makes a case's values hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// As a trained model's logits: deviation 2.5.
    Tame,
    /// Deviation 0.01 around 0.
    Tiny,
    /// As tame, around a common offset.
    Offset,
    /// Deviation 1000 or more: softmax is one-hot.
    Wide,
    /// Every element the same: ties of the maximum.
    Equal,
    /// One in eight is −∞.
    Masked,
    /// Every other line is −∞ throughout.
    AllMasked,
    /// A +∞ somewhere.
    PlusInfinity,
    /// A NaN somewhere.
    NotANumber,
}

impl Values {
    /// Every kind.
    pub const ALL: [Values; 9] = [
        Values::Tame,
        Values::Tiny,
        Values::Offset,
        Values::Wide,
        Values::Equal,
        Values::Masked,
        Values::AllMasked,
        Values::PlusInfinity,
        Values::NotANumber,
    ];

    /// None of them is infinite or NaN.
    pub(super) fn finite(self) -> bool {
        use Values::{AllMasked, Masked, NotANumber, PlusInfinity};
        !matches!(self, Masked | AllMasked | PlusInfinity | NotANumber)
    }

    /// As large as hidden states are.
    pub(super) fn small(self) -> bool {
        !matches!(self, Values::Offset | Values::Wide | Values::Equal)
    }

    /// Rounding of a scale or a soft-cap in f32 stays within tolerance.
    pub(super) fn moderate(self) -> bool {
        !matches!(self, Values::Offset | Values::Wide)
    }
}

/// A call of an op, with everything it takes; the same seed makes the same case.
#[derive(Debug)]
pub struct Case {
    /// What to compute.
    pub op: Op,
    /// What the case was made from.
    pub seed: u64,
    /// What makes it hard.
    pub values: Values,
    /// Dtype of the input.
    pub dtype: DType,
    /// Shape of the input.
    pub shape: Vec<usize>,
    /// Distance between its rows.
    pub row_stride: usize,
    /// The input's memory, one-dimensional; NaN where there is padding.
    pub memory: Tensor,
    /// Options and other tensors.
    pub call: Box<dyn Call>,
}

impl Case {
    /// Makes a case.
    ///
    /// # Errors
    /// None, unless the views of this crate refuse the shapes made here.
    pub fn new(op: Op, seed: u64) -> Result<Case> {
        Case::of_shape(op, seed, None)
    }

    /// As [`Case::new`], with a first tensor of this shape, where one is given; for ops that take any
    /// ([`Op::takes_shape`]).
    ///
    /// # Errors
    /// As [`Case::new`].
    pub fn of_shape(op: Op, seed: u64, shape: Option<&[usize]>) -> Result<Case> {
        // Neighbouring seeds must not give neighbouring streams.
        let mut random = Random::new(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ op as u64);
        let draw = op.draw();
        let dtype = random.pick(&FLOATS);
        let values = random.pick(&Values::ALL);
        let drawn = (draw.shape)(&mut random);
        let shape = shape.map_or(drawn, <[usize]>::to_vec);
        let row: usize = shape.iter().skip(1).product();
        let padding = if shape.is_empty() || random.one_in(2) { 0 } else { 1 + random.below(7) };
        let row_stride = row + padding;
        let memory = fill(&mut random, values, dtype, &shape, row_stride)?;
        let first = First { values, dtype, shape: &shape, row_stride, memory: &memory };
        let call = (draw.call)(&mut random, &first)?;
        let mut case = Case { op, seed, values, dtype, shape, row_stride, memory, call };
        case.poison_unread()?;
        Ok(case)
    }

    /// The input as the op takes it.
    ///
    /// # Errors
    /// None for a case made by [`Case::new`].
    pub fn input(&self) -> Result<TensorRef<'_>> {
        typed::strided(&self.memory, &self.shape, self.row_stride)
    }

    /// What is never read: NaN there must not be seen.
    fn poison_unread(&mut self) -> Result<()> {
        let unread = self.call.unread(self)?;
        if unread.is_empty() {
            return Ok(());
        }
        let row: usize = self.shape.iter().skip(1).product();
        let mut data = self.memory.view().to_f64()?;
        for at in unread {
            data[at / row * self.row_stride + at % row] = f64::NAN;
        }
        self.memory = typed::tensor(self.dtype, &[data.len()], &data)?;
        Ok(())
    }
}

/// In words, so that a mismatch says what it was about.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { op, values, dtype, shape, row_stride, .. } = self;
        write!(f, "{} {dtype} {shape:?} row stride {row_stride}, values {values:?}", op.name())?;
        self.call.describe(f)
    }
}

impl Values {
    /// Elements of a tensor, row-major.
    pub(super) fn draw(self, random: &mut Random, dtype: DType, shape: &[usize]) -> Vec<f64> {
        let elements: usize = shape.iter().product();
        let row = shape.iter().skip(1).product::<usize>().max(1);
        let (offset, deviation) = match self {
            Values::Tiny => (0.0, 0.01),
            Values::Offset if dtype == DType::F16 => (-2000.0, 2.5),
            Values::Offset => (10_000.0, 2.5),
            Values::Wide if dtype == DType::F16 => (0.0, 1000.0),
            Values::Wide => (0.0, 10_000.0),
            Values::Equal => (random.pick(&[0.0, -3.5, 1.0e4]), 0.0),
            _ => (0.0, 2.5),
        };
        let mut x: Vec<f64> =
            (0..elements).map(|_| offset + deviation * f64::from(random.normal())).collect();
        let some = |random: &mut Random| random.below(elements.max(1));
        match self {
            Values::Masked => {
                x.iter_mut().filter(|_| random.one_in(8)).for_each(|x| *x = f64::NEG_INFINITY)
            }
            Values::AllMasked => {
                x.chunks_mut(row).step_by(2).flatten().for_each(|x| *x = f64::NEG_INFINITY)
            }
            Values::PlusInfinity if elements > 0 => x[some(random)] = f64::INFINITY,
            Values::NotANumber if elements > 0 => x[some(random)] = f64::NAN,
            _ => {}
        }
        x
    }
}

/// The input's memory: rows of values, NaN between them.
fn fill(
    random: &mut Random,
    values: Values,
    dtype: DType,
    shape: &[usize],
    stride: usize,
) -> Result<Tensor> {
    let elements: usize = shape.iter().product();
    let row = shape.iter().skip(1).product::<usize>().max(1);
    let x = values.draw(random, dtype, shape);
    let rows = elements.div_ceil(row);
    let mut memory = vec![f64::NAN; (rows * stride).max(elements)];
    for (i, x) in x.iter().enumerate() {
        memory[i / row * stride + i % row] = *x;
    }
    typed::tensor(dtype, &[memory.len()], &memory)
}
