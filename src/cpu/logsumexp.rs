//! Log-sum-exp on the CPU, and its gradient from the saved result.

use super::lines::{Line, LineOp, Lines, Sink, Source, SyncPtr, each_line};
use super::log_softmax::{IDENTITY, fill, sum_line};
use super::row::{Row, Terms};
use super::simd::{Lanes, Simd, Task};
use super::softmax::NoSmoothing;
use super::{Cpu, each_float, host_data, host_f32, host_f32_ref};
use crate::loss::CheckedLines;
use crate::tensor::HostRef;
use crate::{Result, TensorMut, TensorRef};

/// Beyond this a saved f32 lse is too coarse to make probabilities of: half its last place
/// exceeds 3.9e-6, and every probability would be off by that factor. The row is summed again.
pub(crate) const COARSE_LSE: f32 = 64.0;

struct Forward<S> {
    simd: S,
    output: SyncPtr<f32>,
}

impl<S: Simd> LineOp for Forward<S> {
    type Sum = ();

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, _: &mut ()) {
        // SAFETY: the caller's contract; the output has an element for each line.
        unsafe {
            let sum = sum_line(self.simd, &line);
            *self.output.get().add(line.index) = sum.lse() as f32;
        }
    }

    fn merge(_: &mut (), _: &()) {}
}

struct Backward<'a, S> {
    simd: S,
    output: &'a [f32],
    upstream: HostRef<'a>,
}

impl<S: Simd> LineOp for Backward<'_, S> {
    type Sum = ();

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, _: &mut ()) {
        let lse = self.output[line.index];
        let g = self.upstream.float(line.index);
        let row = Row {
            x: line.x,
            len: line.len,
            logit: IDENTITY,
            weights: NoSmoothing,
            spread: line.spread,
        };
        let terms = Terms { prob: g, smooth: 0.0 };
        // SAFETY: the caller's contract, for all of this block.
        unsafe {
            if lse.is_infinite() {
                return self.infinite(line, lse, g);
            }
            let (reference, total) = if lse.abs() > COARSE_LSE {
                let sum = row.sum_plain(self.simd, None);
                if sum.undefined() {
                    return fill(&line, f32::NAN);
                }
                (sum.max, sum.total())
            } else {
                (lse, 1.0)
            };
            row.gradient(self.simd, line.y, None, (reference, total), &terms);
        }
    }

    fn merge(_: &mut (), _: &()) {}
}

impl<S> Backward<'_, S> {
    /// g·e^(x − lse) by IEEE rules: NaN where x is the same infinity, 0 beside a +∞.
    ///
    /// # Safety
    /// As for [`LineOp::line`].
    unsafe fn infinite<X: Lanes, A, Y: Lanes>(&self, line: Line<X, A, Y>, lse: f32, g: f32) {
        for i in 0..line.len {
            // SAFETY: input and output have `len` elements.
            unsafe {
                let x = line.x.add(i).read().to_f32();
                line.y.add(i).write(Y::from_f32(g * (x - lse).exp()));
            }
        }
    }
}

/// A whole call, before its types are known.
struct Call<'c, 't> {
    cpu: &'c Cpu,
    checked: CheckedLines,
    input: TensorRef<'t>,
    output: TensorMut<'t>,
    /// The forward pass's result and the upstream gradient.
    saved: Option<(TensorRef<'t>, TensorRef<'t>)>,
}

impl Task for Call<'_, '_> {
    type Out = Result<()>;

    fn run<S: Simd>(self, simd: S) -> Result<()> {
        let input = self.input.host_data();
        each_float!(input, "input", HostRef, x => self.with_input(simd, x))
    }
}

impl Call<'_, '_> {
    fn with_input<S: Simd, X: Lanes>(self, simd: S, x: &[X]) -> Result<()> {
        let lines = |t: TensorRef<'_>| {
            Lines::new(&t.shape(), t.row_stride(), |d| self.checked.along(d))
        };
        let x = Source { base: x.as_ptr(), lines: lines(self.input) };
        let output_lines = lines(self.output.as_ref());
        let none = None::<Source<f32>>;
        match self.saved {
            None => {
                let output = SyncPtr(host_f32(self.output, "output")?.as_mut_ptr());
                let op = Forward { simd, output };
                // SAFETY: the views hold their shapes; the output was checked to have an element
                // for each line, and is borrowed exclusively.
                unsafe { each_line(self.cpu, x, none, None::<Sink<f32>>, &op) };
                Ok(())
            }
            Some((output, upstream)) => {
                let output = host_f32_ref(output, "output")?;
                let upstream = host_data(upstream, "grad_output")?;
                let op = Backward { simd, output, upstream };
                each_float!(self.output.into_host_data(), "grad_input", HostMut, y => {
                    let y = Sink { base: y.as_mut_ptr(), lines: output_lines };
                    // SAFETY: the views hold their equal shapes; the gradient is borrowed
                    // exclusively.
                    unsafe { each_line(self.cpu, x, none, Some(y), &op) };
                    Ok(())
                })
            }
        }
    }
}

impl Cpu {
    pub(crate) fn logsumexp_forward(
        &self,
        checked: CheckedLines,
        input: TensorRef<'_>,
        output: TensorMut<'_>,
    ) -> Result<()> {
        self.level.dispatch(Call { cpu: self, checked, input, output, saved: None })
    }

    pub(crate) fn logsumexp_backward(
        &self,
        checked: CheckedLines,
        input: TensorRef<'_>,
        saved: (TensorRef<'_>, TensorRef<'_>),
        grad_input: TensorMut<'_>,
    ) -> Result<()> {
        let (output, saved) = (grad_input, Some(saved));
        self.level.dispatch(Call { cpu: self, checked, input, output, saved })
    }
}
