//! What ops draw their calls with.

use super::{Call, Given, Role, Setpoint, Setting};
use crate::base::dtype::DType;
use crate::base::reduction::Reduction;
use crate::check::draw::FLOATS;
use crate::check::draw::targets::Targets;
use crate::check::random::Random;
use crate::check::values::Values;

/// Forms of a loss that needs nothing saved for its gradient.
const FORMS: [&str; 6] = [
    "forward",
    "forward_into",
    "backward",
    "backward_into",
    "forward_backward_in_place",
    "forward_backward",
];

/// A call that is being drawn.
#[derive(Debug)]
pub struct Draft {
    /// What it is drawn from.
    pub random: Random,
    /// As far as it is.
    pub call: Call,
    /// The dtype of data.
    pub dtype: DType,
    /// Whether values are at the ends of their range; else as a model has them.
    extreme: bool,
}

/// Numbers at the ends of their range, and where functions change.
const ENDS: [f64; 24] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1e-45,
    -1e-45,
    1e-40,
    1.2e-38,
    -1.2e-38,
    1e-20,
    6e-8,
    6e-5,
    65504.0,
    -65504.0,
    88.8,
    -88.8,
    104.0,
    -104.0,
    1e20,
    3e38,
    -3e38,
    f64::INFINITY,
    f64::NEG_INFINITY,
];

/// What options are tried with.
pub const NUMBERS: [f64; 24] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1e-3,
    1e-45,
    -1e-45,
    1e-39,
    1e-38,
    1e-30,
    1e-7,
    1e-5,
    7.0,
    1e5,
    1e20,
    1e30,
    3.4e38,
    -3e38,
    1e39,
    1e300,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];

impl Draft {
    /// A call of that op, of no form yet. Of one seed each `stream` has a call of its own.
    pub fn new(op: &'static str, stream: u64, seed: u64) -> Draft {
        let mut random = Random::new(seed.wrapping_mul(0xa076_1d64_78bd_642f) ^ stream);
        let resident = random.one_in(2);
        let call = Call { resident, ..Call::new(op, seed) };
        let (dtype, extreme) = (random.pick(&FLOATS), random.one_in(4));
        Draft { random, call, dtype, extreme }
    }

    /// One of the op's methods.
    pub fn form(&mut self, forms: &[&'static str]) -> &'static str {
        self.call.form = self.random.pick(forms);
        self.call.form
    }

    /// The form of a call of [`FORMS`], and what it does with its input.
    pub fn form_in_place(&mut self) -> (&'static str, Role) {
        let form = self.form(&FORMS);
        let role = match form {
            "forward_backward_in_place" => Role::Both,
            "forward_backward" => Role::Consumed,
            _ => Role::Read,
        };
        (form, role)
    }

    /// An option: its default in half of all calls, else one of `others`.
    pub fn option(&mut self, name: &'static str, default: Setpoint, others: &[Setpoint]) {
        let value = match others.is_empty() || self.random.one_in(2) {
            true => default.clone(),
            false => others[self.random.below(others.len())].clone(),
        };
        self.call.settings.push(Setting { name, value, default });
    }

    /// An option that is a number.
    pub fn number(&mut self, name: &'static str, default: f64, others: &[f64]) {
        let others: Vec<Setpoint> = others.iter().map(|&x| Setpoint::Number(x)).collect();
        self.option(name, Setpoint::Number(default), &others);
    }

    /// An option with what was drawn for it.
    pub fn set(&mut self, name: &'static str, value: Setpoint) {
        self.call.settings.push(Setting { name, default: value.clone(), value });
    }

    /// A reduction among all, `batchmean` where it is legal.
    pub fn reduction(&mut self, batch_mean: bool) -> Reduction {
        let all = [Reduction::None, Reduction::Sum, Reduction::Mean, Reduction::BatchMean];
        let legal = if batch_mean { 4 } else { 3 };
        let value = self.random.pick(&all[..legal]);
        let default = Setpoint::Reduction(Reduction::Mean);
        let value = Setpoint::Reduction(value);
        self.call.settings.push(Setting { name: "reduction", value: value.clone(), default });
        match value {
            Setpoint::Reduction(reduction) => reduction,
            _ => Reduction::Mean,
        }
    }

    /// Data: tame, hard as in [`Values`], or from the ends.
    pub fn numbers(&mut self, shape: &[usize]) -> Vec<f64> {
        let n = shape.iter().product();
        if !self.extreme {
            let values = self.random.pick(&Values::ALL);
            return values.draw(&mut self.random, self.dtype, shape);
        }
        let scale = self.random.pick(&[1e-40, 1e-38, 1e-20, 30.0, 1e4, 1e20, 1e38]);
        let ends_in = self.random.pick(&[1, 3, 1000]);
        let one = |random: &mut Random| match random.one_in(ends_in) {
            true => random.pick(&ENDS),
            false => scale * f64::from(random.normal()),
        };
        (0..n).map(|_| one(&mut self.random)).collect()
    }

    /// Data that passes products: large, broken or tame, and of a size that leaves products in f32.
    pub fn features(&mut self, shape: &[usize]) -> Vec<f64> {
        let scale = self.random.pick(&[1e-20, 1e-3, 2.5, 2.5, 2.5, 1e4]);
        let broken_in = self.random.pick(&[30, 1000, 1000, 1000]);
        let broken = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 0.0];
        let one = |random: &mut Random| match random.one_in(broken_in) {
            true => random.pick(&broken),
            false => scale * f64::from(random.normal()),
        };
        (0..shape.iter().product()).map(|_| one(&mut self.random)).collect()
    }

    /// Numbers that are nearly normal, in any case.
    pub fn normal(&mut self, shape: &[usize], deviation: f64) -> Vec<f64> {
        let n = shape.iter().product();
        (0..n).map(|_| deviation * f64::from(self.random.normal())).collect()
    }

    /// A tensor. `letters` name sizes that are common to several.
    pub fn given(
        &mut self,
        (name, role): (&str, Role),
        (dtype, shape, letters): (DType, &[usize], &str),
        values: Vec<f64>,
    ) -> &mut Given {
        let padded = shape.len() > 1 && role != Role::Consumed && self.random.one_in(4);
        let padding = if padded { 1 + self.random.below(7) } else { 0 };
        let mut letters: Vec<char> = letters.chars().collect();
        letters.resize(shape.len(), ' ');
        self.call.tensors.push(Given {
            name: name.to_owned(),
            role,
            optional: false,
            present: true,
            dtype,
            shape: shape.to_vec(),
            letters,
            padding,
            values,
        });
        let last = self.call.tensors.len() - 1;
        &mut self.call.tensors[last]
    }

    /// Memory that is written.
    pub fn out(&mut self, name: &str, dtype: DType, shape: &[usize], letters: &str) -> &mut Given {
        self.given((name, Role::Written), (dtype, shape, letters), Vec::new())
    }

    /// Memory that is written where the caller gives it: in half of all calls.
    pub fn optional_out(&mut self, name: &str, dtype: DType, shape: &[usize], letters: &str) {
        let present = self.random.one_in(2);
        let given = self.out(name, dtype, shape, letters);
        (given.optional, given.present) = (true, present);
    }

    /// Weights, in a third of all calls: some of them 0, in f32 or the dtype of data.
    pub fn weight(&mut self, name: &str, shape: &[usize], letters: &str) {
        let zeros = self.random.pick(&[1, 4, 1000]);
        let scale = match self.extreme {
            true => self.random.pick(&[1e-40, 1e-30, 1.0, 1e30]),
            false => 1.0,
        };
        let one = |random: &mut Random| match random.one_in(zeros) {
            true => 0.0,
            false => scale * f64::from(random.normal()).abs(),
        };
        let values = (0..shape.iter().product()).map(|_| one(&mut self.random)).collect();
        let dtype = self.random.pick(&[DType::F32, self.dtype]);
        let present = self.random.one_in(3);
        let given = self.given((name, Role::Read), (dtype, shape, letters), values);
        (given.optional, given.present) = (true, present);
    }

    /// An upstream gradient: a number, or a tensor of the result's shape.
    pub fn upstream(&mut self, name: &'static str, shape: &[usize], letters: &str) {
        self.upstream_or(name, 1.0, shape, letters);
    }

    /// The same with a number as its default.
    pub fn upstream_or(
        &mut self,
        name: &'static str,
        default: f64,
        shape: &[usize],
        letters: &str,
    ) {
        let number = f64::from(self.random.normal());
        self.number(name, default, &[number, number, 1.0 - default]);
        let (values, present) = (self.normal(shape, 1.0), self.random.one_in(2));
        let dtype = self.random.pick(&[DType::F32, self.dtype]);
        let given = self.given((name, Role::Read), (dtype, shape, letters), values);
        (given.optional, given.present) = (true, present);
    }

    /// Class indices, some of them ignored, and the option that says which.
    pub fn targets(&mut self, name: &str, classes: usize, rows: &[usize], letters: &str) {
        let drawn = Targets::draw(&mut self.random, classes, rows);
        let Ok(Targets { indices, ignore_index }) = drawn else { return };
        let values = indices.view().to_f64().unwrap_or_default();
        let (name, dtype) = ((name, Role::Read), indices.dtype());
        self.given(name, (dtype, rows, letters), values);
        let (value, default) = (Setpoint::Integer(ignore_index), Setpoint::Integer(-100));
        self.call.settings.push(Setting { name: "ignore_index", value, default });
    }

    /// A shape of logits, with the letters of its sizes; without the classes, the same of rows.
    pub fn logits_shape(&mut self) -> LogitsShape {
        let random = &mut self.random;
        let classes = match random.below(12) {
            0 => random.pick(&[257, 1031, 2049, 4100]),
            1 => 0,
            _ => random.pick(&[1, 2, 3, 5, 7, 8, 17, 33, 64, 100]),
        };
        let rows = random.below(6);
        let (shape, letters) = match random.below(8) {
            0 => (vec![classes], "C"),
            1 => (vec![rows, classes, 1 + random.below(5)], "NCX"),
            2 => (vec![rows, classes.min(257), 1 + random.below(3), 1 + random.below(4)], "NCXY"),
            _ => (vec![rows, classes], "NC"),
        };
        let class_dim = usize::from(shape.len() > 1);
        let mut rows = shape.clone();
        let classes = rows.remove(class_dim);
        let row_letters = letters.replace('C', "");
        LogitsShape { shape, letters, rows, row_letters, classes }
    }
}

/// What [`Draft::logits_shape`] draws.
#[derive(Debug)]
pub struct LogitsShape {
    pub shape: Vec<usize>,
    pub letters: &'static str,
    pub rows: Vec<usize>,
    pub row_letters: String,
    pub classes: usize,
}

impl LogitsShape {
    /// The shape of a loss.
    pub fn loss(&self, reduction: Reduction) -> (&[usize], &str) {
        match reduction {
            Reduction::None => (&self.rows, &self.row_letters),
            Reduction::Sum | Reduction::Mean | Reduction::BatchMean => (&[], ""),
        }
    }
}
