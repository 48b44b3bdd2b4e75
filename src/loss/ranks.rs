//! Where a target stands among the classes: argmax, rank, and accuracy among the k best.

use super::check;
use crate::device::{Device, on_device};
use crate::dtype::Element as _;
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::tensor::{Tensor, TensorRef};

/// Each row's best class and the rank of its target, from the read that a loss makes anyway.
///
/// Classes are ordered by their logit as given, before scale and soft-cap (which are monotone, but
/// round): the larger beats the smaller, NaN beats every number, and of equals the lower index
/// beats the higher, as `torch.argmax` has it. Top-1 accuracy is the share of kept rows of rank 0,
/// top-k the share of rank below k ([`topk_accuracy`]).
#[derive(Debug, Clone, PartialEq)]
pub struct Ranks {
    /// The class that beats all others; the target's shape, i64; −1 for ignored rows.
    pub argmax: Tensor,
    /// How many classes beat the target; the target's shape, i64; −1 for ignored rows.
    pub rank: Tensor,
}

impl Ranks {
    pub(super) fn new(device: &Device, rows: Shape, beside: &TensorRef<'_>) -> Result<Ranks> {
        let zeros = |name| device.zeros(name, i64::DTYPE, rows, beside);
        Ok(Ranks { argmax: zeros("argmax")?, rank: zeros("rank")? })
    }
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

/// Counts the rows whose target is among the k best classes, for each k of `ks`.
///
/// `rank` is what a loss wrote: of any shape, i64, negative for rows that do not count. Counts
/// are whole numbers: the same on every device.
///
/// ```
/// use warploss::{CrossEntropy, Device, TensorRef, topk_accuracy};
/// let logits = TensorRef::new(&[0.0f32, 3.0, 2.0, 5.0, 1.0, 1.0], &[2, 3])?;
/// let target = TensorRef::new(&[2i64, 0], &[2])?;
/// let device = Device::best();
/// let (_, ranks) = CrossEntropy::default().forward_with_ranks(&device, logits, target)?;
/// assert_eq!(ranks.argmax.as_slice::<i64>(), Some(&[1, 0][..]));
/// assert_eq!(ranks.rank.as_slice::<i64>(), Some(&[1, 0][..]));
/// let top = topk_accuracy(&device, ranks.rank.view(), &[1, 2])?;
/// assert_eq!((top.kept, &top.correct[..]), (2, &[1, 2][..]));
/// # Ok::<(), warploss::Error>(())
/// ```
///
/// # Errors
/// Ranks that are not i64 or not contiguous, a k of 0.
pub fn topk_accuracy(device: &Device, rank: TensorRef<'_>, ks: &[usize]) -> Result<TopkAccuracy> {
    check::dtype("rank", &rank, &[i64::DTYPE], "ranks, as a loss wrote them")?;
    check::contiguous("rank", &rank)?;
    if let Some(position) = ks.iter().position(|&k| k == 0) {
        return Err(Error::Value {
            argument: "ks",
            expected: "numbers of classes ≥ 1".into(),
            got: format!("0 at position {position}"),
        });
    }
    let mut counts = vec![0; ks.len() + 1];
    // The last limit counts the kept rows.
    let limits: Vec<i64> =
        ks.iter().map(|&k| i64::try_from(k).unwrap_or(i64::MAX)).chain([i64::MAX]).collect();
    on_device!(device, "rank", [rank.place()], on => {
        on.count_ranks(rank, &limits, &mut counts)
    })?;
    let mut correct: Vec<u64> = counts.iter().map(|&n| n as u64).collect();
    let kept = correct.pop().unwrap_or(0);
    Ok(TopkAccuracy { kept, correct })
}
