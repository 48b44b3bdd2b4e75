//! How the losses of the rows become the result.

use crate::base::error::Error;
use crate::base::shape::Shape;
use std::str::FromStr;

/// Reduction of per-row (or per-element) losses, named as in PyTorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Reduction {
    /// Keep one loss per row, in the target's shape.
    None,
    /// Add the losses.
    Sum,
    /// Divide the sum by the loss's own denominator (each loss says which).
    #[default]
    Mean,
    /// Divide the sum by the size of the first dimension; for the divergences alone.
    BatchMean,
}

impl Reduction {
    /// Every reduction.
    pub const ALL: [Reduction; 4] =
        [Reduction::None, Reduction::Sum, Reduction::Mean, Reduction::BatchMean];

    /// The name as PyTorch writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Reduction::None => "none",
            Reduction::Sum => "sum",
            Reduction::Mean => "mean",
            Reduction::BatchMean => "batchmean",
        }
    }

    /// The shape of the result: that of the losses where they are kept.
    pub(crate) fn loss_shape(self, losses: Shape) -> Shape {
        match self {
            Reduction::None => losses,
            Reduction::Sum | Reduction::Mean | Reduction::BatchMean => Shape::SCALAR,
        }
    }
}

/// By [`Reduction::name`].
///
/// ```
/// use warploss::Reduction;
///
/// assert_eq!("batchmean".parse(), Ok(Reduction::BatchMean));
/// let said = "average".parse::<Reduction>().expect_err("none of PyTorch's").to_string();
/// assert_eq!(said, "reduction: expected none, sum, mean or batchmean, got average");
/// ```
impl FromStr for Reduction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reduction, Error> {
        let named = Reduction::ALL.into_iter().find(|reduction| reduction.name() == text);
        named.ok_or_else(|| Error::unnamed("reduction", &Reduction::ALL.map(Reduction::name), text))
    }
}

impl std::fmt::Display for Reduction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for reduction in Reduction::ALL {
            assert_eq!(reduction.name().parse(), Ok(reduction));
        }
        for wrong in ["", "Mean", "batch_mean", "elementwise_mean"] {
            assert!(wrong.parse::<Reduction>().is_err(), "{wrong}");
        }
    }
}
