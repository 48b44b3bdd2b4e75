//! The public calls of this loss; what it computes: `spec/ranks.rs`.

use crate::base::error::{Error, Result};
use crate::base::host::Element as _;
use crate::base::shape::Shape;
use crate::base::tensor::TensorRef;
use crate::base::validate;
use crate::device::Device;
use crate::spec::ranks::{Call, Ranks, TopkAccuracy};

impl Ranks {
    pub(crate) fn new(device: &Device, rows: Shape, beside: &TensorRef<'_>) -> Result<Ranks> {
        let zeros = |name| device.zeros(name, i64::DTYPE, rows, beside);
        Ok(Ranks { argmax: zeros("argmax")?, rank: zeros("rank")? })
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
    validate::dtype("rank", &rank, &[i64::DTYPE], "ranks, as a loss wrote them")?;
    validate::contiguous("rank", &rank)?;
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
    device.backend("rank", &[rank.place()])?.count_ranks(Call {
        rank,
        limits: &limits,
        counts: &mut counts,
    })?;
    let mut correct: Vec<u64> = counts.iter().map(|&n| n as u64).collect();
    let kept = correct.pop().unwrap_or(0);
    Ok(TopkAccuracy { kept, correct })
}
