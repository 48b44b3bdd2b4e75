//! Log-probability and entropy on the CPU: a row is summed with its moment, then written.

mod results;
mod short;

use crate::base::error::Result;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::batch::lines::{Line, LineOp, Sink, Source, each_line, host_like};
use crate::cpu::batch::numbers::{Batch, Factors, Upstream};
use crate::cpu::batch::tiles::{each_tile, short};
use crate::cpu::loss::cross_entropy::rows;
use crate::cpu::loss::log_softmax::fill;
use crate::cpu::loss::logprob_entropy::results::Results;
use crate::cpu::loss::logprob_entropy::short::Short;
use crate::cpu::loss::logsumexp::coarse;
use crate::cpu::processor::{Cpu, each_float, host_f32_ref};
use crate::cpu::row::entropy::EntropyTerms;
use crate::cpu::row::hole::Hole;
use crate::cpu::row::logit::Transform;
use crate::cpu::row::state::RowSum;
use crate::cpu::row::work::{Also, Normalizer, Row};
use crate::cpu::simd::Lanes;
use crate::spec::cross_entropy::Checked;
use crate::spec::logprob_entropy::{LogprobEntropyOut, LogprobEntropyUpstream};

/// What rows are worked on with.
struct Call<'a> {
    cpu: &'a Cpu,
    batch: Batch<'a>,
    transform: Transform,
    grad_logprob: Upstream<'a>,
    grad_entropy: Upstream<'a>,
    /// A forward pass's; none in a backward pass.
    results: Option<Results>,
    /// A backward pass's.
    lse: Option<&'a [f32]>,
}

impl<'a> Call<'a> {
    fn new(
        cpu: &'a Cpu,
        checked: &Checked<'a>,
        upstream: &LogprobEntropyUpstream<'a>,
    ) -> Result<Call<'a>> {
        let batch = Batch::new(cpu, checked, Upstream::Number(1.0))?;
        Ok(Call {
            cpu,
            transform: batch.transform,
            batch,
            grad_logprob: Upstream::new_as("grad_logprob", &upstream.grad_logprob)?,
            grad_entropy: Upstream::new_as("grad_entropy", &upstream.grad_entropy)?,
            results: None,
            lse: None,
        })
    }

    fn row<X, A, Y>(&self, line: &Line<X, A, Y>) -> Row<X> {
        let standing = self.results.is_some_and(|results| results.ranks.wanted());
        Row {
            level: self.cpu.level,
            spread: line.spread,
            transform: self.transform,
            x: line.x,
            len: line.len,
            smoothing: false,
            weights: std::ptr::null(),
            also: Also { moment: true, standing },
        }
    }

    /// The gradient of a row that was summed: its maximum is what distances are measured from.
    ///
    /// # Safety
    /// As for [`LineOp::line`]; `sum` is this row's.
    unsafe fn gradient<X: Lanes, A, Y: Lanes>(
        &self,
        line: &Line<X, A, Y>,
        sum: &RowSum,
        (a, b): (f64, f64),
        hole: &Hole,
    ) {
        let scale = f64::from(self.transform.slope()) / sum.total();
        let terms = EntropyTerms {
            reference: sum.reference(),
            constant: (-(a + b * sum.mean_distance()) * scale) as f32,
            slope: (-b * scale) as f32,
            smooth: 0.0,
        };
        let at_target = (a * (sum.rest / sum.total()) + b * sum.entropy_slope()) * hole.slope;
        // SAFETY: the caller's contract for the line; the class is a column of the row.
        unsafe {
            self.row(line).entropy_gradient(line.y, hole.column, terms);
            line.y.add(hole.column).write(Y::from_f32(at_target as f32));
        }
    }

    /// The gradient of a row whose entropy has none, from a saved log-sum-exp: one read.
    ///
    /// # Safety
    /// As for [`LineOp::line`].
    unsafe fn short_gradient<X: Lanes, A, Y: Lanes>(
        &self,
        line: &Line<X, A, Y>,
        lse: f32,
        a: f64,
        hole: &Hole,
    ) {
        let factors = Factors::of_nll(-a);
        let terms = factors.terms(self.transform);
        // SAFETY: the caller's contract; the class is a column of the row.
        unsafe {
            let column = hole.column;
            let from = Normalizer::Lse(lse);
            let rest = self.row(line).gradient(line.y, Some(column), from, &terms);
            let target = (hole.z - f64::from(lse)).exp();
            line.y.add(column).write(Y::from_f32(factors.at_target(rest, target, hole.own())));
        }
    }
}

impl LineOp for Call<'_> {
    type Sum = ();

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, _: &mut ()) {
        // SAFETY: the caller's contract for the line; results have an element a row; the
        // census found the class in range.
        unsafe {
            let Some(class) = self.batch.targets.class(line.index) else {
                if let Some(results) = &self.results {
                    results.put(line.index, None);
                }
                if !line.y.is_null() {
                    fill(&line, 0.0);
                }
                return;
            };
            let hole = self.batch.hole(line.x, class);
            let a = f64::from(self.grad_logprob.of(line.index));
            let b = f64::from(self.grad_entropy.of(line.index));
            if let Some(lse) = self.lse.map(|lse| lse[line.index])
                && b == 0.0
                && !coarse(lse, self.transform)
            {
                return self.short_gradient(&line, lse, a, &hole);
            }
            let sum = self.row(&line).sum(Some(hole));
            if let Some(results) = &self.results {
                results.put(line.index, Some(&sum));
            }
            match line.y.is_null() {
                true => {}
                false if sum.undefined() => fill(&line, f32::NAN),
                false => self.gradient(&line, &sum, (a, b), &hole),
            }
        }
    }

    fn merge(_: &mut (), _: &()) {}
}

impl Cpu {
    fn each_token<X: Lanes, Y: Lanes>(&self, call: &Call<'_>, x: Source<X>, y: Option<Sink<Y>>) {
        // SAFETY: views hold their shapes, which were checked to agree; outputs are borrowed
        // exclusively, and in place the output is the input itself.
        unsafe {
            if short(&x) {
                // A saved log-sum-exp is not asked for: the rows' own sums are at hand, and better.
                let (level, batch, results) = (self.level, &call.batch, call.results);
                let upstream = y.is_some().then_some([call.grad_logprob, call.grad_entropy]);
                let op = Short { level, batch, results, upstream };
                return each_tile(self, x, None::<Source<f32>>, y, &op);
            }
            each_line(self, x, None::<Source<f32>>, y, call)
        }
    }

    pub(crate) fn logprob_entropy_forward(
        &self,
        checked: &Checked<'_>,
        logits: TensorRef<'_>,
        out: LogprobEntropyOut<'_>,
    ) -> Result<()> {
        let mut call = Call::new(self, checked, &LogprobEntropyUpstream::default())?;
        call.results = Some(Results::new(out)?);
        let lines = rows(checked, &logits);
        each_float!(logits.host_data(), "logits", HostRef, x => {
            self.each_token(&call, Source { base: x.as_ptr(), lines }, None::<Sink<f32>>);
            Ok(())
        })
    }

    pub(crate) fn logprob_entropy_forward_backward(
        &self,
        checked: &Checked<'_>,
        logits: TensorMut<'_>,
        upstream: LogprobEntropyUpstream<'_>,
        out: LogprobEntropyOut<'_>,
    ) -> Result<()> {
        let mut call = Call::new(self, checked, &upstream)?;
        call.results = Some(Results::new(out)?);
        self.tokens_in_place(&call, checked, logits)
    }

    pub(crate) fn logprob_entropy_backward(
        &self,
        checked: &Checked<'_>,
        logits: TensorRef<'_>,
        lse: TensorRef<'_>,
        upstream: LogprobEntropyUpstream<'_>,
        grad_logits: TensorMut<'_>,
    ) -> Result<()> {
        let mut call = Call::new(self, checked, &upstream)?;
        call.lse = Some(host_f32_ref(lse, "lse")?);
        let x_lines = rows(checked, &logits);
        let y_lines = rows(checked, &grad_logits.as_ref());
        each_float!(logits.host_data(), "logits", HostRef, x => {
            let x = Source { base: x.as_ptr(), lines: x_lines };
            let y = host_like(&x, grad_logits, "grad_logits")?;
            self.each_token(&call, x, Some(Sink { base: y.as_mut_ptr(), lines: y_lines }));
            Ok(())
        })
    }

    pub(crate) fn logprob_entropy_backward_in_place(
        &self,
        checked: &Checked<'_>,
        logits: TensorMut<'_>,
        lse: TensorRef<'_>,
        upstream: LogprobEntropyUpstream<'_>,
    ) -> Result<()> {
        let mut call = Call::new(self, checked, &upstream)?;
        call.lse = Some(host_f32_ref(lse, "lse")?);
        self.tokens_in_place(&call, checked, logits)
    }

    fn tokens_in_place(
        &self,
        call: &Call<'_>,
        checked: &Checked<'_>,
        logits: TensorMut<'_>,
    ) -> Result<()> {
        let lines = rows(checked, &logits.as_ref());
        each_float!(logits.into_host_data(), "logits", HostMut, x => {
            let base = x.as_mut_ptr();
            let x = Source { base: base.cast_const(), lines };
            self.each_token(call, x, Some(Sink { base, lines }));
            Ok(())
        })
    }
}
