//! One row: cut into segments, summed, and turned into a gradient, on one thread or on many.
//!
//! A row is cut the same way whoever works on it, each segment is summed by itself, and the
//! segments' sums are merged in order: so the bits do not depend on the number of threads.
//!
//! The target's column is left out of the segments. Its exponential is added apart, so that
//! p_t − 1 = −(sum of the others)/(whole sum) and ln of a sum barely above 1 lose no digits.

use super::lines::SyncPtr;
use super::simd::{Lanes, Simd};
use super::softmax::{Accumulate, Gradient, Logit, NoSmoothing, Partial, Rescale, Smooth};
use rayon::prelude::*;
use std::ops::Range;

/// Elements of a block: 8 KiB of f32, so that a block stays in a 32 KiB L1 cache between passes.
const BLOCK: usize = 2048;
/// Most blocks of a row; a longer row has longer blocks.
const MAX_BLOCKS: usize = 1024;
/// Most segments of a row: the target cuts one block in two.
pub(crate) const MAX_SEGMENTS: usize = MAX_BLOCKS + 1;

/// Who works on a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    /// The calling thread alone.
    Alone,
    /// All threads of the current pool.
    Shared,
}

/// How a row of `len` elements is cut: blocks of equal size, one of them cut at the hole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segments {
    len: usize,
    block: usize,
    hole: Option<usize>,
}

impl Segments {
    pub(crate) fn new(len: usize, hole: Option<usize>) -> Segments {
        let block = BLOCK.max(len.div_ceil(MAX_BLOCKS).next_multiple_of(64));
        Segments { len, block, hole }
    }

    pub(crate) fn count(&self) -> usize {
        self.len.div_ceil(self.block) + usize::from(self.hole.is_some())
    }

    pub(crate) fn range(&self, i: usize) -> Range<usize> {
        let block = |b: usize| b * self.block..((b + 1) * self.block).min(self.len);
        match self.hole {
            Some(hole) => match i.cmp(&(hole / self.block)) {
                std::cmp::Ordering::Less => block(i),
                std::cmp::Ordering::Equal => block(i).start..hole,
                std::cmp::Ordering::Greater if i == hole / self.block + 1 => {
                    hole + 1..block(i - 1).end
                }
                std::cmp::Ordering::Greater => block(i - 1),
            },
            None => block(i),
        }
    }

    /// Calls `work(segment, columns)` once for each segment, in no order that matters.
    pub(crate) fn each(&self, spread: Spread, work: impl Fn(usize, Range<usize>) + Sync) {
        match spread {
            Spread::Alone => (0..self.count()).for_each(|i| work(i, self.range(i))),
            Spread::Shared => (0..self.count())
                .into_par_iter()
                .with_min_len(4)
                .for_each(|i| work(i, self.range(i))),
        }
    }

    /// As [`Segments::each`], from the last segment to the first where one thread does it all:
    /// the end of a row that was just read is what a cache still holds.
    pub(crate) fn each_reversed(&self, spread: Spread, work: impl Fn(usize, Range<usize>) + Sync) {
        match spread {
            Spread::Alone => (0..self.count()).rev().for_each(|i| work(i, self.range(i))),
            Spread::Shared => self.each(spread, work),
        }
    }
}

/// The merged sums of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowSum {
    /// Maximum of z.
    pub(crate) max: f32,
    /// Σ e^(z − max) without the target.
    pub(crate) rest: f64,
    /// e^(z_t − max); 0 without a target.
    pub(crate) target: f64,
    /// ln Σ e^(z − max).
    pub(crate) log_sum: f64,
    /// max − z_t.
    pub(crate) target_distance: f64,
    /// Σ w·(max − z), the target included, where smoothing is on.
    pub(crate) deviation: f64,
}

impl RowSum {
    /// ln Σ e^z.
    pub(crate) fn lse(&self) -> f64 {
        f64::from(self.max) + self.log_sum
    }

    /// lse − z_t, formed without the common offset of the logits, and as ln(1 + rest/target)
    /// unless the target is negligible, so that a small loss keeps its digits.
    pub(crate) fn nll(&self) -> f64 {
        if self.target > f64::MIN_POSITIVE {
            (self.rest / self.target).ln_1p()
        } else {
            self.log_sum + self.target_distance
        }
    }

    /// Whether the row has no probabilities: all −∞, or a +∞ or NaN in it.
    pub(crate) fn undefined(&self) -> bool {
        !self.max.is_finite() || self.log_sum.is_nan()
    }

    pub(crate) fn total(&self) -> f64 {
        self.rest + self.target
    }
}

/// The target's column, taken out of its row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hole {
    pub(crate) column: usize,
    /// z at the target, and dz/dx there.
    pub(crate) z: f64,
    pub(crate) slope: f64,
    /// The target's smoothing weight.
    pub(crate) weight: f64,
}

/// A row's segments and what each summed to, for the pass that makes the gradient.
pub(crate) struct Summed {
    pub(crate) segments: Segments,
    pub(crate) partials: [Partial; MAX_SEGMENTS],
}

/// A row of logits as a pass sees it.
pub(crate) struct Row<T, L, W> {
    pub(crate) x: *const T,
    pub(crate) len: usize,
    pub(crate) logit: L,
    pub(crate) weights: W,
    pub(crate) spread: Spread,
}

impl<T: Lanes, L: Logit, W: Smooth> Row<T, L, W> {
    /// Sums the row; with `KEEP`, its logits become exponentials, each segment's relative to its
    /// own [`Partial::reference`].
    ///
    /// # Safety
    /// `len` elements are readable at `x` (writable with `KEEP`, and then `T` is f32 and the
    /// logit linear), the weights have `len` elements, and nobody else touches the row.
    pub(crate) unsafe fn sum<S: Simd, const KEEP: bool>(
        &self,
        simd: S,
        hole: Option<Hole>,
        summed: &mut Summed,
    ) -> RowSum {
        summed.segments = Segments::new(self.len, hole.map(|h| h.column));
        let (x, logit, smooth) = (SyncPtr(self.x.cast_mut()), self.logit, self.weights);
        let partials = SyncPtr(summed.partials.as_mut_ptr());
        summed.segments.each(self.spread, |i, columns| {
            // SAFETY: the columns lie inside the row; `i` is this call's own partial.
            unsafe {
                let start = x.get().add(columns.start);
                *partials.get().add(i) = simd.enter(Accumulate::<T, L, W, KEEP> {
                    x: start,
                    keep: start,
                    len: columns.len(),
                    column: columns.start,
                    logit,
                    smooth,
                });
            }
        });
        merge(&summed.partials[..summed.segments.count()], hole)
    }

    /// Exponentials kept by [`Row::sum`] become `prob·p − smooth·w`, but for the hole.
    ///
    /// # Safety
    /// As for [`Row::sum`] with `KEEP`, which made `summed` of this very row.
    pub(crate) unsafe fn rescale<S: Simd>(
        &self,
        simd: S,
        summed: &Summed,
        sum: &RowSum,
        terms: &Terms,
    ) {
        let x = SyncPtr(self.x.cast_mut().cast::<f32>());
        let weights = self.weights;
        let scale = f64::from(terms.prob) / sum.total();
        summed.segments.each_reversed(self.spread, |i, columns| {
            let max = summed.partials[i].max;
            let factor = match max {
                f32::NEG_INFINITY => 0.0,
                _ => (scale * exp_of_difference(max, sum.max)) as f32,
            };
            // SAFETY: the columns lie inside the row, and each belongs to one call.
            unsafe {
                simd.enter(Rescale {
                    x: x.get().add(columns.start),
                    len: columns.len(),
                    column: columns.start,
                    factor,
                    smooth: terms.smooth,
                    weights,
                });
            }
        });
    }

    /// Logits become `(prob·p − smooth·w)·dz/dx` in `out`, but for the hole, with
    /// p = e^(z − reference)/total; returns the sum of e^(z − reference).
    ///
    /// # Safety
    /// `len` elements are readable at `x` and writable at `out`, which is `x` itself or does not
    /// overlap it; the weights have `len` elements, and nobody else touches the rows.
    pub(crate) unsafe fn gradient<S: Simd, U: Lanes>(
        &self,
        simd: S,
        out: *mut U,
        hole: Option<usize>,
        (reference, total): (f32, f64),
        terms: &Terms,
    ) -> f64 {
        let segments = Segments::new(self.len, hole);
        let (x, out) = (SyncPtr(self.x.cast_mut()), SyncPtr(out));
        let (logit, weights) = (self.logit, self.weights);
        let factor = (f64::from(terms.prob) / total) as f32;
        let mut sums = [0f32; MAX_SEGMENTS];
        let slots = SyncPtr(sums.as_mut_ptr());
        segments.each_reversed(self.spread, |i, columns| {
            // SAFETY: the columns lie inside both rows; `i` is this call's own slot.
            unsafe {
                *slots.get().add(i) = simd.enter(Gradient {
                    x: x.get().add(columns.start).cast_const(),
                    out: out.get().add(columns.start),
                    len: columns.len(),
                    column: columns.start,
                    reference,
                    factor,
                    smooth: terms.smooth,
                    logit,
                    weights,
                });
            }
        });
        sums[..segments.count()].iter().map(|&s| f64::from(s)).sum()
    }

    /// The row's sums alone, without smoothing.
    ///
    /// # Safety
    /// `len` elements are readable at `x`.
    pub(crate) unsafe fn sum_plain<S: Simd>(&self, simd: S, hole: Option<Hole>) -> RowSum {
        let plain = Row {
            x: self.x,
            len: self.len,
            logit: self.logit,
            weights: NoSmoothing,
            spread: self.spread,
        };
        // SAFETY: the caller's contract; nothing is written without KEEP.
        unsafe { plain.sum::<S, false>(simd, hole, &mut Summed::new()) }
    }
}

/// What multiplies p_j and w_j in the gradient, the constant part of dz/dx included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) prob: f32,
    pub(crate) smooth: f32,
}

impl Summed {
    pub(crate) fn new() -> Summed {
        Summed {
            segments: Segments::new(0, None),
            partials: [Partial::EMPTY; MAX_SEGMENTS],
        }
    }
}

/// e^(a − b) for a ≤ b, without a library call where they are equal.
fn exp_of_difference(a: f32, b: f32) -> f64 {
    if a == b {
        1.0
    } else {
        (f64::from(a) - f64::from(b)).exp()
    }
}

fn merge(partials: &[Partial], hole: Option<Hole>) -> RowSum {
    let target = hole.map_or(f32::NEG_INFINITY, |h| h.z as f32);
    // `target` NaN: f32::max disregards it, the sum does not.
    let max = partials.iter().fold(target, |m, p| m.max(p.max));
    let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
    let (mut rest, mut deviation) = (0.0, 0.0);
    for p in partials {
        if p.max == f32::NEG_INFINITY {
            rest += f64::from(p.sum); // 0, or NaN
        } else {
            rest += f64::from(p.sum) * exp_of_difference(p.max, shift);
        }
        deviation += f64::from(p.deviation);
        if p.weight != 0.0 {
            deviation += f64::from(p.weight) * (f64::from(shift) - f64::from(p.reference()));
        }
    }
    let (mut target, mut target_distance) = (0.0, 0.0);
    if let Some(hole) = hole {
        target_distance = f64::from(max) - hole.z;
        let shift = f64::from(shift);
        target = if hole.z == shift { 1.0 } else { (hole.z - shift).exp() };
        if hole.weight != 0.0 {
            deviation += hole.weight * (shift - hole.z);
        }
    }
    RowSum {
        max,
        rest,
        target,
        log_sum: (rest + target).ln(),
        target_distance,
        deviation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_every_column_but_the_hole_once() {
        for len in [0, 1, 2, 63, 2047, 2048, 2049, 4096, 5000, 3_000_000] {
            for hole in [None, Some(0), Some(len / 2), Some(2047), Some(2048), len.checked_sub(1)] {
                if hole.is_some_and(|h| h >= len) {
                    continue;
                }
                let segments = Segments::new(len, hole);
                assert!(segments.count() <= MAX_SEGMENTS);
                let columns = (0..segments.count()).flat_map(|i| segments.range(i));
                assert!(columns.eq((0..len).filter(|&c| Some(c) != hole)), "{len} {hole:?}");
            }
        }
    }
}
