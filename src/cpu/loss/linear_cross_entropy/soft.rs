//! Against class probabilities.

use crate::base::error::Result;
use crate::base::tensor::TensorMut;
use crate::cpu::batch::lines::{Sink, Source};
use crate::cpu::batch::numbers::{Sums, Upstream};
use crate::cpu::batch::results::{Buffers, Results};
use crate::cpu::batch::targets::Census;
use crate::cpu::loss::linear_cross_entropy::Backward;
use crate::cpu::loss::linear_cross_entropy::rows::Rows;
use crate::cpu::loss::soft_cross_entropy::{Batch, Outputs, SoftOperands};
use crate::cpu::matrix::chunks::Logits;
use crate::cpu::matrix::gradient::Gradient;
use crate::cpu::matrix::product::Matrix;
use crate::cpu::matrix::scratch::{with_large, with_scratch};
use crate::cpu::processor::{Cpu, host_f32_ref};
use crate::cpu::row::places::Places;
use crate::spec::cross_entropy::{Checked, CrossEntropyOut, CrossEntropyUpstream, SoftTarget};
use crate::spec::linear_cross_entropy::CheckedLinear;
use std::ops::Range;

impl Cpu {
    pub(super) fn linear_soft(
        &self,
        checked: &CheckedLinear<'_>,
        of_logits: Checked<'_, SoftTarget<'_>>,
        mut back: Option<Backward<'_>>,
        out: Option<CrossEntropyOut<'_>>,
    ) -> Result<()> {
        let given = back.as_ref().map_or(CrossEntropyUpstream::default(), |back| back.upstream);
        let upstream = Upstream::new(&given.grad_output)?;
        let mut batch = Batch::new(&of_logits, upstream)?;
        let rows = Rows::new(checked, |_| true)?;
        let weights =
            checked.input.row_weight.map(|w| host_f32_ref(w, "row_weight")).transpose()?;
        if let Some(weights) = weights {
            let sum = weights[..checked.rows].iter().map(|&u| f64::from(u)).sum();
            batch.scaling.census = Census { kept: checked.rows, weight: sum, rows: sum };
        }
        // Probabilities are not divided by temperatures.
        let of_target = rows.upstream_over(None, &upstream, weights)?;
        let upstream = rows.upstream(&upstream, weights)?;
        let grad_target = back.as_mut().and_then(|back| back.gradients.target.take());
        let target = Targets {
            cpu: self,
            given: Matrix::new(self, "target", &of_logits.target.tensor().flat())?,
            gradient: grad_target.map(|grad| self.of_target(grad)).transpose()?,
        };
        let mut losses = vec![[0.0; 2]; checked.losses()];
        let mut buffers = out.map(Buffers::new).transpose()?;
        let results = match &mut buffers {
            Some(buffers) => buffers.results(batch.scaling.reduction),
            None => Results::NONE,
        };
        // SAFETY: both have an element for each row of the batch, and are there until all rows were gone through.
        let results = unsafe { results.weighted(&mut losses, weights) };
        let (with_gradient, divided) = (back.is_some(), rows.scales.is_some());
        let mut turn = |logits: Logits<'_>| {
            let span = rows.span(&logits.rows);
            // SAFETY: the list of rows is there until all were gone through, and has those of the part.
            let places = unsafe { Places::of(&rows.losses()[span.clone()]) };
            let mut batch = batch;
            batch.scaling.upstream = upstream.part(&span);
            let ratios = divided.then(|| [&of_target, &upstream].map(|of| of.part(&span)));
            let (classes, results) = (of_logits.classes, results.at(places));
            let call = Call { cpu: self, batch, classes, results, with_gradient, ratios };
            target.with(logits, call)
        };
        let gradients = back.map(|back| back.gradients);
        self.through_logits(checked, &rows, gradients, &mut turn)?;
        if let Some(buffers) = &mut buffers {
            buffers.finish(&batch.scaling, &Sums::of(&losses), batch.lambda > 0.0);
        }
        Ok(())
    }

    fn of_target<'a>(&self, grad: TensorMut<'a>) -> Result<Gradient<'a>> {
        Gradient::new(self, "grad_target", grad.flat(), false)
    }
}

/// What is done with some rows.
struct Call<'a> {
    cpu: &'a Cpu,
    batch: Batch<'a>,
    classes: usize,
    results: Results,
    with_gradient: bool,
    /// Upstream gradients of probabilities, and of logits, where those differ.
    ratios: Option<[Upstream<'a>; 2]>,
}

/// Probabilities, and where their gradient goes.
struct Targets<'a> {
    cpu: &'a Cpu,
    given: Matrix<'a>,
    gradient: Option<Gradient<'a>>,
}

impl Targets<'_> {
    /// Goes through some rows beside their probabilities, in f32.
    fn with(&self, logits: Logits<'_>, call: Call<'_>) -> Result<()> {
        let (rows, classes) = (logits.rows.clone(), logits.classes);
        let size = rows.len() * classes;
        let wide = if self.given.scratch(1) > 0 { size } else { 0 };
        let of_gradient = if self.gradient.is_some() { size } else { 0 };
        with_large("probabilities in f32", wide + of_gradient, |memory| {
            let (wide, gradient) = memory.split_at_mut(wide);
            let target = self.given.some(self.cpu, rows.clone(), wide);
            let (target, target_stride) = target.begin();
            let lines = |stride| logits.lines(call.classes, stride);
            let (own, apart) = (lines(logits.stride), lines(classes));
            let beside = lines(target_stride);
            let base = logits.data.as_mut_ptr();
            let of_target = Sink { base: gradient.as_mut_ptr(), lines: apart };
            let operands = SoftOperands {
                x: Source { base: base.cast_const(), lines: own },
                target: Source { base: target.cast_const(), lines: beside },
                outputs: Outputs {
                    logits: call.with_gradient.then_some(Sink { base, lines: own }),
                    target: self.gradient.as_ref().map(|_| of_target),
                },
            };
            call.cpu.soft_cross_entropy_of_rows(&call.batch, operands, Some(call.results));
            if let Some(to) = &self.gradient {
                self.write(to, rows, gradient, call.ratios);
            }
        })
    }

    /// Puts the gradient of probabilities in its place. It was made with the logits' upstream gradient, which
    /// has the temperature in it.
    fn write(
        &self,
        to: &Gradient<'_>,
        rows: Range<usize>,
        from: &[f32],
        of: Option<[Upstream<'_>; 2]>,
    ) {
        let ratio = |i| {
            let Some([of_target, of_logits]) = &of else { return 1.0 };
            let (own, other) = (f64::from(of_target.of(i)), f64::from(of_logits.of(i)));
            if own == other { 1.0 } else { (own / other) as f32 }
        };
        let columns = to.columns;
        self.cpu.share(rows.len(), 1, &|i| {
            let ratio = ratio(i);
            with_scratch([to.scratch(1)], |[scratch]| {
                let made = &from[i * columns..][..columns];
                // SAFETY: a row of this task alone.
                unsafe {
                    to.rows(rows.start + i..rows.start + i + 1, scratch, |out, _| {
                        let out = out.row(0, columns);
                        out.iter_mut().zip(made).for_each(|(out, g)| *out = g * ratio);
                    });
                }
            });
        });
    }
}
