//! Entropy, cross entropy and Kullback–Leibler divergence of rows of probabilities, on the CPU.

use crate::base::error::{Error, Result};
use crate::base::lines::Lines;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::batch::lines::{Line, LineOp, Sink, Source, each_line};
use crate::cpu::processor::{Cpu, each_float, host_f32};
use crate::cpu::row::cuts::{Segments, Slots};
use crate::cpu::simd::{Kernel, Lanes, Level, Pieces, Simd, ln_plus, load_lanes};
use crate::cpu::threads::SyncPtr;
use crate::spec::information::{CheckedInformation, Information};

/// Σ p·(of_p·ln p + of_q·ln q) of a stretch.
struct Stretch<T> {
    p: *const T,
    q: *const T,
    len: usize,
    what: Information,
}

impl<T: Lanes> Kernel for Stretch<T> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let Information { of_p, of_q } = self.what;
        let zero = s.splat(0.0);
        let mut total = zero;
        for piece in Pieces::of::<S>(self.len, 1) {
            let mut sum = zero;
            for i in piece.clone().step_by(S::LANES) {
                let n = S::LANES.min(piece.end - i);
                // SAFETY: whoever makes a `Stretch` vouches for `len` elements at both.
                let [p, q] = unsafe {
                    [load_lanes(s, self.p.add(i), n, 0.0), load_lanes(s, self.q.add(i), n, 1.0)]
                };
                let ln_q = match of_q {
                    0.0 => zero,
                    of_q => s.mul(s.splat(of_q), ln_plus(s, q, zero)),
                };
                // ln p meets ln q before it is rounded.
                let both = match of_p {
                    0.0 => ln_q,
                    of_p if of_p > 0.0 => ln_plus(s, p, ln_q),
                    _ => s.sub(zero, ln_plus(s, p, s.sub(zero, ln_q))),
                };
                sum = s.add(sum, s.select_eq(p, zero, zero, s.mul(p, both)));
            }
            total = s.add(total, sum);
        }
        s.reduce_add(total)
    }
}

struct Rows {
    level: Level,
    what: Information,
    output: SyncPtr<f32>,
}

impl LineOp for Rows {
    type Sum = ();

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, _: &mut ()) {
        // Both tensors have one dtype.
        debug_assert!(X::DTYPE == A::DTYPE);
        let (p, q) = (SyncPtr(line.x.cast_mut()), SyncPtr(line.a.cast::<X>().cast_mut()));
        let segments = Segments::new(line.len, None);
        let mut slots = Slots::new();
        let parts = slots.fill(&segments, line.spread, |_, columns| {
            // SAFETY: the columns lie inside the rows, which are only read.
            let [p, q] = unsafe { [p, q].map(|row| row.get().add(columns.start).cast_const()) };
            self.level.run(Stretch { p, q, len: columns.len(), what: self.what })
        });
        let sum: f64 = parts.iter().map(|&part| f64::from(part)).sum();
        // SAFETY: the output has an element for each line.
        unsafe { self.output.get().add(line.index).write(sum as f32) };
    }

    fn merge(_: &mut (), _: &()) {}
}

impl Cpu {
    pub(crate) fn information(
        &self,
        checked: CheckedInformation,
        p: TensorRef<'_>,
        q: TensorRef<'_>,
        output: TensorMut<'_>,
    ) -> Result<()> {
        let output = SyncPtr(host_f32(output, "result")?.as_mut_ptr());
        let lines =
            |t: &TensorRef<'_>| Lines::new(&t.shape(), t.row_stride(), |d| d == checked.class_dim);
        let op = Rows { level: self.level, what: checked.what, output };
        each_float!(p.host_data(), "p", HostRef, x => {
            let x = Source { base: x.as_ptr(), lines: lines(&p) };
            let a = like(&x, &q)?;
            let a = Source { base: a.as_ptr(), lines: lines(&q) };
            // SAFETY: the views hold their shape; the result has an element for each line, and is
            // borrowed exclusively.
            unsafe { each_line(self, x, Some(a), None::<Sink<f32>>, &op) };
            Ok(())
        })
    }
}

fn like<'a, T: Lanes>(_: &Source<T>, q: &TensorRef<'a>) -> Result<&'a [T]> {
    q.host().ok_or(Error::Place { argument: "q", expected: "host", got: "device" })
}
