//! One row: cut into segments, summed, and turned into a gradient, on one thread or on many.
//!
//! A row is cut the same way whoever works on it, each segment is summed by itself, and the
//! segments' sums are merged in order: so the bits do not depend on the number of threads.

use crate::cpu::row::cuts::{Segments, Slots};
use crate::cpu::row::entropy::{EntropyTerms, entropy_gradient};
use crate::cpu::row::gradient::{GradientTerms, Rescale};
use crate::cpu::row::hole::Hole;
use crate::cpu::row::logit::{Linear, Transform};
use crate::cpu::row::partial::Partial;
use crate::cpu::row::ranks::Standing;
use crate::cpu::row::softmax::Deviation;
use crate::cpu::row::state::{Part, RowSum};
use crate::cpu::row::{gradient, narrow, ranks, softmax};
use crate::cpu::simd::{Lanes, Level, Unit, power_of_two};
use crate::cpu::threads::{Spread, SyncPtr};
use std::ops::Range;

/// What a row is asked for besides its sum.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Also {
    /// Σ e^(z − max)·(z − max).
    pub(crate) moment: bool,
    /// How the target stands among the classes.
    pub(crate) standing: bool,
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
    pub(crate) also: Also,
}

impl Row<f32> {
    /// Logits as they are, without options.
    pub(crate) fn plain(level: Level, spread: Spread, z: &[f32]) -> Row<f32> {
        Row {
            level,
            spread,
            transform: Transform::IDENTITY,
            x: z.as_ptr(),
            len: z.len(),
            smoothing: false,
            weights: std::ptr::null(),
            also: Also::default(),
        }
    }
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
        // SAFETY: `column` lies in the row, so the pointer stays inside of it: the caller's
        // promise.
        unsafe { self.x.get().add(column) }
    }

    /// # Safety
    /// `column` lies in the row.
    unsafe fn weights(self, column: usize) -> *const f32 {
        match self.weights.get().is_null() {
            true => std::ptr::null(),
            // SAFETY: `column` lies in the row, and there is a weight a column: the caller's
            // promise.
            false => unsafe { self.weights.get().add(column) },
        }
    }
}

/// How stretches of rows are summed, wherever they lie.
#[derive(Clone, Copy)]
pub(crate) struct Summing {
    pub(crate) level: Level,
    pub(crate) transform: Transform,
    pub(crate) smoothing: bool,
    pub(crate) also: Also,
}

impl Summing {
    /// What some columns of a row sum to; `x` and the weights (if not null) are the first one's.
    ///
    /// # Safety
    /// Both have as many elements as there are columns, all on one side of the hole.
    pub(crate) unsafe fn part<T: Lanes>(
        self,
        (x, weights): (*const T, *const f32),
        columns: Range<usize>,
        hole: Option<Hole>,
    ) -> Part {
        let Summing { level, transform, smoothing, also } = self;
        let len = columns.len();
        // SAFETY: the caller's promise.
        unsafe {
            Part {
                exponentials: match also.moment {
                    true => softmax::accumulate_with_moment(level, transform, x, len),
                    false => softmax::accumulate(level, transform, x, len),
                },
                deviation: match smoothing {
                    true => softmax::deviation(level, transform, x, weights, len),
                    false => Deviation::NONE,
                },
                standing: match hole.filter(|_| also.standing) {
                    Some(hole) => ranks::standing(level, x, columns, &hole),
                    None => Standing::NONE,
                },
            }
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
        let mut parts = Slots::new();
        // SAFETY: the caller vouches for the row, and the segments cover its columns.
        let parts = unsafe { self.parts(&segments, hole, &mut parts) };
        RowSum::merge(self.transform, parts.iter().copied(), hole)
    }

    /// What each segment sums to.
    ///
    /// # Safety
    /// As for [`Row::sum`]; the segments are those of `len` columns with this hole.
    pub(crate) unsafe fn parts<'p>(
        &self,
        segments: &Segments,
        hole: Option<Hole>,
        parts: &'p mut Slots<Part>,
    ) -> &'p [Part] {
        let (summing, memory) = (self.summing(), self.memory());
        parts.fill(segments, self.spread, |_, columns| {
            // SAFETY: the columns lie inside the row, which is only read.
            unsafe {
                let stretch = (memory.x(columns.start).cast_const(), memory.weights(columns.start));
                summing.part(stretch, columns, hole)
            }
        })
    }

    fn summing(&self) -> Summing {
        let Row { level, transform, smoothing, also, .. } = *self;
        Summing { level, transform, smoothing, also }
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
        // SAFETY: the caller vouches for the rows, and the segments cover their columns.
        unsafe { self.gradient_in(&Segments::new(self.len, hole), out, from, terms) }
    }

    /// As [`Row::gradient`], in these segments.
    ///
    /// # Safety
    /// As for [`Row::gradient`]; the segments are those of `len` columns.
    pub(crate) unsafe fn gradient_in<U: Lanes>(
        &self,
        segments: &Segments,
        out: *mut U,
        from: Normalizer<'_>,
        terms: &Terms,
    ) -> f64 {
        let (level, transform, memory) = (self.level, self.transform, self.memory());
        let out = SyncPtr(out);
        let (reference, total, summed) = match from {
            Normalizer::Sum(sum) => (sum.reference(), sum.total(), true),
            Normalizer::Lse(lse) => (transform.reference(lse), 1.0, false),
        };
        let factor = (terms.prob / total) as f32;
        let terms = GradientTerms { reference, factor, smooth: terms.smooth, summed };
        let mut sums = Slots::new();
        let sums = sums.fill(segments, self.spread, |_, columns| {
            let (at, len) = (columns.start, columns.len());
            // SAFETY: the columns lie inside both rows and in no other segment.
            unsafe {
                let rows = (memory.x(at).cast_const(), out.get().add(at));
                gradient::gradient(level, transform, rows, memory.weights(at), len, terms)
            }
        });
        sums.iter().map(|&s| f64::from(s)).sum()
    }
}

impl<T: Lanes> Row<T> {
    /// Logits become the gradient of a loss with an entropy in `out`, but for the hole.
    ///
    /// # Safety
    /// As for [`Row::gradient`].
    pub(crate) unsafe fn entropy_gradient<U: Lanes>(
        &self,
        out: *mut U,
        hole: usize,
        terms: EntropyTerms,
    ) {
        let (level, transform, memory) = (self.level, self.transform, self.memory());
        let out = SyncPtr(out);
        // From the end, which a cache still holds.
        Segments::new(self.len, Some(hole)).each_reversed(self.spread, |_, columns| {
            let (at, len) = (columns.start, columns.len());
            // SAFETY: the columns lie inside both rows and in no other segment.
            unsafe {
                let rows = (memory.x(at).cast_const(), out.get().add(at));
                entropy_gradient(level, transform, rows, memory.weights(at), len, terms);
            }
        });
    }
}

/// The passes that keep exponentials as f32 apart from a row of 16 bits: linear transform, no smoothing
/// weights.
impl<T: Lanes> Row<T> {
    /// Whether the row is one for these passes.
    pub(crate) fn narrow(&self) -> bool {
        narrow::is::<T>() && self.len <= narrow::KEPT && self.weights.is_null()
    }

    /// As [`Row::sum`]; each segment's exponentials go to `room`, but those of segments that f32 has not
    /// the digits for.
    ///
    /// # Safety
    /// As for [`Row::sum`], and `len` f32 are writable at `room`.
    pub(crate) unsafe fn sum_and_keep_apart(
        &self,
        logit: Linear,
        hole: Hole,
        room: *mut f32,
        kept: &mut Kept,
    ) -> RowSum {
        kept.segments = Segments::new(self.len, Some(hole.column));
        let (level, transform, memory) = (self.level, Transform::Linear(logit), self.memory());
        let (smoothing, also, room) = (self.smoothing, self.also, SyncPtr(room));
        let parts = kept.parts.fill(&kept.segments, self.spread, |_, columns| {
            // SAFETY: the columns lie inside the row and in no other segment.
            unsafe {
                let (x, len) = (memory.x(columns.start).cast_const(), columns.len());
                let room = room.get().add(columns.start);
                let exponentials = narrow::accumulate(level, logit, x, Some(room), len)
                    .unwrap_or_else(|| softmax::accumulate(level, transform, x, len));
                let deviation = match smoothing {
                    true => softmax::deviation(level, transform, x, std::ptr::null(), len),
                    false => Deviation::NONE,
                };
                let standing = match also.standing {
                    true => ranks::standing(level, x, columns, &hole),
                    false => Standing::NONE,
                };
                Part { exponentials, deviation, standing }
            }
        });
        RowSum::merge(transform, parts.iter().copied(), Some(hole))
    }

    /// Kept exponentials become `prob·p − smooth` in `out`, but for the hole.
    ///
    /// # Safety
    /// As for [`Row::gradient`]; [`Row::sum_and_keep_apart`] made `sum` and `kept` of this very row, and
    /// has written to `room`.
    pub(crate) unsafe fn rescale_apart<U: Lanes>(
        &self,
        out: *mut U,
        room: *const f32,
        logit: Linear,
        (sum, kept): (&RowSum, &Kept),
        terms: &Terms,
    ) {
        // SAFETY: `sum_and_keep_apart` has filled the parts.
        let parts = unsafe { kept.parts.filled(&kept.segments) };
        let unit = Unit::new(logit.scale(), sum.reference());
        let whole = parts.iter().all(|part| !part.exponentials.exponent.is_nan());
        let Some(unit) = unit.filter(|_| whole) else {
            let from = Normalizer::Sum(sum);
            // SAFETY: the caller's promise, and these are the row's segments.
            unsafe { self.gradient_in(&kept.segments, out, from, terms) };
            return;
        };
        let own = narrow::own(self.level, unit, sum.reference());
        let scale = terms.prob / sum.total() / own;
        let (level, smooth) = (self.level, terms.smooth);
        let (out, room) = (SyncPtr(out), SyncPtr(room.cast_mut()));
        kept.segments.each_reversed(self.spread, |i, columns| {
            let Partial { max, exponent, .. } = parts[i].exponentials;
            let factor = match max {
                f32::NEG_INFINITY => 0.0,
                _ => (scale * power_of_two(exponent - unit.exponent())) as f32,
            };
            // SAFETY: the columns lie inside both rows, and each belongs to one call.
            unsafe {
                let (kept, out) = (room.get().add(columns.start), out.get().add(columns.start));
                let (kept, len) = (kept.cast_const(), columns.len());
                level.run(narrow::Rescale { kept, out, len, factor, smooth });
            }
        });
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
        let (smoothing, also) = (self.smoothing, self.also);
        let parts = kept.parts.fill(&kept.segments, self.spread, |_, columns| {
            // SAFETY: the columns lie inside the row and in no other segment.
            unsafe {
                let (x, len) = (memory.x(columns.start), columns.len());
                let w = memory.weights(columns.start);
                // The exponentials last: keeping them overwrites the logits.
                let standing = match also.standing {
                    true => ranks::standing(level, x.cast_const(), columns, &hole),
                    false => Standing::NONE,
                };
                let deviation = match smoothing {
                    true => softmax::deviation(level, transform, x.cast_const(), w, len),
                    false => Deviation::NONE,
                };
                let exponentials = softmax::accumulate_and_keep(level, logit, x, len);
                Part { exponentials, deviation, standing }
            }
        });
        RowSum::merge(transform, parts.iter().copied(), Some(hole))
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
                max => (scale * sum.share(max)) as f32,
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
