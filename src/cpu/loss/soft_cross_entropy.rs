//! Cross entropy against probabilities, or a teacher's logits, on the CPU: rows of logits and of
//! targets side by side, each brought from memory once.

mod batch;
mod short;

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::lines::Lines;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::batch::lines::{
    Line, LineOp, Operands, Sink, Source, each_line_of, host_like, kept,
};
use crate::cpu::batch::numbers::{Sums, Upstream};
use crate::cpu::batch::results::{Buffers, Results};
use crate::cpu::batch::targets::with_weights;
use crate::cpu::batch::tiles::{each_tile_of, short};
use crate::cpu::loss::log_softmax::fill;
pub(crate) use crate::cpu::loss::soft_cross_entropy::batch::Batch;
use crate::cpu::loss::soft_cross_entropy::short::Short;
use crate::cpu::processor::{Cpu, each_float};
use crate::cpu::row::soft_row::{SoftKept, SoftRow, Teacher};
use crate::cpu::simd::Lanes;
use crate::spec::cross_entropy::{Checked, CrossEntropyGradients, CrossEntropyOut, SoftTarget};
use crate::spec::grad_output::GradOutput;

/// Cross entropy of a line: its results where there are any, gradients where the line has outputs.
struct Soft<'a> {
    cpu: &'a Cpu,
    batch: &'a Batch<'a>,
    weights: crate::cpu::threads::SyncPtr<f32>,
    results: Option<Results>,
}

impl LineOp for Soft<'_> {
    type Sum = Sums;

    unsafe fn line<X: Lanes, A: Lanes, Y: Lanes>(&self, line: Line<X, A, Y>, sums: &mut Sums) {
        let batch = self.batch;
        // Tensors of a call have one dtype.
        debug_assert!(X::DTYPE == A::DTYPE && X::DTYPE == Y::DTYPE);
        let teacher = batch.teacher.map(|scale| Teacher { scale });
        let row = SoftRow {
            level: self.cpu.level,
            spread: line.spread,
            transform: batch.transform,
            x: line.x.cast_mut(),
            target: line.a.cast::<X>(),
            len: line.len,
            weights: self.weights.get(),
            weight_sum: batch.weight_sum,
            teacher,
            hard: batch.hard,
            soft: batch.soft,
        };
        let (out, out_target) = (line.y.cast::<X>(), line.b.cast::<X>());
        // SAFETY: the caller's contract for the line, and results have an element a row.
        unsafe {
            // In place on f32 exponentials stay where the logits were, unless the logits are
            // needed once more.
            let keep = out == row.x && out_target.is_null() && X::DTYPE == DType::F32;
            let mut kept = SoftKept::new();
            let sum = row.sum(keep, &mut kept);
            if let Some(results) = &self.results {
                let losses = if line.len == 0 { (0.0, 0.0) } else { batch.loss(&sum) };
                results.put(line.index, losses, sum.lse() as f32, sums);
            }
            if out.is_null() {
                return;
            }
            if sum.undefined() {
                fill(&line, f32::NAN);
                if !out_target.is_null() {
                    let nan = X::from_f32(f32::NAN);
                    (0..line.len).for_each(|i| out_target.add(i).write(nan));
                }
                return;
            }
            let (g, g_z) = batch.scaling.upstream(line.index);
            let z = if batch.lambda > 0.0 { g_z * 2.0 * batch.lambda * sum.lse() } else { 0.0 };
            row.gradient((out, out_target), &sum, &kept, (g * batch.unit, z));
        }
    }

    fn merge(total: &mut Sums, part: &Sums) {
        total.add(part);
    }
}

/// Layout of rows of logits or of targets.
fn rows(checked: &Checked<'_, SoftTarget<'_>>, tensor: &TensorRef<'_>) -> Lines {
    Lines::new(&tensor.shape(), tensor.row_stride(), |d| d == checked.class_dim)
}

/// Where a call's gradients go.
pub(crate) struct Outputs<T> {
    pub(crate) logits: Option<Sink<T>>,
    pub(crate) target: Option<Sink<T>>,
}

/// Rows of logits and of probabilities, and where their gradients go.
pub(crate) struct SoftOperands<T> {
    pub(crate) x: Source<T>,
    pub(crate) target: Source<T>,
    pub(crate) outputs: Outputs<T>,
}

impl<T> SoftOperands<T> {
    /// Logits, probabilities and (or null) the gradient of those, which all lie alike; that of the logits is in place
    /// where there is a backward pass.
    pub(crate) fn beside(lines: Lines, [x, target, gradient]: [*mut T; 3], backward: bool) -> Self {
        let sink = |base| Sink { base, lines };
        SoftOperands {
            x: Source { base: x.cast_const(), lines },
            target: Source { base: target.cast_const(), lines },
            outputs: Outputs {
                logits: backward.then(|| sink(x)),
                target: (!gradient.is_null()).then(|| sink(gradient)),
            },
        }
    }
}

impl Cpu {
    fn soft<T: Lanes>(
        &self,
        checked: &Checked<'_, SoftTarget<'_>>,
        batch: &Batch<'_>,
        x: Source<T>,
        outputs: Outputs<T>,
        results: Option<Results>,
    ) -> Result<Sums> {
        let target =
            checked.target.tensor().host::<T>().ok_or(crate::base::error::Error::Place {
                argument: "target",
                expected: "host",
                got: "device",
            })?;
        let lines = rows(checked, &checked.target.tensor());
        let target = Source { base: target.as_ptr(), lines };
        let operands = SoftOperands { x, target, outputs };
        Ok(self.soft_cross_entropy_of_rows(batch, operands, results))
    }

    /// Goes through rows of logits beside those of probabilities, whose batch this is.
    pub(crate) fn soft_cross_entropy_of_rows<T: Lanes>(
        &self,
        batch: &Batch<'_>,
        SoftOperands { x, target, outputs }: SoftOperands<T>,
        results: Option<Results>,
    ) -> Sums {
        let operands = Operands { x, a: Some(target), y: outputs.logits, b: outputs.target };
        with_weights(batch.weights, (batch.classes, batch.unit), true, |weights| {
            if short(&operands.x) {
                let gradients = [operands.y.is_some(), operands.b.is_some()];
                let op = Short { level: self.level, batch, weights, results, gradients };
                // SAFETY: views hold their shapes, which were checked to agree; outputs are borrowed
                // exclusively, and in place the output is the input itself.
                return unsafe { each_tile_of(self, operands, &op) };
            }
            let op = Soft { cpu: self, batch, weights, results };
            // SAFETY: views hold their shapes, which were checked to agree; outputs are borrowed
            // exclusively, and in place the output is the input itself.
            unsafe { each_line_of(self, operands, &op) }
        })
    }

    pub(crate) fn soft_cross_entropy_forward(
        &self,
        checked: &Checked<'_, SoftTarget<'_>>,
        logits: TensorRef<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let batch = Batch::new(checked, Upstream::Number(1.0))?;
        let mut buffers = Buffers::new(out)?;
        let results = Some(buffers.results(batch.scaling.reduction));
        let lines = rows(checked, &logits);
        let sums = each_float!(logits.host_data(), "logits", HostRef, x => {
            let x = Source { base: x.as_ptr(), lines };
            self.soft(checked, &batch, x, Outputs { logits: None, target: None }, results)
        })?;
        buffers.finish(&batch.scaling, &sums, batch.lambda > 0.0);
        Ok(())
    }

    /// Gradients, from logits that are kept or over them, and the loss where there is room for it.
    pub(crate) fn soft_cross_entropy_backward(
        &self,
        checked: &Checked<'_, SoftTarget<'_>>,
        (from, gradients): (Option<TensorRef<'_>>, CrossEntropyGradients<'_>),
        grad_output: GradOutput<'_>,
        out: Option<CrossEntropyOut<'_>>,
    ) -> Result<()> {
        let batch = Batch::new(checked, Upstream::new(&grad_output)?)?;
        let mut buffers = out.map(Buffers::new).transpose()?;
        let results = buffers.as_mut().map(|b| b.results(batch.scaling.reduction));
        let lines = rows(checked, &gradients.logits.as_ref());
        let named = if from.is_some() { "grad_logits" } else { "logits" };
        let sums = each_float!(gradients.logits.into_host_data(), named, HostMut, y => {
            let base = y.as_mut_ptr();
            let mut x = Source { base: base.cast_const(), lines };
            if let Some(from) = from {
                x = Source { base: kept(&x, from)?.as_ptr(), lines: rows(checked, &from) };
            }
            let target = sink(checked, &x, gradients.target)?;
            let outputs = Outputs { logits: Some(Sink { base, lines }), target };
            self.soft(checked, &batch, x, outputs, results)
        })?;
        if let Some(buffers) = &mut buffers {
            buffers.finish(&batch.scaling, &sums, batch.lambda > 0.0);
        }
        Ok(())
    }
}

/// Where the gradient of probabilities goes.
fn sink<T: Lanes>(
    checked: &Checked<'_, SoftTarget<'_>>,
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
