//! One row of logits beside one of probabilities, or of a teacher's logits: summed in segments as
//! in `row.rs`, and turned into gradients.
//!
//! A target is as a rule near the prediction, where M·p − u is a difference of near numbers. Where
//! one class has nearly all of p, its difference is formed as (M − u) − M·(1 − p), each bracket
//! being a sum over the other classes.

use crate::cpu::row::cuts::{Segments, Slots};
use crate::cpu::row::logit::{Linear, Plain, Transform, each_logit};
use crate::cpu::row::soft_target::{
    Exponential, FindTop, Mass, Probability, Quantity, Share, SoftGradient, SoftPartial,
    SoftRescale, SoftTerms, accumulate,
};
use crate::cpu::row::softmax;
use crate::cpu::row::softmax::{DISTANCE_UNIT, Deviation, MaximumOf, Sum};
use crate::cpu::row::state::{Top, overflow_as_f32};
use crate::cpu::simd::{Lanes, Level};
use crate::cpu::threads::{Spread, SyncPtr, SyncRef};
use std::ops::Range;

/// Targets are logits y, q = softmax(scale·y).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Teacher {
    pub(crate) scale: f32,
}

/// A row as a pass sees it.
pub(crate) struct SoftRow<T> {
    pub(crate) level: Level,
    pub(crate) spread: Spread,
    pub(crate) transform: Transform,
    /// Written only where the exponentials are kept.
    pub(crate) x: *mut T,
    pub(crate) target: *const T,
    pub(crate) len: usize,
    /// Null for 1 each.
    pub(crate) weights: *const f32,
    pub(crate) weight_sum: f64,
    pub(crate) teacher: Option<Teacher>,
    /// 1 − ε and ε/V.
    pub(crate) hard: f64,
    pub(crate) soft: f64,
}

/// What one segment adds to its row.
#[derive(Debug, Clone, Copy)]
struct Part {
    soft: SoftPartial,
    /// The teacher's largest logit.
    top: f32,
    /// The teacher's smoothing.
    smooth: Deviation,
}

/// A row's segments and what each summed to; too large to be handed about.
pub(crate) struct SoftKept {
    segments: Segments,
    parts: Slots<Part>,
    exponentials: bool,
}

impl SoftKept {
    pub(crate) fn new() -> SoftKept {
        SoftKept { segments: Segments::new(0, None), parts: Slots::new(), exponentials: false }
    }
}

/// The merged sums of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SoftSum {
    top: Top,
    /// Σ e^(z − max).
    total: f64,
    log_sum: f64,
    /// Σ u.
    mass: f64,
    /// Σ u·(max − z).
    deviation: f64,
    /// The teacher's largest logit, and its Σ e^(y − that).
    teacher_top: f32,
    norm: f64,
}

impl SoftSum {
    /// ln Σ e^z.
    pub(crate) fn lse(&self) -> f64 {
        self.top.max() + self.log_sum
    }

    /// Σ u·(lse − z).
    pub(crate) fn loss(&self) -> f64 {
        let spread = if self.mass == 0.0 { 0.0 } else { self.mass * self.log_sum };
        spread + self.deviation
    }

    /// Whether the row has no probabilities, or its teacher has none.
    pub(crate) fn undefined(&self) -> bool {
        !self.top.max().is_finite() || self.log_sum.is_nan() || self.norm.is_nan()
    }
}

/// Σ e^(z − max) up to which the largest class is alone.
pub(crate) const ALONE: f64 = 1.0 + 1.0 / 64.0;

/// A probability so small that f32 has it as 0: it silences an infinite term.
const VANISHED: f64 = f32::MIN_POSITIVE as f64;

impl<T: Lanes> SoftRow<T> {
    fn x(&self) -> SyncPtr<T> {
        SyncPtr(self.x)
    }

    fn target(&self) -> SyncPtr<T> {
        SyncPtr(self.target.cast_mut())
    }

    /// # Safety
    /// `column` lies in the row.
    unsafe fn weights(&self, column: usize) -> *const f32 {
        // SAFETY: `column` lies in the row, and the weights, where there are some, are as long: the
        // caller's promise.
        if self.weights.is_null() { self.weights } else { unsafe { self.weights.add(column) } }
    }

    /// Sums the row; with `keep` the logits become exponentials, each segment's relative to its
    /// own maximum.
    ///
    /// # Safety
    /// `len` elements are readable at `x`, the target and the weights; with `keep` T is f32, `x`
    /// is writable and nobody else touches it.
    pub(crate) unsafe fn sum(&self, keep: bool, kept: &mut SoftKept) -> SoftSum {
        kept.segments = Segments::new(self.len, None);
        kept.exponentials = keep && matches!(self.transform, Transform::Linear(_));
        let keep = kept.exponentials;
        // SAFETY: each segment is worked on by one thread, and segments are disjoint.
        let this = unsafe { SyncRef::new(self) };
        let parts = kept.parts.fill(&kept.segments, self.spread, |_, columns| {
            // SAFETY: the columns lie inside the row and in no other segment.
            unsafe { this.get().part(columns, keep) }
        });
        self.merge(parts)
    }

    /// # Safety
    /// As for [`SoftRow::sum`]; nobody else works on these columns.
    unsafe fn part(&self, columns: Range<usize>, keep: bool) -> Part {
        let (level, transform, len) = (self.level, self.transform, columns.len());
        // SAFETY: the columns lie in the row, of which `sum`'s caller has promised x, target and
        // weights; nobody else works on them.
        unsafe {
            let (x, target) = (self.x.add(columns.start), self.target.add(columns.start));
            let weights = self.weights(columns.start);
            let Some(Teacher { scale }) = self.teacher else {
                let (hard, soft) = (self.hard as f32, self.soft as f32);
                let share = Share { quantity: Probability, hard, soft, weights };
                let soft = accumulate(level, transform, (x, target), len, share, keep);
                return Part { soft, top: 0.0, smooth: Deviation::NONE };
            };
            let top = level.run(MaximumOf { x: target, len });
            // The deviation first: keeping exponentials overwrites the logits.
            let smooth = match self.soft > 0.0 {
                true => softmax::deviation(level, transform, x.cast_const(), weights, len),
                false => Deviation::NONE,
            };
            let quantity = Exponential { scale, reference: softmax::reference(top) };
            let share = Share { quantity, hard: 1.0, soft: 0.0, weights };
            let mut soft = accumulate(level, transform, (x, target), len, share, keep);
            if top == f32::INFINITY {
                soft.norm = f32::NAN;
            }
            Part { soft, top, smooth }
        }
    }

    fn merge(&self, parts: &[Part]) -> SoftSum {
        let transform = self.transform;
        let top = Top::of(transform, parts.iter().map(|p| p.soft.max));
        let teacher_top = parts.iter().map(|p| p.top).fold(f32::NEG_INFINITY, f32::max);
        let (mut total, mut mass, mut deviation, mut norm) = (0.0, 0.0, 0.0, 0.0);
        let mut smooth = 0.0;
        for Part { soft: e, top: t, smooth: d } in parts {
            total += f64::from(e.sum) * top.share(e.max);
            let distance = overflow_as_f32(top.shift - transform.z(softmax::reference(e.max)));
            let mut own = f64::from(e.deviation) / f64::from(DISTANCE_UNIT);
            if e.mass != 0.0 {
                own += f64::from(e.mass) * distance;
            }
            let share = self.teacher_share(*t, teacher_top);
            norm += f64::from(e.norm) * share;
            if share >= VANISHED {
                mass += f64::from(e.mass) * share;
                deviation += own * share;
            }
            smooth += d.relative_to(top.reference, transform);
        }
        if self.teacher.is_some() {
            // Only now it is known what q are to be divided by.
            let hard = self.hard / norm;
            mass = hard * mass + self.soft * self.weight_sum;
            deviation = if hard == 0.0 { 0.0 } else { hard * deviation };
            if self.soft > 0.0 {
                deviation += self.soft * smooth;
            }
            if norm == 0.0 {
                norm = f64::NAN; // a teacher of −∞ throughout
            }
        }
        let log_sum = total.ln();
        SoftSum { top, total, log_sum, mass, deviation, teacher_top, norm }
    }

    /// e^(s·(y − top)) of a segment's largest teacher logit; 1 without a teacher.
    fn teacher_share(&self, segment: f32, top: f32) -> f64 {
        match self.teacher {
            // A segment of −∞ has summed zeros, or NaN.
            Some(_) if segment == top || segment == f32::NEG_INFINITY => 1.0,
            Some(Teacher { scale }) => {
                (f64::from(scale) * (f64::from(segment) - f64::from(top))).exp()
            }
            None => 1.0,
        }
    }

    /// Gradients of the loss times g, and of `z`·lse, into `out`, and with respect to
    /// probabilities into the second pointer where that is not null.
    ///
    /// # Safety
    /// `len` elements are writable at the outputs, which are `x` and the target themselves or
    /// overlap nothing; `sum` and `kept` are of [`SoftRow::sum`] of this very row.
    pub(crate) unsafe fn gradient(
        &self,
        (out, out_target): (*mut T, *mut T),
        sum: &SoftSum,
        kept: &SoftKept,
        (g, z): (f64, f64),
    ) {
        // SAFETY: the outputs have `len` elements and are x and the target, or apart; `sum` and
        // `kept` are of this row: the caller's promise, which each call below needs.
        unsafe {
            let at_top = self.at_top(sum, kept, (g, z));
            let slope = f64::from(self.transform.slope());
            let weights = self.weights;
            let (hard, soft) = ((g * self.hard * slope), (g * self.soft * slope) as f32);
            match self.teacher {
                None => {
                    let share = Share { quantity: Probability, hard: hard as f32, soft, weights };
                    self.each_gradient((out, out_target), sum, kept, (g, z), share);
                }
                Some(Teacher { scale }) => {
                    let quantity =
                        Exponential { scale, reference: softmax::reference(sum.teacher_top) };
                    let hard = (hard / sum.norm) as f32;
                    let share = Share { quantity, hard, soft, weights };
                    self.each_gradient((out, out_target), sum, kept, (g, z), share);
                }
            }
            if let Some((column, value)) = at_top {
                out.add(column).write(T::from_f32(value));
            }
        }
    }

    /// # Safety
    /// As for [`SoftRow::gradient`].
    unsafe fn each_gradient<Q: Quantity + Send + Sync>(
        &self,
        (out, out_target): (*mut T, *mut T),
        sum: &SoftSum,
        kept: &SoftKept,
        (g, z): (f64, f64),
        share: Share<Q>,
    ) {
        // SAFETY: each segment is worked on by one thread, and segments are disjoint; `share` is read.
        let (this, share) = unsafe { (SyncRef::new(self), SyncRef::new(&share)) };
        let (out, out_target) = (SyncPtr(out), SyncPtr(out_target));
        let prob = (g * sum.mass + z) * f64::from(self.transform.slope()) / sum.total;
        // SAFETY: `sum` has filled the parts.
        let parts = unsafe { kept.parts.filled(&kept.segments) };
        kept.segments.each_reversed(self.spread, |i, columns| {
            let row = this.get();
            let (at, len) = (columns.start, columns.len());
            // SAFETY: the columns lie inside the rows, and each belongs to one call.
            unsafe {
                let share = Share { weights: row.weights(at), ..*share.get() };
                let target = row.target().get().add(at).cast_const();
                if kept.exponentials {
                    let max = parts[i].soft.max;
                    let factor = match max {
                        f32::NEG_INFINITY => 0.0,
                        max => prob * sum.top.share(max),
                    };
                    let (x, target) = (row.x().get().add(at).cast(), target.cast());
                    let factor = factor as f32;
                    return row.level.run(SoftRescale { x, target, len, factor, share });
                }
                let terms = SoftTerms {
                    reference: sum.top.reference,
                    factor: prob as f32,
                    share,
                    target: (g * row.hard) as f32,
                    log_sum: sum.log_sum as f32,
                };
                let x = row.x().get().add(at).cast_const();
                let out = out.get().add(at);
                let rows = (x, target, out);
                match out_target.get().is_null() {
                    true => row.run_gradient::<Q, false>(rows, std::ptr::null_mut(), len, terms),
                    false => {
                        row.run_gradient::<Q, true>(rows, out_target.get().add(at), len, terms);
                    }
                }
            }
        });
    }

    /// # Safety
    /// As for [`SoftGradient`].
    unsafe fn run_gradient<Q: Quantity, const TARGET: bool>(
        &self,
        (x, target, out): (*const T, *const T, *mut T),
        out_target: *mut T,
        len: usize,
        terms: SoftTerms<Q>,
    ) {
        each_logit!(self.transform, logit => self.level.run(SoftGradient::<T, _, Q, TARGET> {
            x, target, out, out_target, len, logit, terms,
        }));
    }

    /// The column of a class that has nearly all of p, and its gradient; `None` where no class has.
    ///
    /// # Safety
    /// As for [`SoftRow::gradient`], before anything is overwritten.
    unsafe fn at_top(
        &self,
        sum: &SoftSum,
        kept: &SoftKept,
        (g, z): (f64, f64),
    ) -> Option<(usize, f32)> {
        if sum.total >= ALONE {
            return None;
        }
        let (level, transform) = (self.level, self.transform);
        // SAFETY: the caller's contract; the columns lie in the row.
        unsafe {
            let parts = kept.parts.filled(&kept.segments);
            let own = parts.iter().position(|p| p.soft.max == sum.top.reference)?;
            let columns = kept.segments.range(own);
            let (x, len) = (self.x.add(columns.start), columns.len());
            let column = columns.start
                + if kept.exponentials {
                    let x = x.cast_const().cast::<f32>();
                    level.run(FindTop { x, len, logit: Plain, max: 1.0 })
                } else {
                    let (x, max) = (x.cast_const(), sum.top.reference);
                    each_logit!(transform, logit => level.run(FindTop { x, len, logit, max }))
                };
            let (mut rest, mut others) = (0.0, 0.0);
            for part in parts[..own].iter().chain(&parts[own + 1..]) {
                rest += f64::from(part.soft.sum) * sum.top.share(part.soft.max);
                let share = self.teacher_share(part.top, sum.teacher_top);
                if share >= VANISHED {
                    others += f64::from(part.soft.mass) * share;
                }
            }
            for columns in [columns.start..column, column + 1..columns.end] {
                rest += self.exponentials(columns.clone(), sum, kept);
                others += self.mass(columns, sum);
            }
            let mut own_share = 0.0;
            if self.teacher.is_some() {
                others *= self.hard / sum.norm;
                let weight = if self.weights.is_null() { 1.0 } else { *self.weights.add(column) };
                own_share = self.soft * (self.weight_sum - f64::from(weight));
            }
            let total = 1.0 + rest;
            let value = g * ((others + own_share) - sum.mass * (rest / total)) + z / total;
            let slope = match transform {
                Transform::Linear(_) => f64::from(transform.slope()),
                // Not kept, so that the logit is still there.
                Transform::Capped(_) => transform.at(self.x.add(column).read().to_f32()).1,
            };
            Some((column, (value * slope) as f32))
        }
    }

    /// Σ e^(z − max) of some columns of the segment that holds the maximum.
    ///
    /// # Safety
    /// As for [`SoftRow::at_top`].
    unsafe fn exponentials(&self, columns: Range<usize>, sum: &SoftSum, kept: &SoftKept) -> f64 {
        // SAFETY: the columns lie in the row, of which nothing is overwritten yet: the caller's
        // promise.
        unsafe {
            let (x, len) = (self.x.add(columns.start).cast_const(), columns.len());
            if kept.exponentials {
                return self.level.run(Sum { x: x.cast::<f32>(), len }).into();
            }
            let part = softmax::accumulate(self.level, self.transform, x, len);
            f64::from(part.sum) * sum.top.share(part.max)
        }
    }

    /// Σ u of some columns, a teacher's not yet divided by its sum.
    ///
    /// # Safety
    /// As for [`SoftRow::at_top`].
    unsafe fn mass(&self, columns: Range<usize>, sum: &SoftSum) -> f64 {
        // SAFETY: the columns lie in the row, of which nothing is overwritten yet: the caller's
        // promise.
        unsafe {
            let (target, len) = (self.target.add(columns.start), columns.len());
            let weights = self.weights(columns.start);
            f64::from(match self.teacher {
                None => {
                    let (hard, soft) = (self.hard as f32, self.soft as f32);
                    let share = Share { quantity: Probability, hard, soft, weights };
                    self.level.run(Mass { target, len, share })
                }
                Some(Teacher { scale }) => {
                    let quantity = Exponential { scale, reference: sum.teacher_top };
                    let share = Share { quantity, hard: 1.0, soft: 0.0, weights };
                    self.level.run(Mass { target, len, share })
                }
            })
        }
    }
}
