//! One row: cut into segments, summed, and turned into a gradient, on one thread or on many.
//!
//! A row is cut the same way whoever works on it, each segment is summed by itself, and the
//! segments' sums are merged in order: so the bits do not depend on the number of threads.
//!
//! The target's column is left out of the segments. Its exponential is added apart, so that
//! p_t − 1 = −(sum of the others)/(whole sum) and ln of a sum barely above 1 lose no digits.

use super::lines::SyncPtr;
use super::logit::{Linear, Transform};
use super::simd::{Lanes, Level};
use super::softmax::{self, Deviation, GradientTerms, Partial, Rescale};
use rayon::prelude::*;
use std::mem::MaybeUninit;
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

/// One value a segment, written by whoever works on that segment; not initialised before, since
/// clearing them would cost a short row more than its own work.
struct Slots<T>([MaybeUninit<T>; MAX_SEGMENTS]);

impl<T: Copy + Send> Slots<T> {
    /// Calls `work` once for each segment and keeps what it returns.
    fn fill(
        &mut self,
        segments: &Segments,
        spread: Spread,
        work: impl Fn(usize, Range<usize>) -> T + Sync,
    ) -> &[T] {
        let slots = SyncPtr(self.0.as_mut_ptr());
        segments.each(spread, |i, columns| {
            let value = work(i, columns);
            // SAFETY: a segment's number is below MAX_SEGMENTS, and each comes once.
            unsafe { slots.get().add(i).write(MaybeUninit::new(value)) };
        });
        // SAFETY: every segment has written its slot.
        unsafe { self.filled(segments) }
    }

    /// # Safety
    /// [`Slots::fill`] has returned for these segments.
    unsafe fn filled(&self, segments: &Segments) -> &[T] {
        let slots = &self.0[..segments.count()];
        // SAFETY: the slots are written, and MaybeUninit<T> is laid out as T.
        unsafe { std::slice::from_raw_parts(slots.as_ptr().cast(), slots.len()) }
    }

    const fn new() -> Self {
        Slots([const { MaybeUninit::uninit() }; MAX_SEGMENTS])
    }
}

/// What one segment adds to its row.
#[derive(Debug, Clone, Copy)]
struct Part {
    exponentials: Partial,
    deviation: Deviation,
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
    target_distance: f64,
    /// Σ_c w_c·(max − z_c), the target included, where smoothing is on.
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

    fn merge(parts: &[Part], hole: Option<Hole>) -> RowSum {
        let z = hole.map_or(f64::NEG_INFINITY, |h| h.z);
        // f32::max disregards a NaN target; the sum does not.
        let max = parts.iter().fold(z as f32, |m, p| m.max(p.exponentials.max));
        let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
        let (mut rest, mut deviation) = (0.0, 0.0);
        for Part { exponentials: e, deviation: d } in parts {
            rest += match e.max {
                f32::NEG_INFINITY => f64::from(e.sum), // 0, or NaN
                _ => f64::from(e.sum) * exp_of_difference(e.max, shift),
            };
            deviation += f64::from(d.sum);
            if d.weight != 0.0 {
                let distance = overflow_as_f32(f64::from(shift) - f64::from(d.reference));
                deviation += f64::from(d.weight) * distance;
            }
        }
        if let Some(Hole { weight, .. }) = hole.filter(|h| h.weight != 0.0) {
            deviation += weight * overflow_as_f32(f64::from(shift) - z);
        }
        let target = match hole {
            Some(_) if z == f64::from(shift) => 1.0,
            Some(_) => (z - f64::from(shift)).exp(),
            None => 0.0,
        };
        RowSum {
            max,
            rest,
            target,
            log_sum: (rest + target).ln(),
            target_distance: overflow_as_f32(f64::from(max) - z),
            deviation,
        }
    }
}

/// e^(a − b) for a ≤ b, without a library call where they are equal.
fn exp_of_difference(a: f32, b: f32) -> f64 {
    if a == b { 1.0 } else { (f64::from(a) - f64::from(b)).exp() }
}

/// A distance between logits, infinite where f32 arithmetic, on any device, would have it so.
fn overflow_as_f32(distance: f64) -> f64 {
    if distance > f64::from(f32::MAX) { f64::INFINITY } else { distance }
}

/// The target's column, taken out of its row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hole {
    pub(crate) column: usize,
    /// z at the target, and dz/dx there.
    pub(crate) z: f64,
    pub(crate) slope: f64,
    /// The target's smoothing weight; 0 without smoothing.
    pub(crate) weight: f64,
}

/// A row of logits as a pass sees it.
pub(crate) struct Row<T> {
    pub(crate) level: Level,
    pub(crate) spread: Spread,
    pub(crate) transform: Transform,
    pub(crate) x: *const T,
    pub(crate) len: usize,
    /// Whether the loss is smoothed over all classes.
    pub(crate) smoothing: bool,
    /// Smoothing weights of all columns; null for 1 each.
    pub(crate) weights: *const f32,
}

/// A row's segments and what each summed to, for the pass that makes the gradient.
pub(crate) struct Kept {
    segments: Segments,
    parts: Slots<Part>,
}

impl Kept {
    /// To be filled; too large to be handed about.
    pub(crate) fn new() -> Kept {
        Kept { segments: Segments::new(0, None), parts: Slots::new() }
    }
}

/// What probabilities are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Normalizer<'a> {
    /// The row's own sum, just made.
    Sum(&'a RowSum),
    /// A saved log-sum-exp.
    Lse(f32),
}

/// What multiplies p_j and w_j in the gradient, the constant part of dz/dx included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) prob: f64,
    pub(crate) smooth: f32,
}

/// The memory of a row as closures on several threads see it.
#[derive(Clone, Copy)]
struct Memory<T> {
    x: SyncPtr<T>,
    weights: SyncPtr<f32>,
}

impl<T> Memory<T> {
    /// # Safety
    /// `column` lies in the row.
    unsafe fn x(self, column: usize) -> *mut T {
        // SAFETY: the caller's contract.
        unsafe { self.x.get().add(column) }
    }

    /// # Safety
    /// `column` lies in the row.
    unsafe fn weights(self, column: usize) -> *const f32 {
        match self.weights.get().is_null() {
            true => std::ptr::null(),
            // SAFETY: the caller's contract.
            false => unsafe { self.weights.get().add(column) },
        }
    }
}

impl<T: Lanes> Row<T> {
    fn memory(&self) -> Memory<T> {
        Memory { x: SyncPtr(self.x.cast_mut()), weights: SyncPtr(self.weights.cast_mut()) }
    }

    /// Sums the row.
    ///
    /// # Safety
    /// `len` elements are readable at `x`, the hole's column is one of them, and the weights (if
    /// not null) have as many.
    pub(crate) unsafe fn sum(&self, hole: Option<Hole>) -> RowSum {
        let segments = Segments::new(self.len, hole.map(|h| h.column));
        let (level, transform, memory) = (self.level, self.transform, self.memory());
        let smoothing = self.smoothing;
        let mut parts = Slots::new();
        let parts = parts.fill(&segments, self.spread, |_, columns| {
            // SAFETY: the columns lie inside the row, which is only read.
            unsafe {
                let x = memory.x(columns.start).cast_const();
                let len = columns.len();
                let w = memory.weights(columns.start);
                Part {
                    exponentials: softmax::accumulate(level, transform, x, len),
                    deviation: match smoothing {
                        true => softmax::deviation(level, transform, x, w, len),
                        false => Deviation::NONE,
                    },
                }
            }
        });
        RowSum::merge(parts, hole)
    }

    /// Logits become `(prob·p − smooth·w)·dz/dx` in `out`, but for the hole, with
    /// p = e^(z − reference)/total; returns the sum of e^(z − reference), or 0 where `from` is
    /// the row's own sum.
    ///
    /// # Safety
    /// `len` elements are readable at `x` and writable at `out`, which is `x` itself or does not
    /// overlap it; the weights (if not null) have `len` elements, and nobody else touches the
    /// rows.
    pub(crate) unsafe fn gradient<U: Lanes>(
        &self,
        out: *mut U,
        hole: Option<usize>,
        from: Normalizer<'_>,
        terms: &Terms,
    ) -> f64 {
        let segments = Segments::new(self.len, hole);
        let (level, transform, memory) = (self.level, self.transform, self.memory());
        let out = SyncPtr(out);
        let (reference, total, summed) = match from {
            Normalizer::Sum(sum) => (sum.max, sum.total(), true),
            Normalizer::Lse(lse) => (lse, 1.0, false),
        };
        let factor = (terms.prob / total) as f32;
        let terms = GradientTerms { reference, factor, smooth: terms.smooth, summed };
        let mut sums = Slots::new();
        let sums = sums.fill(&segments, self.spread, |_, columns| {
            let (at, len) = (columns.start, columns.len());
            // SAFETY: the columns lie inside both rows and in no other segment.
            unsafe {
                let rows = (memory.x(at).cast_const(), out.get().add(at));
                softmax::gradient(level, transform, rows, memory.weights(at), len, terms)
            }
        });
        sums.iter().map(|&s| f64::from(s)).sum()
    }
}

/// The passes that keep exponentials where the logits were: f32 in place, linear transform.
impl Row<f32> {
    /// As [`Row::sum`]; the logits become exponentials, each segment's relative to its own
    /// maximum.
    ///
    /// # Safety
    /// As for [`Row::sum`], and the row is writable and nobody else touches it.
    pub(crate) unsafe fn sum_and_keep(&self, logit: Linear, hole: Hole, kept: &mut Kept) -> RowSum {
        kept.segments = Segments::new(self.len, Some(hole.column));
        let (level, transform, memory) = (self.level, Transform::Linear(logit), self.memory());
        let smoothing = self.smoothing;
        let parts = kept.parts.fill(&kept.segments, self.spread, |_, columns| {
            // SAFETY: the columns lie inside the row and in no other segment.
            unsafe {
                let (x, len) = (memory.x(columns.start), columns.len());
                let w = memory.weights(columns.start);
                // The deviation first: keeping exponentials overwrites the logits.
                let deviation = match smoothing {
                    true => softmax::deviation(level, transform, x.cast_const(), w, len),
                    false => Deviation::NONE,
                };
                let exponentials = softmax::accumulate_and_keep(level, logit, x, len);
                Part { exponentials, deviation }
            }
        });
        RowSum::merge(parts, Some(hole))
    }

    /// Kept exponentials become `prob·p − smooth·w`, but for the hole.
    ///
    /// # Safety
    /// As for [`Row::sum_and_keep`], which made `sum` and `kept` of this very row; the weights
    /// (if not null) have `len` elements.
    pub(crate) unsafe fn rescale(&self, sum: &RowSum, kept: &Kept, terms: &Terms) {
        let (level, memory) = (self.level, self.memory());
        let scale = terms.prob / sum.total();
        // SAFETY: `sum_and_keep` has filled the parts.
        let parts = unsafe { kept.parts.filled(&kept.segments) };
        kept.segments.each_reversed(self.spread, |i, columns| {
            let factor = match parts[i].exponentials.max {
                f32::NEG_INFINITY => 0.0,
                max => (scale * exp_of_difference(max, sum.max)) as f32,
            };
            // SAFETY: the columns lie inside the row, and each belongs to one call.
            unsafe {
                level.run(Rescale {
                    x: memory.x(columns.start),
                    len: columns.len(),
                    factor,
                    smooth: terms.smooth,
                    weights: memory.weights(columns.start),
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_every_column_but_the_hole_once() {
        for len in [0usize, 1, 2, 63, 2047, 2048, 2049, 4096, 5000, 3_000_000] {
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
