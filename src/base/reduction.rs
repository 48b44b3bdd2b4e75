//! How the losses of the rows become the result.

use crate::base::shape::Shape;

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

impl std::fmt::Display for Reduction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
