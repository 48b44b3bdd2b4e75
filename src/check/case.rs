//! A case: a call of an op with everything it takes, made from one seed.

use super::draw::FLOATS;
use super::outcome::{Expected, Outcome, Quantity};
use super::random::Random;
use super::typed;
use super::values::Values;
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorRef};
use crate::device::Device;
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
    /// None for a case that was drawn.
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
    /// None for a case that was drawn.
    fn unread(&self, _case: &Case) -> Result<Vec<usize>> {
        Ok(Vec::new())
    }

    /// What the first tensor's elements become, where the op does not take any number.
    fn domain(&self, _values: Values) -> Option<fn(f64) -> f64> {
        None
    }
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
    pub(super) fn nearly(&self, random: &mut Random) -> Result<Vec<f64>> {
        let noise = random.pick(&[0.0, 1e-5, 1e-4, 1e-3]);
        let x = typed::strided(self.memory, self.shape, self.row_stride)?.to_f64()?;
        Ok(x.iter().map(|x| x + noise * f64::from(random.normal())).collect())
    }
}

/// How an op draws its cases.
#[derive(Debug)]
pub(super) struct Draw {
    /// The shape of the first tensor.
    pub(super) shape: fn(&mut Random) -> Vec<usize>,
    /// Options and the other tensors.
    pub(super) rest: fn(&mut Random, &First<'_>) -> Result<Box<dyn Call>>,
}

/// A call of an op, with everything it takes; the same seed makes the same case.
#[derive(Debug)]
pub struct Case {
    /// The name of the op.
    pub op: &'static str,
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
    /// Makes a case of the op of that name: of what it draws from the seed, and of the first tensor's
    /// shape where one is given. Of one seed each `stream` has a case of its own.
    ///
    /// # Errors
    /// None, unless the views of this crate refuse the shapes made here.
    pub(super) fn new(
        (op, draw): (&'static str, &Draw),
        (stream, seed): (u64, u64),
        shape: Option<&[usize]>,
    ) -> Result<Case> {
        // Neighbouring seeds must not give neighbouring streams.
        let mut random = Random::new(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ stream);
        let dtype = random.pick(&FLOATS);
        let values = random.pick(&Values::ALL);
        let drawn = (draw.shape)(&mut random);
        let shape = shape.map_or(drawn, <[usize]>::to_vec);
        let row: usize = shape.iter().skip(1).product();
        let padding = if shape.is_empty() || random.one_in(2) { 0 } else { 1 + random.below(7) };
        let row_stride = row + padding;
        let memory = fill(&mut random, values, dtype, &shape, row_stride)?;
        let first = First { values, dtype, shape: &shape, row_stride, memory: &memory };
        let call = (draw.rest)(&mut random, &first)?;
        let mut case = Case { op, seed, values, dtype, shape, row_stride, memory, call };
        case.bring_into_domain()?;
        case.poison_unread()?;
        Ok(case)
    }

    /// What stands between the rows of `memory`, laid out as the input.
    pub(super) fn padding(&self, pass: &'static str, memory: &Tensor) -> Result<Outcome> {
        let shape = Shape::new(&self.shape).unwrap_or(Shape::SCALAR);
        let row: usize = shape.iter().skip(1).product();
        let data = memory.view().to_f64()?;
        let between = data.chunks(self.row_stride.max(1)).flat_map(|r| r.iter().skip(row));
        let values = between.copied().collect();
        Ok(Outcome { quantity: Quantity::Padding, pass, dtype: self.dtype, values })
    }

    /// The input as the op takes it.
    ///
    /// # Errors
    /// None for a case that was drawn.
    pub fn input(&self) -> Result<TensorRef<'_>> {
        typed::strided(&self.memory, &self.shape, self.row_stride)
    }

    /// Numbers that the op takes, in place of any.
    fn bring_into_domain(&mut self) -> Result<()> {
        if let Some(into) = self.call.domain(self.values) {
            let data: Vec<f64> = self.memory.view().to_f64()?.into_iter().map(into).collect();
            self.memory = typed::tensor(self.dtype, &[data.len()], &data)?;
        }
        Ok(())
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
        write!(f, "{op} {dtype} {shape:?} row stride {row_stride}, values {values:?}")?;
        self.call.describe(f)
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
