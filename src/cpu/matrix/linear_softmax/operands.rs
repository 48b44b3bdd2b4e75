//! What a softmax over products is called with.

use crate::cpu::matrix::product::{Gradient, Matrix, Panel};
use crate::cpu::processor::Cpu;

/// Rows times classes.
pub(crate) struct Softmax<'a> {
    pub(crate) cpu: &'a Cpu,
    /// `[rows, width]`.
    pub(crate) hidden: &'a [f32],
    pub(crate) stride: usize,
    /// `[classes, width]`.
    pub(crate) weight: Matrix<'a>,
    pub(crate) bias: Option<&'a [f32]>,
    /// The class of each row.
    pub(crate) targets: &'a [usize],
}

/// What a gradient is made of, and where it goes.
pub(crate) struct Backward<'a> {
    /// What multiplies p − [j = t], one a row.
    pub(crate) factors: &'a [f64],
    /// `[rows, width]`, overwritten.
    pub(crate) hidden: Option<&'a mut [f32]>,
    pub(crate) weight: Option<&'a Gradient<'a>>,
    /// One value a class, overwritten.
    pub(crate) bias: Option<&'a mut [f32]>,
}

/// Logits that are stored at most, beyond one row's.
pub(crate) const STORED: usize = 4 << 20;

impl Softmax<'_> {
    /// The hidden rows from one on.
    pub(crate) fn hidden_from(&self, row: usize) -> Panel {
        Panel::of(self.hidden.get(row * self.stride..).unwrap_or(&[]), self.stride)
    }
}
