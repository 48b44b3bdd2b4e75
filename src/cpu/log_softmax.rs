//! Log-softmax on the CPU: a row is summed, then written (or its gradient is).

use super::lines::{Line, LineOp, Lines, Sink, Source, each_line};
use super::row::{Row, RowSum, Segments};
use super::simd::{Lanes, Simd, Task};
use super::softmax::{Linear, LogProbability, LogSoftmaxGradient, NoSmoothing, Sum};
use super::{Cpu, each_float};
use crate::loss::CheckedLines;
use crate::{Result, TensorMut, TensorRef};

pub(crate) const IDENTITY: Linear = Linear { scale: 1.0 };

/// Log-sum-exp of the line's first input.
///
/// # Safety
/// As for [`LineOp::line`].
pub(crate) unsafe fn sum_line<S: Simd, X: Lanes, A, Y>(simd: S, line: &Line<X, A, Y>) -> RowSum {
    let row = Row {
        x: line.x,
        len: line.len,
        logit: IDENTITY,
        weights: NoSmoothing,
        spread: line.spread,
    };
    // SAFETY: the line's first input has `len` elements; nothing is written.
    unsafe { row.sum_plain(simd, None) }
}

/// Fills a line's output.
///
/// # Safety
/// As for [`LineOp::line`].
pub(crate) unsafe fn fill<X, A, Y: Lanes>(line: &Line<X, A, Y>, value: f32) {
    let value = Y::from_f32(value);
    for i in 0..line.len {
        // SAFETY: the output has `len` elements.
        unsafe { line.y.add(i).write(value) };
    }
}

struct Forward<S> {
    simd: S,
}

impl<S: Simd> LineOp for Forward<S> {
    type Sum = ();

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, _: &mut ()) {
        // SAFETY: the caller's contract, line by line; segments are disjoint columns.
        unsafe {
            let sum = sum_line(self.simd, &line);
            if sum.undefined() {
                return fill(&line, f32::NAN);
            }
            let (x, y) = (line.x, super::lines::SyncPtr(line.y));
            let x = super::lines::SyncPtr(x.cast_mut());
            Segments::new(line.len, None).each(line.spread, |_, columns| {
                self.simd.enter(LogProbability {
                    x: x.get().add(columns.start).cast_const(),
                    out: y.get().add(columns.start),
                    len: columns.len(),
                    max: sum.max,
                    log_sum: sum.log_sum as f32,
                });
            });
        }
    }

    fn merge(_: &mut (), _: &()) {}
}

struct Backward<S> {
    simd: S,
}

impl<S: Simd> LineOp for Backward<S> {
    type Sum = ();

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, _: &mut ()) {
        // SAFETY: the caller's contract, line by line; segments are disjoint columns.
        unsafe {
            let sum = sum_line(self.simd, &line);
            if sum.undefined() {
                return fill(&line, f32::NAN);
            }
            let segments = Segments::new(line.len, None);
            let mut upstream = 0.0;
            for i in 0..segments.count() {
                let columns = segments.range(i);
                let (x, len) = (line.a.add(columns.start), columns.len());
                upstream += f64::from(self.simd.enter(Sum { x, len }));
            }
            let factor = (upstream / sum.total()) as f32;
            let x = super::lines::SyncPtr(line.x.cast_mut());
            let a = super::lines::SyncPtr(line.a.cast_mut());
            let y = super::lines::SyncPtr(line.y);
            segments.each(line.spread, |_, columns| {
                self.simd.enter(LogSoftmaxGradient {
                    x: x.get().add(columns.start).cast_const(),
                    upstream: a.get().add(columns.start).cast_const(),
                    out: y.get().add(columns.start),
                    len: columns.len(),
                    max: sum.max,
                    factor,
                });
            });
        }
    }

    fn merge(_: &mut (), _: &()) {}
}

/// A whole call, before its types are known.
struct Call<'c, 't> {
    cpu: &'c Cpu,
    checked: CheckedLines,
    input: TensorRef<'t>,
    grad_output: Option<TensorRef<'t>>,
    output: TensorMut<'t>,
}

impl Task for Call<'_, '_> {
    type Out = Result<()>;

    fn run<S: Simd>(self, simd: S) -> Result<()> {
        let input = self.input.host_data();
        each_float!(input, "input", HostRef, x => self.with_input(simd, x))
    }
}

impl Call<'_, '_> {
    fn with_input<S: Simd, X: Lanes>(mut self, simd: S, x: &[X]) -> Result<()> {
        let output = self.output.reborrow().into_host_data();
        each_float!(output, "output", HostMut, y => {
            let y = y.as_mut_ptr();
            self.with_output(simd, x, y)
        })
    }

    fn with_output<S: Simd, X: Lanes, Y: Lanes>(self, simd: S, x: &[X], y: *mut Y) -> Result<()> {
        let lines = |t: TensorRef<'_>| {
            Lines::new(&t.shape(), t.row_stride(), |d| self.checked.along(d))
        };
        let x = Source { base: x.as_ptr(), lines: lines(self.input) };
        let y = Sink { base: y, lines: lines(self.output.as_ref()) };
        match self.grad_output {
            None => {
                // SAFETY: views hold their shapes, shapes were checked to be equal, and the
                // exclusive borrow of the output keeps it apart from the inputs.
                unsafe { each_line(self.cpu, x, None::<Source<f32>>, Some(y), &Forward { simd }) };
                Ok(())
            }
            Some(g) => each_float!(g.host_data(), "grad_output", HostRef, a => {
                let a = Source { base: a.as_ptr(), lines: lines(g) };
                // SAFETY: as above.
                unsafe { each_line(self.cpu, x, Some(a), Some(y), &Backward { simd }) };
                Ok(())
            }),
        }
    }
}

impl Cpu {
    pub(crate) fn log_softmax_forward(
        &self,
        checked: CheckedLines,
        input: TensorRef<'_>,
        output: TensorMut<'_>,
    ) -> Result<()> {
        self.level.dispatch(Call { cpu: self, checked, input, grad_output: None, output })
    }

    pub(crate) fn log_softmax_backward(
        &self,
        checked: CheckedLines,
        input: TensorRef<'_>,
        grad_output: TensorRef<'_>,
        grad_input: TensorMut<'_>,
    ) -> Result<()> {
        let (grad_output, output) = (Some(grad_output), grad_input);
        self.level.dispatch(Call { cpu: self, checked, input, grad_output, output })
    }
}
