//! Options of losses as data.

/// An option of a loss.
#[derive(Debug)]
pub struct Choice {
    /// Its name, as errors have it.
    pub name: &'static str,
    /// What stands for its value in a usage.
    pub value: &'static str,
    /// Its line of help.
    pub help: &'static str,
    /// What it is without a word.
    pub default: Scalar,
    /// What cases are made of, as often as it stands here.
    pub cases: &'static [f64],
    /// What random calls are made of besides the default, before they are made wrong.
    pub calls: &'static [f64],
    /// What tests go through.
    pub tests: &'static [f64],
}

/// What an option is set to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar {
    /// A number.
    Number(f64),
    /// Yes or no; 1 or 0 where it is a number.
    Flag(bool),
}

impl Scalar {
    /// As a formula takes it.
    pub fn number(self) -> f32 {
        match self {
            Scalar::Number(number) => number as f32,
            Scalar::Flag(flag) => f32::from(u8::from(flag)),
        }
    }
}
