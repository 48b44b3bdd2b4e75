//! Where a target stands among the classes: argmax, rank, and accuracy among the k best.

use crate::base::tensor::{Tensor, TensorRef};

/// Each row's best class and the rank of its target, from the read that a loss makes anyway.
///
/// Classes are ordered by their logit as given, before scale and soft-cap (which are monotone, but
/// round): the larger beats the smaller, NaN beats every number, and of equals the lower index
/// beats the higher, as `torch.argmax` has it. Top-1 accuracy is the share of kept rows of rank 0,
/// top-k the share of rank below k ([`topk_accuracy`](crate::topk_accuracy)).
#[derive(Debug, Clone, PartialEq)]
pub struct Ranks {
    /// The class that beats all others; the target's shape, i64; −1 for ignored rows.
    pub argmax: Tensor,
    /// How many classes beat the target; the target's shape, i64; −1 for ignored rows.
    pub rank: Tensor,
}

/// How many rows have their target among the k best classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopkAccuracy {
    /// Rows that are not ignored.
    pub kept: u64,
    /// For each k asked for: kept rows whose rank is below it.
    pub correct: Vec<u64>,
}

impl TopkAccuracy {
    /// `correct / kept` of the i-th k, if there is one; NaN where no row is kept, as the mean of
    /// no losses.
    pub fn accuracy(&self, i: usize) -> Option<f64> {
        self.correct.get(i).map(|&correct| correct as f64 / self.kept as f64)
    }
}

/// A call that has passed the checks, with everything that it reads and writes.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) rank: TensorRef<'a>,
    pub(crate) limits: &'a [i64],
    /// For each limit, how many ranks from 0 on are below it.
    pub(crate) counts: &'a mut [i64],
}
