//! Multi-class margin loss on the CPU: what a row's other scores lack of the margin is added up, and
//! then written as slopes.

use crate::base::error::Result;
use crate::base::lines::Lines;
use crate::base::reduction::Reduction;
use crate::base::tensor::TensorRef;
use crate::cpu::batch::lines::{Line, LineOp, Sink, Source, each_line, host_like};
use crate::cpu::batch::numbers::{Scaling, Sums, Upstream, read};
use crate::cpu::batch::targets::{Targets, Weights};
use crate::cpu::processor::{Cpu, each_float, host_f32};
use crate::cpu::row::cuts::{Segments, Slots};
use crate::cpu::simd::{Kernel, Lanes, Level, Pieces, Simd, load_lanes, store_lanes};
use crate::cpu::threads::SyncPtr;
use crate::spec::elementwise::Input;
use crate::spec::multi_margin::{Call, CheckedMargin, unit};

/// What the others of a row are compared with.
#[derive(Clone, Copy)]
struct Hinge {
    /// margin − x_t.
    short_of: f32,
    /// What it lost in rounding, which decides where the rest cancels.
    lost: f32,
    square: bool,
}

impl Hinge {
    fn new(margin: f32, x_t: f32, square: bool) -> Hinge {
        let short_of = margin - x_t;
        let minus_t = short_of - margin;
        let lost = (margin - (short_of - minus_t)) + (-x_t - minus_t);
        // Of an infinite difference nothing.
        Hinge { short_of, lost: if lost.is_nan() { 0.0 } else { lost }, square }
    }

    /// max(0, margin − x_t + x), 0 for NaN.
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        let z = s.add(s.add(x, s.splat(self.short_of)), s.splat(self.lost));
        // max returns its second operand for NaN.
        s.max(z, s.splat(0.0))
    }

    /// Its power's slope.
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, hinge: S::V) -> S::V {
        match self.square {
            true => s.add(hinge, hinge),
            false => s.select_lt(s.splat(0.0), hinge, s.splat(1.0), s.splat(0.0)),
        }
    }
}

/// Σ of the powers of a stretch, and of their slopes.
struct Stretch<X> {
    x: *const X,
    len: usize,
    hinge: Hinge,
}

impl<X: Lanes> Kernel for Stretch<X> {
    type Out = [f32; 2];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> [f32; 2] {
        let mut totals = [s.splat(0.0); 2];
        for piece in Pieces::of::<S>(self.len, 1) {
            let (mut loss, mut slopes) = (s.splat(0.0), s.splat(0.0));
            for i in piece.clone().step_by(S::LANES) {
                let n = S::LANES.min(piece.end - i);
                // SAFETY: whoever makes a `Stretch` vouches for `len` elements.
                let x = unsafe { load_lanes(s, self.x.add(i), n, f32::NEG_INFINITY) };
                let hinge = self.hinge.of(s, x);
                loss = s.add(loss, if self.hinge.square { s.mul(hinge, hinge) } else { hinge });
                slopes = s.add(slopes, self.hinge.slope(s, hinge));
            }
            totals = [s.add(totals[0], loss), s.add(totals[1], slopes)];
        }
        [s.reduce_add(totals[0]), s.reduce_add(totals[1])]
    }
}

/// The slopes of a stretch, times a unit and a factor.
struct Slopes<X, Y> {
    x: *const X,
    y: *mut Y,
    len: usize,
    hinge: Hinge,
    unit: f32,
    factor: f32,
}

impl<X: Lanes, Y: Lanes> Kernel for Slopes<X, Y> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (unit, factor, mut i) = (s.splat(self.unit), s.splat(self.factor), 0);
        while i < self.len {
            let n = S::LANES.min(self.len - i);
            // SAFETY: whoever makes `Slopes` vouches for `len` elements at both, which are the same or
            // apart.
            unsafe {
                let hinge = self.hinge.of(s, load_lanes(s, self.x.add(i), n, f32::NEG_INFINITY));
                let slope = self.hinge.slope(s, hinge);
                store_lanes(s, self.y.add(i), n, s.mul(factor, s.mul(unit, slope)));
            }
            i += n;
        }
    }
}

/// A batch, and where rows write their losses: nowhere, where nobody asks or they are reduced.
struct Rows<'a> {
    level: Level,
    targets: Targets<'a>,
    weights: Weights<'a>,
    scaling: Scaling<'a>,
    margin: f32,
    square: bool,
    losses: SyncPtr<f32>,
}

impl LineOp for Rows<'_> {
    type Sum = Sums;

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, sums: &mut Sums) {
        // No row is ignored.
        let Some(class) = self.targets.class(line.index) else { return };
        // SAFETY: the census found the class in range.
        let x_t = unsafe { line.x.add(class).read().to_f32() };
        let hinge = Hinge::new(self.margin, x_t, self.square);
        let weight = self.weights.get(class) / line.len as f64;
        let (x, y) = (SyncPtr(line.x.cast_mut()), SyncPtr(line.y));
        let segments = Segments::new(line.len, Some(class));
        let mut slots = Slots::new();
        let parts = slots.fill(&segments, line.spread, |_, columns| {
            // SAFETY: the columns lie inside the row, which is only read meanwhile.
            let x = unsafe { x.get().add(columns.start).cast_const() };
            self.level.run(Stretch { x, len: columns.len(), hinge })
        });
        let sum = |i: usize| parts.iter().map(|part| f64::from(part[i])).sum::<f64>();
        let loss = weight * sum(0);
        if !self.losses.get().is_null() {
            // SAFETY: losses have an element a row, and this row's is written by this call alone.
            unsafe { self.losses.get().add(line.index).write(loss as f32) };
        }
        sums.loss += loss;
        if line.y.is_null() {
            return;
        }
        let factor = self.scaling.upstream(line.index).0 * weight;
        let unit = unit(factor);
        let (unit, in_units) = (unit as f32, (factor / unit) as f32);
        // From the end, which a cache still holds.
        segments.each_reversed(line.spread, |_, columns| {
            // SAFETY: the columns lie inside both rows and in no other segment.
            let (x, y) = unsafe { (x.get().add(columns.start), y.get().add(columns.start)) };
            let (x, len) = (x.cast_const(), columns.len());
            self.level.run(Slopes { x, y, len, hinge, unit, factor: in_units });
        });
        let at_target = Y::from_f32((-factor * sum(1)) as f32);
        // SAFETY: the class is a column of the row.
        unsafe { line.y.add(class).write(at_target) };
    }

    fn merge(total: &mut Sums, part: &Sums) {
        total.add(part);
    }
}

impl Cpu {
    pub(crate) fn multi_margin(&self, checked: &CheckedMargin<'_>, call: Call<'_>) -> Result<()> {
        let Call { input, grad_output, loss, grad_input } = call;
        let (targets, weights) = read(checked.target, &checked.counting)?;
        weights.sum(checked.counting.classes)?;
        let (census, reduction) = (targets.census(self, &weights)?, checked.counting.reduction);
        let scaling = Scaling { reduction, census, upstream: Upstream::new(&grad_output)? };
        let mut loss = loss.map(|loss| host_f32(loss, "loss")).transpose()?;
        let losses = match (&mut loss, reduction) {
            (Some(loss), Reduction::None) => SyncPtr(loss.as_mut_ptr()),
            _ => SyncPtr(std::ptr::null_mut()),
        };
        let (level, CheckedMargin { margin, square, .. }) = (self.level, *checked);
        let op = Rows { level, targets, weights, scaling, margin, square, losses };
        let lines = |tensor: &TensorRef<'_>| {
            Lines::new(&tensor.shape(), tensor.row_stride(), |d| d == checked.class_dim)
        };
        let none = None::<Source<f32>>;
        let sums = match input {
            Input::Kept(input) => each_float!(input.host_data(), "input", HostRef, x => {
                let x = Source { base: x.as_ptr(), lines: lines(&input) };
                let grad = grad_input.map(|grad| {
                    let lines = lines(&grad.as_ref());
                    let base = host_like(&x, grad, "grad_input")?.as_mut_ptr();
                    Ok(Sink { base, lines })
                });
                // SAFETY: views hold their equal shapes, of which the target was checked to have the
                // rows; the gradient and the losses are borrowed exclusively.
                Ok(unsafe { each_line(self, x, none, grad.transpose()?, &op) })
            }),
            Input::Consumed(input) => {
                let lines = lines(&input.as_ref());
                each_float!(input.into_host_data(), "input", HostMut, x => {
                    let base = x.as_mut_ptr();
                    let x = Source { base: base.cast_const(), lines };
                    // SAFETY: as above; in place the output is the input itself.
                    Ok(unsafe { each_line(self, x, none, Some(Sink { base, lines }), &op) })
                })
            }
        }?;
        if let (Some(loss), Reduction::Sum | Reduction::Mean) = (loss, reduction) {
            loss[0] = op.scaling.reduce(&sums, false).0;
        }
        Ok(())
    }
}
