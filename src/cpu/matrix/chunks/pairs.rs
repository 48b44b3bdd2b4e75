//! bf16 hidden rows and weights where they lie.

use crate::cpu::matrix::bf16::Unit;
use crate::cpu::matrix::product::{Matrix, Panel};
use half::bf16;

/// Hidden rows and weights that pairs are made of.
#[derive(Clone, Copy)]
pub(super) struct Pairs<'a> {
    pub(super) unit: Unit,
    input: (&'a [bf16], usize),
    weight: (&'a [bf16], usize),
}

impl<'a> Pairs<'a> {
    /// Of matrices that are both bf16.
    pub(super) fn of(unit: Unit, input: &Matrix<'a>, weight: &Matrix<'a>) -> Option<Pairs<'a>> {
        Some(Pairs { unit, input: input.bf16()?, weight: weight.bf16()? })
    }

    /// The hidden rows, from one on that there is.
    pub(super) fn rows(self, row: usize) -> Panel<bf16> {
        let (data, stride) = self.input;
        Panel::of(data.get(row * stride..).unwrap_or(&[]), stride)
    }

    /// The classifier, from a class on that it has.
    pub(super) fn weight(self, class: usize) -> Panel<bf16> {
        let (data, stride) = self.weight;
        Panel::of(&data[class * stride..], stride)
    }

    /// So many numbers of a class.
    pub(super) fn class(&self, class: usize, features: usize) -> &[bf16] {
        &self.weight.0[class * self.weight.1..][..features]
    }

    /// So many numbers of a hidden row.
    pub(super) fn row(&self, row: usize, features: usize) -> &[bf16] {
        &self.input.0[row * self.input.1..][..features]
    }

    /// Whether one of so many numbers of a class is infinite or NaN.
    pub(super) fn endless_class(&self, class: usize, features: usize) -> bool {
        is_endless(self.class(class, features))
    }

    /// The same of a hidden row.
    pub(super) fn endless_row(&self, row: usize, features: usize) -> bool {
        is_endless(self.row(row, features))
    }
}

/// Whether a number is infinite or NaN.
fn is_endless(row: &[bf16]) -> bool {
    row.iter().fold(false, |any, x| any | (x.to_bits() & 0x7f80 == 0x7f80))
}
