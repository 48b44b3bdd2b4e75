//! Random cases: shapes, dtypes, options and adversarial values, each made from one seed.

use super::random::Random;
use super::typed;
use crate::{CrossEntropy, DType, GradOutput, Reduction, Result, Tensor, TensorRef};
use std::fmt;

/// An op that can be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// [`CrossEntropy`].
    CrossEntropy,
    /// [`crate::LogSoftmax`].
    LogSoftmax,
    /// [`crate::LogSumExp`].
    LogSumExp,
}

impl Op {
    /// Every op.
    pub const ALL: [Op; 3] = [Op::CrossEntropy, Op::LogSoftmax, Op::LogSumExp];

    /// The name as the command line has it.
    pub const fn name(self) -> &'static str {
        match self {
            Op::CrossEntropy => "cross-entropy",
            Op::LogSoftmax => "log-softmax",
            Op::LogSumExp => "logsumexp",
        }
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

    /// Rounding of a scale or a soft-cap in f32 stays within tolerance.
    fn moderate(self) -> bool {
        !matches!(self, Values::Offset | Values::Wide)
    }
}

/// A call of an op, with everything it takes; the same seed makes the same case.
#[derive(Debug, Clone)]
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
    pub call: Call,
}

/// What a [`Case`] has besides the input.
#[derive(Debug, Clone)]
pub enum Call {
    /// Options of cross entropy, and its tensors.
    CrossEntropy(Box<CrossEntropyCall>),
    /// Log-softmax.
    LogSoftmax {
        /// The dimension to go along.
        dim: isize,
        /// Dtype of the output: f32 or the input's.
        output: DType,
        /// Of the input's shape.
        grad_output: Tensor,
    },
    /// Log-sum-exp.
    LogSumExp {
        /// The dimensions to go along.
        dims: Vec<isize>,
        /// Whether they stay, with size 1.
        keepdim: bool,
        /// Of the output's shape.
        grad_output: Tensor,
    },
}

/// Cross entropy's options and tensors, owned.
#[derive(Debug, Clone)]
pub struct CrossEntropyCall {
    target: Tensor,
    weight: Option<Tensor>,
    options: CrossEntropy<'static>,
    grad_output: Upstream,
}

#[derive(Debug, Clone)]
enum Upstream {
    Number(f32),
    Tensor(Tensor),
}

impl CrossEntropyCall {
    /// The loss with its options.
    pub fn loss(&self) -> CrossEntropy<'_> {
        match &self.weight {
            Some(weight) => self.options.clone().weight(weight.view()),
            None => self.options.clone(),
        }
    }

    /// The class indices.
    pub fn target(&self) -> TensorRef<'_> {
        self.target.view()
    }

    /// The upstream gradient.
    pub fn grad_output(&self) -> GradOutput<'_> {
        match &self.grad_output {
            Upstream::Number(g) => GradOutput::Number(*g),
            Upstream::Tensor(g) => GradOutput::Tensor(g.view()),
        }
    }
}

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
const INDICES: [DType; 4] = [DType::I64, DType::I32, DType::U32, DType::U8];

/// Sizes on both sides of what loops are cut into: vectors, unrolled vectors, blocks.
const CLASSES: [usize; 22] = [
    1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 257, 1000, 1031, 2047, 2048, 2049, 4100,
];

impl Case {
    /// Makes a case.
    ///
    /// # Errors
    /// None, unless the views of this crate refuse the shapes made here.
    pub fn new(op: Op, seed: u64) -> Result<Case> {
        // Neighbouring seeds must not give neighbouring streams.
        let mut random = Random::new(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ op as u64);
        let dtype = random.pick(&FLOATS);
        let values = random.pick(&Values::ALL);
        let shape = match op {
            Op::CrossEntropy => logits_shape(&mut random),
            Op::LogSoftmax | Op::LogSumExp => any_shape(&mut random),
        };
        let row: usize = shape.iter().skip(1).product();
        let padding = if shape.is_empty() || random.one_in(2) { 0 } else { 1 + random.below(7) };
        let row_stride = row + padding;
        let memory = fill(&mut random, values, dtype, &shape, row_stride)?;
        let call = match op {
            Op::CrossEntropy => cross_entropy(&mut random, values, dtype, &shape)?,
            Op::LogSoftmax => log_softmax(&mut random, dtype, &shape)?,
            Op::LogSumExp => logsumexp(&mut random, dtype, &shape)?,
        };
        let mut case = Case { op, seed, values, dtype, shape, row_stride, memory, call };
        case.poison_ignored_rows()?;
        Ok(case)
    }

    /// The input as the op takes it.
    ///
    /// # Errors
    /// None for a case made by [`Case::new`].
    pub fn input(&self) -> Result<TensorRef<'_>> {
        typed::strided(&self.memory, &self.shape, self.row_stride)
    }

    /// Ignored rows are never read: NaN in them must not be seen.
    fn poison_ignored_rows(&mut self) -> Result<()> {
        let Call::CrossEntropy(call) = &self.call else {
            return Ok(());
        };
        let class_dim = usize::from(self.shape.len() > 1);
        let lines = super::reference::Lines::new(&self.shape, &[class_dim]);
        let target = super::reference::indices(call.target())?;
        let row: usize = self.shape.iter().skip(1).product();
        let mut data = self.memory.view().to_f64()?;
        for (base, _) in
            lines.bases.iter().zip(&target).filter(|(_, t)| **t == call.options.ignore_index)
        {
            for offset in &lines.offsets {
                let at = base + offset;
                data[at / row * self.row_stride + at % row] = f64::NAN;
            }
        }
        self.memory = typed::tensor(self.dtype, &[data.len()], &data)?;
        Ok(())
    }
}

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

fn any_shape(random: &mut Random) -> Vec<usize> {
    let long = random.pick(&CLASSES);
    let mut shape: Vec<usize> = (0..random.below(4)).map(|_| random.below(6)).collect();
    if !random.one_in(12) {
        shape.insert(random.below(shape.len() + 1), long);
    }
    shape
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
    let (offset, deviation) = match values {
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
    match values {
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
    let rows = elements.div_ceil(row);
    let mut memory = vec![f64::NAN; (rows * stride).max(elements)];
    for (i, x) in x.iter().enumerate() {
        memory[i / row * stride + i % row] = *x;
    }
    typed::tensor(dtype, &[memory.len()], &memory)
}

fn cross_entropy(
    random: &mut Random,
    values: Values,
    dtype: DType,
    shape: &[usize],
) -> Result<Call> {
    let class_dim = usize::from(shape.len() > 1);
    let classes = shape[class_dim];
    let mut rows_shape = shape.to_vec();
    rows_shape.remove(class_dim);
    let rows: usize = rows_shape.iter().product();

    let index = random.pick(&INDICES);
    let ignore_index: i64 = match random.below(4) {
        0 => random.below(classes) as i64,
        1 => 255,
        _ => -100,
    };
    let fits = ignore_index >= 0 || matches!(index, DType::I64 | DType::I32);
    let legal = if index == DType::U8 { classes.min(256) } else { classes };
    let ignored_in = random.pick(&[1, 2, 5, 1000]);
    let target: Vec<f64> = (0..rows)
        .map(|_| match fits && ignore_index < 256 && random.one_in(ignored_in) {
            true => ignore_index as f64,
            false => random.below(legal) as f64,
        })
        .collect();
    // Full smoothing of nearly equal logits (an offset makes them so in 16 bits): every gradient is a difference of nearly equal terms,
    // which no f32 keeps to a share of that difference.
    let cancels = matches!(values, Values::Tiny | Values::Equal | Values::Offset);
    let smoothing: &[f64] = if cancels { &[0.0, 0.1] } else { &[0.0, 0.0, 0.1, 1.0] };
    let options = CrossEntropy::default()
        .ignore_index(ignore_index)
        .reduction(random.pick(&[Reduction::None, Reduction::Sum, Reduction::Mean]))
        .label_smoothing(random.pick(smoothing))
        .lse_square_scale(random.pick(&[0.0, 0.0, 1e-4, 0.1]));
    let scales: &[f32] = if values.moderate() { &[1.0, 0.7, 2.0] } else { &[1.0, 0.5, 2.0] };
    let caps: &[Option<f32>] = if values.moderate() { &[None, None, Some(30.0)] } else { &[None] };
    let options = options.logit_scale(random.pick(scales)).softcap(random.pick(caps));

    let weight_dtype = random.pick(&[DType::F32, dtype]);
    let weight = match random.below(3) {
        0 => {
            let zeros = random.pick(&[1, 4, 1000]);
            let one = |_| if random.one_in(zeros) { 0.0 } else { f64::from(random.normal()).abs() };
            let weight: Vec<f64> = (0..classes).map(one).collect();
            Some(typed::tensor(weight_dtype, &[classes], &weight)?)
        }
        _ => None,
    };
    let grad_output = match (random.below(3), options.reduction) {
        (0, _) => Upstream::Number(1.0),
        (1, Reduction::None) => {
            let g: Vec<f64> = (0..rows).map(|_| random.normal().into()).collect();
            Upstream::Tensor(typed::tensor(random.pick(&[DType::F32, dtype]), &rows_shape, &g)?)
        }
        _ => Upstream::Number(random.normal()),
    };
    let target = typed::tensor(index, &rows_shape, &target)?;
    let call = CrossEntropyCall { target, weight, options, grad_output };
    Ok(Call::CrossEntropy(Box::new(call)))
}

fn log_softmax(random: &mut Random, dtype: DType, shape: &[usize]) -> Result<Call> {
    let dim = dims(random, shape.len())[0];
    let grad_output = upstream(random, dtype, shape)?;
    Ok(Call::LogSoftmax { dim, output: random.pick(&[DType::F32, dtype]), grad_output })
}

fn logsumexp(random: &mut Random, dtype: DType, shape: &[usize]) -> Result<Call> {
    let mut dims = dims(random, shape.len());
    dims.truncate(1 + random.below(2));
    let keepdim = random.one_in(2);
    let along = |d: usize| {
        let rank = shape.len().max(1) as isize;
        dims.iter().any(|dim| dim.rem_euclid(rank) == d as isize)
    };
    let reduced: Vec<usize> = (0..shape.len())
        .filter(|&d| keepdim || !along(d))
        .map(|d| if along(d) { 1 } else { shape[d] })
        .collect();
    let grad_output = upstream(random, dtype, &reduced)?;
    Ok(Call::LogSumExp { dims, keepdim, grad_output })
}

/// The dimensions in a random order, some counted from the end.
fn dims(random: &mut Random, rank: usize) -> Vec<isize> {
    let rank = rank.max(1);
    let mut dims: Vec<isize> = (0..rank as isize).collect();
    for i in (1..rank).rev() {
        dims.swap(i, random.below(i + 1));
    }
    dims.iter().map(|&d| if random.one_in(2) { d - rank as isize } else { d }).collect()
}

fn upstream(random: &mut Random, dtype: DType, shape: &[usize]) -> Result<Tensor> {
    let g: Vec<f64> = (0..shape.iter().product()).map(|_| random.normal().into()).collect();
    typed::tensor(random.pick(&[DType::F32, dtype]), shape, &g)
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { op, values, dtype, shape, row_stride, .. } = self;
        write!(f, "{} {dtype} {shape:?} row stride {row_stride}, values {values:?}", op.name())?;
        match &self.call {
            Call::CrossEntropy(call) => {
                let CrossEntropyCall { target, weight, options, grad_output } = &**call;
                let weight = weight.as_ref().map(Tensor::dtype);
                let g = match grad_output {
                    Upstream::Number(g) => g.to_string(),
                    Upstream::Tensor(g) => format!("{} per row", g.dtype()),
                };
                write!(f, ", target {}, weight {weight:?}, {}", target.dtype(), options.reduction)?;
                write!(f, ", ignore_index {}", options.ignore_index)?;
                write!(f, ", label_smoothing {}", options.label_smoothing)?;
                write!(f, ", lse_square_scale {}", options.lse_square_scale)?;
                write!(f, ", logit_scale {}", options.logit_scale)?;
                write!(f, ", softcap {:?}, grad_output {g}", options.softcap)
            }
            Call::LogSoftmax { dim, output, grad_output } => {
                write!(f, ", dim {dim}, output {output}, grad_output {}", grad_output.dtype())
            }
            Call::LogSumExp { dims, keepdim, grad_output } => {
                write!(f, ", dims {dims:?}, keepdim {keepdim}")?;
                write!(f, ", grad_output {}", grad_output.dtype())
            }
        }
    }
}
