//! Distillation from hidden states on the CPU: the divergence of two rows of logits, a chunk of both at a time.

mod plan;

use crate::base::error::Result;
use crate::base::host::HostRef;
use crate::base::reduction::Reduction;
use crate::base::tensor::TensorMut;
use crate::cpu::batch::numbers::Upstream;
use crate::cpu::loss::js_div_logits::{Batch, Scale};
use crate::cpu::loss::linear_cross_entropy::rows::{temperatures, weights};
use crate::cpu::matrix::chunks::{Chunks, Gradients, Walk, clear_rows};
use crate::cpu::matrix::gradient::Gradient;
use crate::cpu::matrix::product::Matrix;
use crate::cpu::matrix::scratch::{with_large, zeros};
use crate::cpu::processor::{Cpu, host_f32};
use crate::spec::grad_output::GradOutput;
use crate::spec::linear_cross_entropy::LinearGradOut;
use crate::spec::linear_distillation::{Call, CheckedDistillation, CheckedHead, wanted};
use std::ops::Range;

impl Cpu {
    pub(crate) fn linear_distillation(
        &self,
        checked: &CheckedDistillation<'_>,
        call: Call<'_>,
    ) -> Result<()> {
        let (grad_output, gradients, loss) = match call {
            Call::Forward { loss } => (GradOutput::default(), None, Some(loss)),
            Call::Backward { grad_output, gradients, loss } => {
                (grad_output, Some([gradients.student, gradients.teacher]), loss)
            }
        };
        let back = gradients.as_ref().map_or([false; 2], |sides| sides.each_ref().map(wanted));
        let chunking = self.distillation_chunks(checked, back)?;
        let upstream = Upstream::new(&grad_output)?;
        let batch = Batch::new(self, &checked.of_rows, upstream)?;
        let rows = Rows::new(checked, &batch, &upstream)?;
        let batch = batch.weighing(&checked.of_rows, rows.weight());

        let heads = [&checked.student, &checked.teacher];
        let biases = [bias(self, heads[0])?, bias(self, heads[1])?];
        let sides = [0, 1].map(|side| {
            side_of(self, heads[side], biases[side].as_deref(), (&rows, chunking.plan.chunk_rows))
        });
        let [student, teacher] = sides;
        let sides = [student?, teacher?];
        let mut into = [None, None];
        for ((to, out), head) in into.iter_mut().zip(gradients.into_iter().flatten()).zip(heads) {
            let named = wanted(&out).then(|| gradients_of(self, head, out, chunking.wide));
            *to = named.transpose()?;
        }
        let mut losses = vec![0.0; rows.kept.len()];
        let mut teacher = Walk::new(&sides[1], into[1].as_ref())?;
        with_large("the teacher's logits", teacher.memory(), |memory| {
            sides[0].run(into[0].as_ref(), &mut |mut x| {
                let of = x.rows.clone();
                teacher.step(of.clone(), memory, &mut |y| {
                    let part = batch.part(rows.upstream(&of), rows.scales(&of));
                    let losses = &mut losses[of.clone()];
                    self.js_div_of_rows(&part, [x.again(), y], back, losses);
                    Ok(())
                })
            })
        })??;
        teacher.settle();
        for gradients in into.iter().flatten() {
            if let Some(input) = &gradients.input {
                clear_rows(self, input, &rows.ignored);
            }
        }
        loss.map_or(Ok(()), |loss| rows.reduce(checked, &batch, &losses, loss))
    }
}

/// The rows that count, those that do not, and what is known of each.
struct Rows<'a> {
    kept: Vec<usize>,
    ignored: Vec<usize>,
    weights: Option<&'a [f32]>,
    /// One for each kept row, with its weight in it; or one number for all.
    upstream: (f32, Option<Vec<f32>>),
    /// The same of what multiplies logits, of student and teacher.
    scales: [(f32, Option<Vec<f32>>); 2],
}

impl<'a> Rows<'a> {
    fn new(
        checked: &CheckedDistillation<'a>,
        batch: &Batch<'_>,
        upstream: &Upstream<'_>,
    ) -> Result<Rows<'a>> {
        let (kept, ignored): (Vec<usize>, Vec<usize>) =
            (0..checked.rows()).partition(|&row| batch.keeps(row));
        let options = checked.of_rows.options;
        let over = |head: &CheckedHead<'a>, scale: f32| -> Result<_> {
            let given = temperatures(head.names.temperature, head.of.temperature, &kept)?;
            let each = |given: &[f32]| {
                let one = |&row: &usize| (f64::from(scale) / f64::from(given[row])) as f32;
                kept.iter().map(one).collect()
            };
            Ok((scale, given.map(each)))
        };
        let scales = [
            over(&checked.student, options.logit_scale)?,
            over(&checked.teacher, options.teacher_scale)?,
        ];
        let weights = weights(checked.row_weight, &kept)?;
        let upstream = match (upstream, weights) {
            (Upstream::Number(number), None) => (*number, None),
            _ => {
                let one = |&row: &usize| {
                    let weight = weights.map_or(1.0, |weights| f64::from(weights[row]));
                    // What has no weight has no gradient, whatever the upstream one.
                    if weight == 0.0 { 0.0 } else { (f64::from(upstream.of(row)) * weight) as f32 }
                };
                (0.0, Some(kept.iter().map(one).collect()))
            }
        };
        Ok(Rows { kept, ignored, weights, upstream, scales })
    }

    /// Of all rows that count.
    fn weight(&self) -> f64 {
        match self.weights {
            Some(weights) => self.kept.iter().map(|&row| f64::from(weights[row])).sum(),
            None => self.kept.len() as f64,
        }
    }

    /// Of some of them.
    fn upstream(&self, rows: &Range<usize>) -> Upstream<'_> {
        match &self.upstream {
            (number, None) => Upstream::Number(*number),
            (_, Some(each)) => Upstream::PerRow(HostRef::F32(&each[rows.clone()])),
        }
    }

    fn scales(&self, rows: &Range<usize>) -> [Scale<'_>; 2] {
        self.scales.each_ref().map(|(number, each)| match each {
            None => Scale::Number(*number),
            Some(each) => Scale::Each(&each[rows.clone()]),
        })
    }

    /// Writes the result of the divergences of rows that count.
    fn reduce(
        &self,
        checked: &CheckedDistillation<'_>,
        batch: &Batch<'_>,
        losses: &[f64],
        out: TensorMut<'_>,
    ) -> Result<()> {
        let out = host_f32(out, "loss")?;
        let weighted = self.kept.iter().zip(losses).map(|(&row, &loss)| {
            // A weight of 0 silences an infinite loss.
            let of = |weight: f32| if weight == 0.0 { 0.0 } else { f64::from(weight) * loss };
            (row, self.weights.map_or(loss, |weights| of(weights[row])))
        });
        if checked.of_rows.options.reduction == Reduction::None {
            self.ignored.iter().for_each(|&row| out[row] = 0.0);
            weighted.for_each(|(row, loss)| out[row] = batch.loss(loss));
        } else {
            out[0] = batch.mean(weighted.map(|(_, loss)| loss).sum());
        }
        Ok(())
    }
}

/// A side's bias in f32.
fn bias(cpu: &Cpu, head: &CheckedHead<'_>) -> Result<Option<Vec<f32>>> {
    let Some(tensor) = &head.of.linear_bias else { return Ok(None) };
    let mut wide = zeros("bias in f32", tensor.elements())?;
    Matrix::new(cpu, head.names.bias, tensor)?.widen(0, &mut wide);
    Ok(Some(wide))
}

/// A side's hidden rows and its classifier.
fn side_of<'a>(
    cpu: &'a Cpu,
    head: &CheckedHead<'a>,
    bias: Option<&'a [f32]>,
    (rows, chunk): (&'a Rows<'_>, usize),
) -> Result<Chunks<'a>> {
    Ok(Chunks {
        cpu,
        input: Matrix::new(cpu, head.names.input, &head.of.input)?,
        rows: &rows.kept,
        weight: Matrix::new(cpu, head.names.weight, &head.of.linear_weight)?,
        bias,
        scales: None,
        chunk,
    })
}

/// Where a side's gradients go.
fn gradients_of<'a>(
    cpu: &Cpu,
    head: &CheckedHead<'_>,
    out: LinearGradOut<'a>,
    wide: bool,
) -> Result<Gradients<'a>> {
    let names = head.names;
    let LinearGradOut { accumulate, accumulate_input, .. } = out;
    let new = |name, to: Option<TensorMut<'a>>, add| {
        to.map(|to| Gradient::new(cpu, name, to, add)).transpose()
    };
    Ok(Gradients {
        input: new(names.grad_input, out.input, accumulate_input)?,
        weight: new(names.grad_weight, out.linear_weight, accumulate)?,
        bias: new(names.grad_bias, out.linear_bias, accumulate)?,
        wide,
    })
}
