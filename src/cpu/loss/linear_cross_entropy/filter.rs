//! Pieces of rows that a filter leaves without a gradient. Each row is read once more, before its logits become their
//! gradient: nothing is saved by that on a CPU, which multiplies whole rows.

use crate::cpu::batch::numbers::Batch;
use crate::cpu::matrix::chunks::Logits;
use crate::cpu::processor::Cpu;
use crate::cpu::threads::SyncPtr;

/// Classes of a piece.
const PIECE: usize = 64;

/// What is to be cleared of some rows of logits.
pub(super) struct Filter<'a> {
    cpu: &'a Cpu,
    /// Of each row, its pieces that have no gradient.
    empty: Vec<Vec<usize>>,
}

impl<'a> Filter<'a> {
    /// Those whose every |p − [the target]| is below the bound.
    pub(super) fn of(
        cpu: &'a Cpu,
        batch: &Batch<'_>,
        logits: &Logits<'_>,
        bound: f32,
    ) -> Filter<'a> {
        let mut empty = vec![Vec::new(); logits.rows.len()];
        let data: &[f32] = logits.data;
        cpu.share_items(&mut empty, |row, to| {
            let z = &data[row * logits.stride..][..logits.classes];
            if let Some(target) = batch.targets.class(row) {
                *to = pieces(batch, z, target, f64::from(bound));
            }
        });
        Filter { cpu, empty }
    }

    /// Makes zeros of them, once the logits are their gradient.
    pub(super) fn clear(&self, logits: Logits<'_>) {
        let (stride, classes) = (logits.stride, logits.classes);
        let first = SyncPtr(logits.data.as_mut_ptr());
        self.cpu.share(self.empty.len(), 1, &|row| {
            for &piece in &self.empty[row] {
                let at = piece * PIECE;
                let n = PIECE.min(classes - at);
                // SAFETY: a piece of a row of the logits, which are borrowed exclusively; each row comes once.
                let to = unsafe {
                    std::slice::from_raw_parts_mut(first.get().add(row * stride + at), n)
                };
                to.fill(0.0);
            }
        });
    }
}

fn pieces(batch: &Batch<'_>, x: &[f32], target: usize, bound: f64) -> Vec<usize> {
    let z = |class: usize| batch.transform.at(x[class]).0;
    let others = |range: std::ops::Range<usize>| range.filter(|&class| class != target);
    let max = (0..x.len()).map(z).fold(f64::NEG_INFINITY, f64::max);
    let rest: f64 = others(0..x.len()).map(|class| (z(class) - max).exp()).sum();
    let total = rest + (z(target) - max).exp();
    let limit = bound * total;
    // A z-loss has the target's p in the gradient, however near to 1.
    let target_is_below = rest < limit && batch.lambda == 0.0;
    let is_empty = |piece: &usize| {
        let of = piece * PIECE..((piece + 1) * PIECE).min(x.len());
        (target_is_below || !of.contains(&target))
            // What is NaN is not below.
            && others(of).all(|class| (z(class) - max).exp() < limit)
    };
    (0..x.len().div_ceil(PIECE)).filter(is_empty).collect()
}
