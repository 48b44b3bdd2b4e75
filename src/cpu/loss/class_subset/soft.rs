//! Against probabilities of the listed classes.

use crate::base::error::Result;
use crate::cpu::batch::numbers::{Sums, Upstream};
use crate::cpu::batch::results::{Buffers, Results};
use crate::cpu::batch::targets::Census;
use crate::cpu::loss::class_subset::bucket::{Bucket, Columns};
use crate::cpu::loss::class_subset::lists::Lists;
use crate::cpu::loss::class_subset::products::Listed;
use crate::cpu::loss::linear_cross_entropy::Backward;
use crate::cpu::loss::linear_cross_entropy::rows::Rows;
use crate::cpu::loss::soft_cross_entropy::{Batch, SoftOperands};
use crate::cpu::matrix::chunks::{Logits, stride};
use crate::cpu::matrix::gradient::Gradient;
use crate::cpu::matrix::product::Matrix;
use crate::cpu::matrix::scratch::{with_large, with_scratch};
use crate::cpu::processor::{Cpu, host_f32_ref};
use crate::cpu::row::logit::Transform;
use crate::cpu::threads::SyncPtr;
use crate::spec::class_subset::CheckedSubset;
use crate::spec::cross_entropy::{Checked, CrossEntropyOut, CrossEntropyUpstream, SoftTarget};
use crate::spec::linear_cross_entropy::{CheckedLinear, LinearPlan};

impl Cpu {
    pub(super) fn listed_soft(
        &self,
        (checked, subset): (&CheckedLinear<'_>, &CheckedSubset<'_>),
        of_logits: Checked<'_, SoftTarget<'_>>,
        mut back: Option<Backward<'_>>,
        out: Option<CrossEntropyOut<'_>>,
        plan: LinearPlan,
    ) -> Result<()> {
        let given = back.as_ref().map_or(CrossEntropyUpstream::default(), |back| back.upstream);
        let upstream = Upstream::new(&given.grad_output)?;
        let mut batch = Batch::new(&of_logits, upstream)?;
        let rows = Rows::new(checked, |_| true)?;
        let lists = Lists::new(self, subset, (checked.rows, None))?;
        if let Some(error) = lists.wrong {
            return Err(error);
        }
        let weights =
            checked.input.row_weight.map(|w| host_f32_ref(w, "row_weight")).transpose()?;
        let of_rows = |weights: &[f32]| weights[..checked.rows].iter().map(|&u| f64::from(u)).sum();
        let sum = weights.map_or(checked.rows as f64, of_rows);
        batch.scaling.census = Census { kept: checked.rows, weight: sum, rows: sum };
        let all = 0..checked.rows;
        // Probabilities are not divided by temperatures.
        let of_target = rows.upstream_over(None, &upstream, weights)?;
        let of_loss = rows.upstream(&upstream, weights)?;
        batch.scaling.upstream = of_loss.part(&all);
        let grad_target = back.as_mut().and_then(|back| back.gradients.target.take());
        let grad_target =
            grad_target.map(|grad| Gradient::new(self, "grad_target", grad, false)).transpose()?;
        let mut losses = vec![[0.0; 2]; checked.rows];
        let mut buffers = out.map(Buffers::new).transpose()?;
        let results = match &mut buffers {
            Some(buffers) => buffers.results(batch.scaling.reduction),
            None => Results::NONE,
        };
        // SAFETY: both have an element for each row of the batch, and are there until all rows were gone through.
        let results = unsafe { results.weighted(&mut losses, weights) };
        let listed = Listed::new(self, checked, (&lists, &rows), stride(subset.columns))?;
        let target = Targets {
            cpu: self,
            given: Matrix::new(self, "target", &of_logits.target.tensor())?,
            lists: &lists,
            stride: listed.stride,
            ratios: [of_target.part(&all), of_loss.part(&all)],
        };
        let size = checked.rows.saturating_mul(listed.stride);
        let of_gradient = if grad_target.is_some() { size } else { 0 };
        let of_slopes = if subset.bucket && back.is_some() { size } else { 0 };
        with_large("logits of listed classes", 2 * size + of_gradient + of_slopes, |memory| {
            let (data, beside) = memory.split_at_mut(size);
            let (probabilities, beside) = beside.split_at_mut(size);
            let (gradient, slopes) = beside.split_at_mut(of_gradient);
            target.in_order(probabilities);
            if subset.bucket {
                let bucket = Bucket {
                    cpu: self,
                    lists: &lists,
                    rows: &rows,
                    classes: subset.classes,
                    stride: listed.stride,
                    transform: batch.transform,
                    batch: Batch { transform: Transform::IDENTITY, ..batch },
                    upstream: &of_loss,
                    results,
                    backward: back.is_some(),
                };
                let mut columns = Columns { z: data, slopes, probabilities, gradient };
                let gradients = back.map(|back| back.gradients);
                self.through_all((checked, subset), &plan, &rows, gradients, &mut |logits| {
                    bucket.turn(logits, &mut columns)
                })?;
                if let Some(to) = &grad_target {
                    target.write(to, columns.gradient);
                }
                return Ok(());
            }
            listed.logits(data);
            let (classes, stride) = (subset.columns, listed.stride);
            let logits = Logits { rows: all.clone(), classes, stride, data: &mut *data };
            let lines = logits.lines(classes, stride);
            let of_target = match grad_target {
                Some(_) => gradient.as_mut_ptr(),
                None => std::ptr::null_mut(),
            };
            let columns = [logits.data.as_mut_ptr(), probabilities.as_mut_ptr(), of_target];
            let operands = SoftOperands::beside(lines, columns, back.is_some());
            self.soft_cross_entropy_of_rows(&batch, operands, Some(results));
            if let Some(to) = &grad_target {
                target.write(to, gradient);
            }
            back.map_or(Ok(()), |back| listed.gradients(data, back.gradients))
        })??;
        if let Some(buffers) = &mut buffers {
            buffers.finish(&batch.scaling, &Sums::of(&losses), batch.lambda > 0.0);
        }
        Ok(())
    }
}

/// Probabilities as they were given, and of which classes.
struct Targets<'a> {
    cpu: &'a Cpu,
    given: Matrix<'a>,
    lists: &'a Lists,
    /// Elements between rows in the lists' order.
    stride: usize,
    /// Upstream gradients of probabilities, and of logits.
    ratios: [Upstream<'a>; 2],
}

impl Targets<'_> {
    /// Probabilities in the order of the lists; 0 where there is no class.
    fn in_order(&self, to: &mut [f32]) {
        let (to, stride, columns) = (SyncPtr(to.as_mut_ptr()), self.stride, self.lists.columns);
        self.cpu.share(self.lists.rows(), 64, &|row| {
            let sources = self.lists.sources(row);
            // SAFETY: a row of this task alone.
            let q = unsafe { std::slice::from_raw_parts_mut(to.get().add(row * stride), columns) };
            q[sources.len()..].fill(0.0);
            for (q, &source) in q.iter_mut().zip(sources) {
                *q = self.given.element(row, source as usize);
            }
        });
    }

    /// Puts the gradient of probabilities where those are. It was made with the logits' upstream gradient, which
    /// has the temperature in it.
    fn write(&self, to: &Gradient<'_>, from: &[f32]) {
        let [of_target, of_logits] = self.ratios;
        self.cpu.share(self.lists.rows(), 64, &|row| {
            let (own, other) = (f64::from(of_target.of(row)), f64::from(of_logits.of(row)));
            let ratio = if own == other { 1.0 } else { own / other } as f32;
            let made = self.lists.sources(row).iter().zip(&from[row * self.stride..]);
            with_scratch([to.scratch(1)], |[scratch]| {
                // SAFETY: a row of this task alone.
                unsafe {
                    to.rows(row..row + 1, scratch, |out, _| {
                        let out = out.row(0, to.columns);
                        out.fill(0.0);
                        made.for_each(|(&source, g)| out[source as usize] = g * ratio);
                    });
                }
            });
        });
    }
}
