//! Numbers that are hard on a loss, and those that are not.

use crate::base::dtype::DType;
use crate::check::random::Random;

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
