//! Pieces of a row that a bound leaves without a gradient.

use super::{Row, Softmax, WithSizes};

/// Classes of a piece.
const PIECE: usize = 64;

/// What products are off by, in units of their size.
const OFF: f64 = 2e-5;

/// As a number beside a bound is.
#[derive(PartialEq)]
enum Beside {
    Below,
    Above,
    /// Too near to say: either is right.
    Near,
}

impl Row<'_> {
    /// Clears the gradient of pieces whose every |p − \[target\]| is below the bound.
    pub(super) fn leave_out(&self, dz: &mut WithSizes, own: usize, bound: f64) {
        let z = self.z.values.iter();
        let z: Vec<f64> = z.map(|&x| super::cross_entropy::transform(self.options, x).0).collect();
        let softmax = Softmax::new(&z);
        if softmax.undefined() {
            return;
        }
        let margin = OFF * self.off();
        let beside = |class: usize| {
            // A z-loss has the target's probability in the gradient, however near to 1.
            let far = match class == own {
                true if self.options.lse_square_scale > 0.0 => f64::INFINITY,
                true => softmax.complement(class),
                false => softmax.probability(class),
            };
            match far {
                far if far * (1.0 + margin) < bound => Beside::Below,
                far if far * (1.0 - margin) >= bound => Beside::Above,
                _ => Beside::Near,
            }
        };
        for first in (0..z.len()).step_by(PIECE) {
            let piece = first..z.len().min(first + PIECE);
            let all: Vec<Beside> = piece.clone().map(beside).collect();
            if all.contains(&Beside::Above) {
                continue;
            }
            let sure = !all.contains(&Beside::Near);
            for class in piece {
                match sure {
                    true => (dz.values[class], dz.sizes[class]) = (0.0, 0.0),
                    false => dz.sizes[class] += dz.values[class].abs() / OFF,
                }
            }
        }
    }
}
