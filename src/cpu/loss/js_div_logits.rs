//! Jensen–Shannon divergence from logits on the CPU: rows of a model and of its teacher side by
//! side, each brought from memory once and gone through three times.

mod kernels;
mod terms;

use crate::base::error::{Error, Result};
use crate::base::lines::Lines;
use crate::base::reduction::Reduction;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::batch::lines::{Line, LineOp, Operands, Sink, Source, each_line_of, host_like};
use crate::cpu::batch::numbers::{Upstream, read};
use crate::cpu::batch::targets::Targets;
use crate::cpu::loss::log_softmax::fill;
use crate::cpu::matrix::chunks::Logits;
use crate::cpu::processor::{Cpu, each_float, host_f32};
use crate::cpu::row::cuts::{Segments, Slots};
use crate::cpu::row::logit::Transform;
use crate::cpu::row::room::{ROOM, with_room};
use crate::cpu::row::state::RowSum;
use crate::cpu::row::work::{Also, Row};
use crate::cpu::simd::{Lanes, Level};
use crate::cpu::threads::{Spread, SyncPtr};
use crate::spec::grad_output::GradOutput;
use crate::spec::js_div_logits::{CheckedJsDiv, JsDivLogitsGradOut, JsDivRows};
use kernels::{Centre, Gradient, Sums};
use terms::{Difference, Norm, Pair, Slopes};

/// What multiplies rows' logits.
#[derive(Clone, Copy)]
pub(in crate::cpu::loss) enum Scale<'a> {
    Number(f32),
    Each(&'a [f32]),
}

impl Scale<'_> {
    fn of(&self, row: usize) -> f32 {
        match self {
            Scale::Number(scale) => *scale,
            Scale::Each(each) => each[row],
        }
    }
}

/// Numbers of the batch that every row uses.
#[derive(Clone, Copy)]
pub(in crate::cpu::loss) struct Batch<'a> {
    divergence: Slopes,
    /// Of the model and of the teacher.
    scales: [Scale<'a>; 2],
    /// What says which rows count.
    targets: Option<Targets<'a>>,
    upstream: Upstream<'a>,
    /// Multiplies a row's loss, and its upstream gradient.
    share: f64,
    /// Rows that count, where the sum is divided by them, or what they weigh; else 1.
    rows: f64,
}

impl<'a> Batch<'a> {
    pub(in crate::cpu::loss) fn new(
        cpu: &Cpu,
        checked: &JsDivRows<'a>,
        upstream: Upstream<'a>,
    ) -> Result<Batch<'a>> {
        let options = checked.options;
        let (mut targets, mut rows) = (None, checked.rows());
        if let Some(labels) = checked.labels {
            let (read, weights) = read(labels, &checked.counting())?;
            rows = read.census(cpu, &weights)?.kept;
            targets = Some(read);
        }
        Ok(Batch {
            divergence: Slopes::new(options.divergence),
            scales: [options.logit_scale, options.teacher_scale].map(Scale::Number),
            targets,
            upstream,
            share: checked.share(),
            rows: if checked.averages() { rows as f64 } else { 1.0 },
        })
    }

    /// The same, of which all rows count and weigh this together, where a mean divides by that.
    pub(in crate::cpu::loss) fn weighing(self, checked: &JsDivRows<'_>, weight: f64) -> Batch<'a> {
        let rows = if checked.averages() { weight } else { 1.0 };
        Batch { targets: None, rows, ..self }
    }

    /// Some of those rows.
    pub(in crate::cpu::loss) fn part<'p>(
        &self,
        upstream: Upstream<'p>,
        scales: [Scale<'p>; 2],
    ) -> Batch<'p> {
        let Batch { divergence, share, rows, .. } = *self;
        Batch { divergence, scales, targets: None, upstream, share, rows }
    }

    /// A row's loss, of the divergence that it is.
    pub(in crate::cpu::loss) fn loss(&self, loss: f64) -> f32 {
        (self.share * loss) as f32
    }

    pub(in crate::cpu::loss) fn keeps(&self, row: usize) -> bool {
        self.targets.is_none_or(|targets| targets.class(row).is_some())
    }

    /// What is divided by no rows is NaN.
    pub(in crate::cpu::loss) fn mean(&self, sum: f64) -> f32 {
        (self.share * sum / self.rows) as f32
    }
}

/// A line: its loss where there is room, gradients where the line has outputs.
struct JsDivOf<'a> {
    level: Level,
    batch: &'a Batch<'a>,
    /// One a row, or null.
    loss: SyncPtr<f32>,
    /// The divergence itself, in f64; one a row, or null.
    wide: SyncPtr<f64>,
}

impl LineOp for JsDivOf<'_> {
    type Sum = f64;

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, total: &mut f64) {
        // Tensors of a call have one dtype.
        debug_assert!(X::DTYPE == A::DTYPE && X::DTYPE == Y::DTYPE);
        let batch = self.batch;
        let put = |loss: f64| {
            if !self.loss.get().is_null() {
                // SAFETY: the losses have an element a row.
                unsafe { self.loss.get().add(line.index).write(batch.loss(loss)) };
            }
            if !self.wide.get().is_null() {
                // SAFETY: these have an element a row too.
                unsafe { self.wide.get().add(line.index).write(loss) };
            }
        };
        let (y, out, out_target) = (line.a.cast::<X>(), line.y.cast::<X>(), line.b.cast::<X>());
        // SAFETY: the caller's contract for the line, in this whole block.
        unsafe {
            let fill_all = |value: f32| {
                if !out.is_null() {
                    fill(&line, value);
                }
                if !out_target.is_null() {
                    (0..line.len).for_each(|i| out_target.add(i).write(X::from_f32(value)));
                }
            };
            if !batch.keeps(line.index) {
                put(0.0);
                return fill_all(0.0);
            }
            if line.len == 0 {
                return put(0.0);
            }
            let of = |x: *const X, scale: f32| Row {
                level: self.level,
                spread: line.spread,
                transform: Transform::new(scale, None),
                x,
                len: line.len,
                smoothing: false,
                weights: std::ptr::null(),
                also: Also::default(),
            };
            let scales = batch.scales.map(|scale| scale.of(line.index));
            let [s, s_t] = scales;
            let sums = [of(line.x, s).sum(None), of(y, s_t).sum(None)];
            if sums.iter().any(RowSum::undefined) {
                put(f64::NAN);
                *total = f64::NAN;
                return fill_all(f32::NAN);
            }
            let [x_norm, y_norm] = [Norm::new(&sums[0], s), Norm::new(&sums[1], s_t)];
            let difference = Difference::new(&sums, scales);
            let divergence = batch.divergence;
            let pair = Pair { divergence, x: x_norm, y: y_norm, difference };
            let rows = Rows { x: line.x, y, len: line.len, pair, spread: line.spread };
            let g = f64::from(batch.upstream.of(line.index)) * batch.share / batch.rows;
            let factors = [g * f64::from(s), g * f64::from(s_t)].map(|f| f as f32);
            let level = self.level;
            let mut finish = |loss: f64| {
                put(loss);
                *total += loss;
            };
            // To the model's logits alone the slopes are taken once, and kept.
            if !out.is_null() && out_target.is_null() && line.len <= ROOM {
                with_room(line.len, |kept| {
                    let [loss, at_x, _] = rows.sums::<true>(level, kept);
                    finish(loss);
                    rows.centre(level, (kept.cast_const(), out), factors[0], at_x as f32);
                });
                return;
            }
            let [loss, at_x, at_y] = rows.sums::<false>(level, std::ptr::null_mut());
            finish(loss);
            if !out.is_null() {
                rows.gradients(level, (out, out_target), factors, [at_x as f32, at_y as f32]);
            }
        }
    }

    fn merge(total: &mut f64, part: &f64) {
        *total += part;
    }
}

/// Both rows, normalised.
struct Rows<T> {
    x: *const T,
    y: *const T,
    len: usize,
    pair: Pair,
    spread: Spread,
}

impl<T: Lanes> Rows<T> {
    /// # Safety
    /// `len` elements are readable at both pointers, and with KEEP as many writable at `kept`.
    unsafe fn sums<const KEEP: bool>(&self, level: Level, kept: *mut f32) -> [f64; 3] {
        let segments = Segments::new(self.len, None);
        let (x, y, pair) = (SyncPtr(self.x.cast_mut()), SyncPtr(self.y.cast_mut()), self.pair);
        let kept = SyncPtr(kept);
        let mut slots = Slots::new();
        let parts = slots.fill(&segments, self.spread, |_, columns| {
            let (at, len) = (columns.start, columns.len());
            // SAFETY: the columns lie inside the rows, which are only read.
            unsafe {
                let (x, y) = (x.get().add(at).cast_const(), y.get().add(at).cast_const());
                let kept = if KEEP { kept.get().add(at) } else { std::ptr::null_mut() };
                level.run(Sums::<T, KEEP> { x, y, kept, len, pair })
            }
        });
        let mut sums = [0.0; 3];
        for part in parts {
            sums.iter_mut().zip(part).for_each(|(sum, &part)| *sum += f64::from(part));
        }
        sums
    }

    /// # Safety
    /// As for [`Rows::sums`], which has written to `kept`; as many elements are writable at `out`, which is x
    /// itself or overlaps nothing that is read.
    unsafe fn centre(
        &self,
        level: Level,
        (kept, out): (*const f32, *mut T),
        factor: f32,
        sum: f32,
    ) {
        let segments = Segments::new(self.len, None);
        let (x, norm) = (SyncPtr(self.x.cast_mut()), self.pair.x);
        let (kept, out) = (SyncPtr(kept.cast_mut()), SyncPtr(out));
        segments.each_reversed(self.spread, |_, columns| {
            let (at, len) = (columns.start, columns.len());
            // SAFETY: the columns lie inside the rows, and each belongs to one call.
            unsafe {
                let (x, kept) = (x.get().add(at).cast_const(), kept.get().add(at).cast_const());
                let out = out.get().add(at);
                level.run(Centre { x, kept, out, len, norm, factor, sum });
            }
        });
    }

    /// # Safety
    /// As for [`Rows::sums`], and as many elements are writable at the outputs (the second may be
    /// null), which are x and y themselves or overlap nothing that is read.
    unsafe fn gradients(
        &self,
        level: Level,
        (out, out_target): (*mut T, *mut T),
        factors: [f32; 2],
        sums: [f32; 2],
    ) {
        let segments = Segments::new(self.len, None);
        let (x, y, pair) = (SyncPtr(self.x.cast_mut()), SyncPtr(self.y.cast_mut()), self.pair);
        let (out, out_target) = (SyncPtr(out), SyncPtr(out_target));
        segments.each_reversed(self.spread, |_, columns| {
            let (at, len) = (columns.start, columns.len());
            // SAFETY: the columns lie inside the rows, and each belongs to one call.
            unsafe {
                let out_target = match out_target.get() {
                    none if none.is_null() => none,
                    some => some.add(at),
                };
                let (x, y) = (x.get().add(at).cast_const(), y.get().add(at).cast_const());
                let out = out.get().add(at);
                level.run(Gradient { x, y, out, out_target, len, pair, factors, sums });
            }
        });
    }
}

/// Layout of rows of logits.
fn rows(checked: &CheckedJsDiv<'_>, tensor: &TensorRef<'_>) -> Lines {
    Lines::new(&tensor.shape(), tensor.row_stride(), |d| d == checked.class_dim)
}

/// Where a call's gradients go.
struct Outputs<T> {
    logits: Option<Sink<T>>,
    target: Option<Sink<T>>,
}

impl Cpu {
    fn js_div_lines<T: Lanes>(
        &self,
        checked: &CheckedJsDiv<'_>,
        batch: &Batch<'_>,
        x: Source<T>,
        outputs: Outputs<T>,
        loss: Option<&mut [f32]>,
    ) -> Result<()> {
        let (argument, expected, got) = ("target", "host", "device");
        let target = checked.target.host::<T>();
        let target = target.ok_or(Error::Place { argument, expected, got })?;
        let a = Source { base: target.as_ptr(), lines: rows(checked, &checked.target) };
        let operands = Operands { x, a: Some(a), y: outputs.logits, b: outputs.target };
        let none = checked.of_rows.options.reduction == Reduction::None;
        let mut loss = loss;
        let per_row = loss.as_mut().filter(|_| none).map(|loss| loss.as_mut_ptr());
        let loss_rows = SyncPtr(per_row.unwrap_or(std::ptr::null_mut()));
        let wide = SyncPtr(std::ptr::null_mut());
        let op = JsDivOf { level: self.level, batch, loss: loss_rows, wide };
        // SAFETY: views hold their shapes, which were checked to agree; outputs are borrowed
        // exclusively, and in place the output is the input itself.
        let total = unsafe { each_line_of(self, operands, &op) };
        if let Some(loss) = loss.filter(|_| !none) {
            loss[0] = batch.mean(total);
        }
        Ok(())
    }

    /// Divergences of rows of logits, one a row, and where `back` says so their gradients in place: the model's,
    /// and the teacher's beside them.
    pub(in crate::cpu::loss) fn js_div_of_rows(
        &self,
        batch: &Batch<'_>,
        [x, y]: [Logits<'_>; 2],
        back: [bool; 2],
        losses: &mut [f64],
    ) {
        debug_assert!(losses.len() == x.rows.len() && x.rows == y.rows && x.classes == y.classes);
        let lines = [x.lines(x.classes, x.stride), y.lines(y.classes, y.stride)];
        let bases = [x.data.as_mut_ptr(), y.data.as_mut_ptr()];
        let [model, teacher] =
            [0, 1].map(|i| Source { base: bases[i].cast_const(), lines: lines[i] });
        let sink = |i: usize| Sink { base: bases[i], lines: lines[i] };
        let operands = Operands {
            x: model,
            a: Some(teacher),
            y: (back[0] || back[1]).then(|| sink(0)),
            b: back[1].then(|| sink(1)),
        };
        let (loss, wide) = (SyncPtr(std::ptr::null_mut()), SyncPtr(losses.as_mut_ptr()));
        // SAFETY: both have the same rows and classes, borrowed exclusively, and what is written is what is read;
        // there is a loss for each row.
        unsafe {
            each_line_of(self, operands, &JsDivOf { level: self.level, batch, loss, wide });
        }
    }

    pub(crate) fn js_div_logits_forward(
        &self,
        checked: &CheckedJsDiv<'_>,
        logits: TensorRef<'_>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let batch = Batch::new(self, &checked.of_rows, Upstream::Number(1.0))?;
        let loss = host_f32(loss, "loss")?;
        let lines = rows(checked, &logits);
        each_float!(logits.host_data(), "logits", HostRef, x => {
            let x = Source { base: x.as_ptr(), lines };
            let outputs = Outputs { logits: None, target: None };
            self.js_div_lines(checked, &batch, x, outputs, Some(loss))
        })
    }

    pub(crate) fn js_div_logits_backward(
        &self,
        checked: &CheckedJsDiv<'_>,
        logits: TensorRef<'_>,
        grad_output: GradOutput<'_>,
        gradients: JsDivLogitsGradOut<'_>,
    ) -> Result<()> {
        let batch = Batch::new(self, &checked.of_rows, Upstream::new(&grad_output)?)?;
        let lines = rows(checked, &logits);
        let y_lines = rows(checked, &gradients.logits.as_ref());
        each_float!(logits.host_data(), "logits", HostRef, x => {
            let x = Source { base: x.as_ptr(), lines };
            let y = host_like(&x, gradients.logits, "grad_logits")?;
            let target = sink(checked, &x, gradients.target)?;
            let logits = Some(Sink { base: y.as_mut_ptr(), lines: y_lines });
            self.js_div_lines(checked, &batch, x, Outputs { logits, target }, None)
        })
    }

    /// Loss, and the gradient over the logits.
    pub(crate) fn js_div_logits_forward_backward(
        &self,
        checked: &CheckedJsDiv<'_>,
        gradients: JsDivLogitsGradOut<'_>,
        grad_output: GradOutput<'_>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let batch = Batch::new(self, &checked.of_rows, Upstream::new(&grad_output)?)?;
        let loss = host_f32(loss, "loss")?;
        let lines = rows(checked, &gradients.logits.as_ref());
        each_float!(gradients.logits.into_host_data(), "logits", HostMut, x => {
            let base = x.as_mut_ptr();
            let x = Source { base: base.cast_const(), lines };
            let target = sink(checked, &x, gradients.target)?;
            let outputs = Outputs { logits: Some(Sink { base, lines }), target };
            self.js_div_lines(checked, &batch, x, outputs, Some(loss))
        })
    }
}

/// Where the gradient of the teacher's logits goes.
fn sink<T: Lanes>(
    checked: &CheckedJsDiv<'_>,
    like: &Source<T>,
    grad_target: Option<TensorMut<'_>>,
) -> Result<Option<Sink<T>>> {
    let Some(tensor) = grad_target else {
        return Ok(None);
    };
    let lines = rows(checked, &tensor.as_ref());
    let base = host_like(like, tensor, "grad_target")?.as_mut_ptr();
    Ok(Some(Sink { base, lines }))
}
