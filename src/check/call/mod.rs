//! A call as data: what is called, with which options and tensors.

pub(in crate::check) mod bound;
pub(in crate::check) mod clusters;
pub(in crate::check) mod draft;
pub(in crate::check) mod lines;

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::Tensor;
use crate::check::typed;
use std::fmt;

/// One call of one form of an op, right or wrong.
#[derive(Debug, Clone)]
pub struct Call {
    /// Whose: a name of the catalogue's.
    pub op: &'static str,
    /// What it was drawn from.
    pub seed: u64,
    /// The method.
    pub form: &'static str,
    /// Whether tensors lie on the device, and else on the host.
    pub resident: bool,
    /// What the options are set to.
    pub settings: Vec<Setting>,
    /// All tensors.
    pub tensors: Vec<Given>,
    /// What was made wrong, in words.
    pub spoiled: Vec<String>,
}

/// An option.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What it is set to.
    pub value: Setpoint,
    /// What it is without a word.
    pub default: Setpoint,
}

/// What an option is set to.
#[derive(Debug, Clone, PartialEq)]
pub enum Setpoint {
    /// Nothing.
    Unset,
    /// A number, rounded to what the option takes.
    Number(f64),
    /// A label, an index or a count.
    Integer(i64),
    /// Yes or no.
    Flag(bool),
    /// Several counts.
    List(Vec<usize>),
    /// Dimensions.
    Dims(Vec<isize>),
    /// A name among several.
    Word(&'static str),
    /// A reduction.
    Reduction(Reduction),
}

/// What a call does with a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is read.
    Read,
    /// It is written, whatever it held.
    Written,
    /// It is read, and what the call makes of it written over it.
    Both,
    /// It is given away, and may come back as a result.
    Consumed,
}

/// A tensor of a call.
#[derive(Debug, Clone)]
pub struct Given {
    /// Its name.
    pub name: String,
    /// What is done with it.
    pub role: Role,
    /// The call can do without; and whether it does.
    pub optional: bool,
    /// Whether it is there.
    pub present: bool,
    /// Type of the elements.
    pub dtype: DType,
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// Letters of sizes that calls of one op share (`N` rows, `C` classes); ' ' for others.
    pub letters: Vec<char>,
    /// What lies between its rows.
    pub padding: usize,
    /// The elements, row-major; repeated where there are too few.
    pub values: Vec<f64>,
}

/// Elements behind a tensor's last, in the same memory.
const SLACK: usize = 3;

/// What stands in memory that nothing was written to, and in padding.
pub const POISON: f64 = 77.0;

impl Given {
    /// Elements of a row.
    fn row(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// The distance between rows.
    pub fn row_stride(&self) -> usize {
        if self.shape.is_empty() { 1 } else { self.row() + self.padding }
    }

    /// Whether an element of the memory lies between the tensor's rows, or behind them.
    pub fn is_padding(&self, at: usize) -> bool {
        let (row, stride) = (self.row(), self.row_stride());
        let rows = self.shape.first().map_or(1, |&rows| rows);
        row == 0 || at >= rows * stride || at % stride >= row
    }

    /// The memory, padding and what lies behind included, one-dimensional.
    ///
    /// # Errors
    /// Out of memory.
    pub fn memory(&self) -> Result<Tensor> {
        let elements: usize = self.shape.iter().product();
        let (row, stride) = (self.row().max(1), self.row_stride());
        let rows = elements.div_ceil(row);
        let mut memory = vec![POISON; rows * stride + SLACK];
        if let (false, Role::Read | Role::Both | Role::Consumed) =
            (self.values.is_empty(), self.role)
        {
            for i in 0..elements {
                memory[i / row * stride + i % row] = self.values[i % self.values.len()];
            }
        }
        typed::tensor(self.dtype, &[memory.len()], &memory)
    }
}

impl Call {
    /// A call of that op, of no form and nothing given yet, on host tensors.
    pub fn new(op: &'static str, seed: u64) -> Call {
        Call {
            op,
            seed,
            form: "",
            resident: false,
            settings: Vec::new(),
            tensors: Vec::new(),
            spoiled: Vec::new(),
        }
    }

    /// What the option is set to.
    pub fn setting(&self, name: &str) -> &Setpoint {
        let setting = self.settings.iter().find(|setting| setting.name == name);
        setting.map_or(&Setpoint::Unset, |setting| &setting.value)
    }
}

impl fmt::Display for Setpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setpoint::Unset => write!(f, "unset"),
            Setpoint::Number(x) => write!(f, "{x:?}"),
            Setpoint::Integer(i) => write!(f, "{i}"),
            Setpoint::Flag(yes) => write!(f, "{yes}"),
            Setpoint::List(list) => write!(f, "{list:?}"),
            Setpoint::Dims(dims) => write!(f, "{dims:?}"),
            Setpoint::Word(word) => write!(f, "{word}"),
            Setpoint::Reduction(reduction) => write!(f, "{reduction}"),
        }
    }
}

/// Name, dtype, shape and, where they are few, elements.
impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.name, self.dtype, self.shape)?;
        if self.padding > 0 {
            write!(f, " (row stride {})", self.row_stride())?;
        }
        let elements: usize = self.shape.iter().product();
        if self.role != Role::Written && (1..=6).contains(&elements) && !self.values.is_empty() {
            let shown: Vec<f64> = self.values.iter().copied().cycle().take(elements).collect();
            write!(f, " {shown:?}")?;
        }
        Ok(())
    }
}

/// The form, tensors and options that are not the defaults, and what is wrong on purpose.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.op, self.form)?;
        write!(f, " on {} tensors", if self.resident { "resident" } else { "host" })?;
        for given in self.tensors.iter().filter(|given| given.present) {
            write!(f, ", {given}")?;
        }
        for setting in self.settings.iter().filter(|s| s.value != s.default) {
            write!(f, ", {} {}", setting.name, setting.value)?;
        }
        if !self.spoiled.is_empty() {
            write!(f, "; spoiled: {}", self.spoiled.join(", "))?;
        }
        Ok(())
    }
}
