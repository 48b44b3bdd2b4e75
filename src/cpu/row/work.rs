//! One row: cut into segments, summed, and turned into a gradient, on one thread or on many.
//!
//! A row is cut the same way whoever works on it, each segment is summed by itself, and the
//! segments' sums are merged in order: so the bits do not depend on the number of threads.
//!
//! The target's column is left out of the segments. Its exponential is added apart, so that
//! p_t − 1 = −(sum of the others)/(whole sum) and ln of a sum barely above 1 lose no digits.

use crate::cpu::row::cuts::{Segments, Slots};
use crate::cpu::row::gradient::{GradientTerms, Rescale};
use crate::cpu::row::hole::Hole;
use crate::cpu::row::logit::{Linear, Transform};
use crate::cpu::row::ranks::Standing;
use crate::cpu::row::softmax::{Deviation, Partial};
use crate::cpu::row::{gradient, ranks, softmax};
use crate::cpu::simd::{Lanes, Level};
use crate::cpu::threads::{Spread, SyncPtr};

/// What one segment adds to its row.
#[derive(Debug, Clone, Copy)]
struct Part {
    exponentials: Partial,
    deviation: Deviation,
    standing: Standing,
}

/// What a row is asked for besides its sum.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Also {
    /// Σ e^(z − max)·(z − max).
    pub(crate) moment: bool,
    /// How the target stands among the classes.
    pub(crate) standing: bool,
}

/// The merged sums of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowSum {
    /// The largest logit as a reference.
    reference: f32,
    /// Maximum of z.
    pub(crate) max: f64,
    /// Σ e^(z − max) without the target.
    pub(crate) rest: f64,
    /// e^(z_t − max); 0 without a target.
    pub(crate) target: f64,
    /// ln Σ e^(z − max).
    pub(crate) log_sum: f64,
    /// Σ e^(z − max) without one copy of the largest, the target included, where the moment was
    /// asked for.
    others: f64,
    /// max − z_t.
    target_distance: f64,
    /// Σ_c w_c·(max − z_c), the target included, where smoothing is on; of weights over their unit.
    pub(crate) deviation: f64,
    /// Σ e^(z − max)·(max − z) without the target, where it was asked for.
    rest_moment: f64,
    /// The best class and what beats the target, where it was asked for.
    pub(crate) standing: Standing,
}

impl RowSum {
    /// ln Σ e^z.
    pub(crate) fn lse(&self) -> f64 {
        self.max + self.log_sum
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

    /// Σ p_c·(max − z_c), never negative.
    pub(crate) fn mean_distance(&self) -> f64 {
        (self.rest_moment + times(self.target, self.target_distance)) / self.total()
    }

    /// −Σ p_c·ln p_c, as ln Σ + Σ p_c·(max − z_c): without the common offset of the logits. Both
    /// are made of what is not the largest, and are as small as that.
    pub(crate) fn entropy(&self) -> f64 {
        self.others.ln_1p() + self.mean_distance()
    }

    /// −p_t·(z_t − lse + H), the slope of the entropy at the target's z. The target's own share of
    /// the mean distance is taken off before anything is added: nearly alone, p_t loses no digits.
    pub(crate) fn entropy_slope(&self) -> f64 {
        let total = self.total();
        let own = times(self.target / total, self.target_distance) * (self.rest / total);
        own - self.target / total * (self.rest_moment / total)
    }

    /// The largest logit, for loops that form distances to it.
    pub(crate) fn reference(&self) -> f32 {
        self.reference
    }

    fn merge(transform: Transform, parts: &[Part], hole: Option<Hole>) -> RowSum {
        let (at_hole, z) =
            hole.map_or((f32::NEG_INFINITY, f64::NEG_INFINITY), |h| (h.reference, h.z));
        // f32::max disregards a NaN target; the sum does not.
        let reference = parts.iter().fold(at_hole, |m, p| m.max(p.exponentials.max));
        let shift = if reference == f32::NEG_INFINITY { 0.0 } else { transform.z(reference) };
        // Under a cap a target's z has more digits than a reference: at the top it is the top.
        let at_top = hole.is_some_and(|h| h.reference == reference && h.z.is_finite());
        // One copy of the largest is no other.
        let mut largest = !at_top;
        let (mut rest, mut others, mut deviation, mut moment) = (0.0, 0.0, 0.0, 0.0);
        let mut standing = Standing::NONE;
        for Part { exponentials: e, deviation: d, standing: s } in parts {
            let (sum, own_moment) = (f64::from(e.sum), f64::from(e.moment));
            match e.max {
                // 0, or NaN
                f32::NEG_INFINITY => {
                    rest += sum;
                    others += sum;
                }
                max if max == reference => {
                    rest += sum;
                    others += if largest { f64::from(e.others) } else { sum };
                    largest = false;
                    moment += own_moment;
                }
                max => {
                    let distance = transform.z(max) - shift;
                    let scale = distance.exp();
                    rest += sum * scale;
                    others += sum * scale;
                    moment += scale * (own_moment + sum * distance);
                }
            }
            standing.merge(s);
            deviation += d.relative_to(reference, transform);
        }
        if let Some(Hole { weight, reference: own, .. }) = hole.filter(|h| h.weight != 0.0) {
            deviation += weight * softmax::span(reference, own, transform);
        }
        if let Some(hole) = hole {
            standing.merge(&Standing { beats: 0, best: hole.logit, column: hole.column });
        }
        let target = match hole {
            Some(_) if at_top || z == shift => 1.0,
            Some(_) => (z - shift).exp(),
            None => 0.0,
        };
        others += if at_top { 0.0 } else { target };
        let max = if reference == f32::NEG_INFINITY { f64::NEG_INFINITY } else { shift };
        RowSum {
            reference,
            max,
            rest,
            target,
            log_sum: (rest + target).ln(),
            others,
            target_distance: if at_top { 0.0 } else { overflow_as_f32(max - z) },
            deviation,
            rest_moment: -moment,
            standing,
        }
    }
}

/// A distance between logits, infinite where f32 arithmetic, on any device, would have it so.
fn overflow_as_f32(distance: f64) -> f64 {
    if distance > f64::from(f32::MAX) { f64::INFINITY } else { distance }
}

/// A probability times a distance; a probability of 0 makes 0 of an infinite one.
fn times(probability: f64, distance: f64) -> f64 {
    if probability == 0.0 { 0.0 } else { probability * distance }
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
        let (smoothing, also) = (self.smoothing, self.also);
        let mut parts = Slots::new();
        let parts = parts.fill(&segments, self.spread, |_, columns| {
            // SAFETY: the columns lie inside the row, which is only read.
            unsafe {
                let x = memory.x(columns.start).cast_const();
                let len = columns.len();
                let w = memory.weights(columns.start);
                Part {
                    exponentials: match also.moment {
                        true => softmax::accumulate_with_moment(level, transform, x, len),
                        false => softmax::accumulate(level, transform, x, len),
                    },
                    deviation: match smoothing {
                        true => softmax::deviation(level, transform, x, w, len),
                        false => Deviation::NONE,
                    },
                    standing: match hole.filter(|_| also.standing) {
                        Some(hole) => ranks::standing(level, x, columns, &hole),
                        None => Standing::NONE,
                    },
                }
            }
        });
        RowSum::merge(transform, parts, hole)
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
            Normalizer::Sum(sum) => (sum.reference(), sum.total(), true),
            Normalizer::Lse(lse) => (transform.reference(lse), 1.0, false),
        };
        let factor = (terms.prob / total) as f32;
        let terms = GradientTerms { reference, factor, smooth: terms.smooth, summed };
        let mut sums = Slots::new();
        let sums = sums.fill(&segments, self.spread, |_, columns| {
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
        RowSum::merge(transform, parts, Some(hole))
    }

    /// Kept exponentials become `prob·p − smooth·w`, but for the hole.
    ///
    /// # Safety
    /// As for [`Row::sum_and_keep`], which made `sum` and `kept` of this very row; the weights
    /// (if not null) have `len` elements.
    pub(crate) unsafe fn rescale(&self, sum: &RowSum, kept: &Kept, terms: &Terms) {
        let (level, transform, memory) = (self.level, self.transform, self.memory());
        let scale = terms.prob / sum.total();
        // SAFETY: `sum_and_keep` has filled the parts.
        let parts = unsafe { kept.parts.filled(&kept.segments) };
        kept.segments.each_reversed(self.spread, |i, columns| {
            let factor = match parts[i].exponentials.max {
                f32::NEG_INFINITY => 0.0,
                max if max == sum.reference => scale as f32,
                max => (scale * (transform.z(max) - sum.max).exp()) as f32,
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
