//! Cross entropy against probabilities, or a teacher's logits, on a CUDA device:
//! `kernels/loss/soft_cross_entropy.cu` before a sum.

use crate::base::error::Result;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args::{RowOperands, SoftCrossEntropyArgs};
use crate::code::variants::Loss;
use crate::cuda::loss::cross_entropy::{Results, class_weights, logits, smoothing};
use crate::cuda::schedule::batch::{Census, RowFactors};
use crate::cuda::schedule::blocks::RowTensors;
use crate::cuda::schedule::lines::count;
use crate::cuda::schedule::operands::{ReadRows, WriteRows, along};
use crate::cuda::schedule::rows::{Work, data};
use crate::cuda::schedule::upstream::Upstream;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Input;
use crate::spec::cross_entropy::{
    Checked, CrossEntropy, CrossEntropyGradients, CrossEntropyOut, SoftTarget,
};
use crate::spec::grad_output::GradOutput;

impl Cuda {
    pub(crate) fn soft_cross_entropy_forward(
        &self,
        checked: &Checked<'_, SoftTarget<'_>>,
        logits: TensorRef<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let results = Results::new(self, out.loss, out.z_loss, out.lse)?;
        let x = self.read_rows("logits", logits, along(checked.class_dim))?;
        let call = Call::new(self, checked, &GradOutput::default(), None)?;
        self.soft_rows(checked, call, Work::Forward, (Some(&x), None), Some(results))
    }

    /// Gradients, from logits that are kept or over them, and the loss where there is room for it.
    pub(crate) fn soft_cross_entropy_backward(
        &self,
        checked: &Checked<'_, SoftTarget<'_>>,
        (from, gradients): (Option<TensorRef<'_>>, CrossEntropyGradients<'_>),
        grad_output: GradOutput<'_>,
        out: Option<CrossEntropyOut<'_>>,
    ) -> Result<()> {
        let along = || along(checked.class_dim);
        let CrossEntropyGradients { logits, target } = gradients;
        let results =
            out.map(|out| Results::new(self, out.loss, out.z_loss, out.lse)).transpose()?;
        let (named, over) = if from.is_some() { ("grad_logits", false) } else { ("logits", true) };
        let x = from.map(|from| self.read_rows("logits", from, along())).transpose()?;
        let y = self.write_rows(named, logits, over, along())?;
        let call = Call::new(self, checked, &grad_output, target)?;
        self.soft_rows(checked, call, Work::Fused, (x.as_ref(), Some(y)), results)
    }

    /// Goes through rows of logits and of targets: from `x` to `y`, or over `y`.
    fn soft_rows<'a, 'p: 'a>(
        &'p self,
        checked: &Checked<'_, SoftTarget<'_>>,
        call: Call<'a, 'p>,
        work: Work,
        (x, y): (Option<&ReadRows<'p>>, Option<WriteRows<'a, 'p>>),
        mut results: Option<Results<'a, 'p>>,
    ) -> Result<()> {
        let mut args = call.batch.args(checked)?;
        let rows = (args.rows.count as usize, checked.options.reduction);
        if let Some(results) = &mut results {
            args.out = results.of_rows(self, rows, &args.options)?;
            args.schedule.sum = results.sum(&call.batch.census, &args.out);
        }
        let kernels = (call.batch.loss, data(checked.dtype)?, work);
        let Call { target, grad_target, batch: _batch } = call;
        let beside = Some(&target);
        let tensors = RowTensors { x, upstream: None, beside, y, grad_beside: grad_target };
        // SAFETY: shapes, strides and lengths were checked (`Checked`); outputs are borrowed
        // exclusively.
        let gradients = unsafe { self.go_through(kernels, args, tensors)? };
        let results = results.map(Results::outputs);
        self.read_back(results.into_iter().flatten().chain(gradients))
    }
}

/// A call's tensors besides the logits.
struct Call<'a, 'p> {
    target: ReadRows<'p>,
    grad_target: Option<WriteRows<'a, 'p>>,
    batch: SoftBatch<'p>,
}

/// A call's inputs besides logits and probabilities.
pub(crate) struct SoftBatch<'p> {
    pub(crate) loss: Loss,
    weight: Option<Input<'p>>,
    upstream: Upstream<'p>,
    pub(crate) census: Census<'p>,
}

impl<'a, 'p: 'a> Call<'a, 'p> {
    fn new(
        cuda: &'p Cuda,
        checked: &Checked<'p, SoftTarget<'p>>,
        grad_output: &GradOutput<'p>,
        grad_target: Option<TensorMut<'a>>,
    ) -> Result<Self> {
        let target = cuda.read_rows("target", checked.target.tensor(), along(checked.class_dim))?;
        let factors = RowFactors::default();
        let batch = SoftBatch::new(cuda, checked, grad_output, grad_target.is_some(), factors)?;
        let grad_target = grad_target
            .map(|t| cuda.write_rows("grad_target", t, false, along(checked.class_dim)))
            .transpose()?;
        Ok(Call { target, grad_target, batch })
    }
}

impl<'p> SoftBatch<'p> {
    pub(crate) fn new(
        cuda: &'p Cuda,
        checked: &Checked<'p, SoftTarget<'p>>,
        grad_output: &GradOutput<'p>,
        of_target: bool,
        factors: RowFactors,
    ) -> Result<Self> {
        let options = checked.options;
        let weight = options.class_weight().map(|w| cuda.input("weight", w)).transpose()?;
        let upstream = Upstream::new(cuda, "grad_output", grad_output)?;
        let of = (None, weight.as_ref());
        let census = cuda.census_of_rows(&checked.counting(), of, factors)?;
        Ok(SoftBatch { loss: kernel(options, of_target), weight, upstream, census })
    }

    /// The same, without weights of classes, of rows that somebody else has counted and weighed.
    pub(crate) fn with_census(
        cuda: &'p Cuda,
        checked: &Checked<'_, SoftTarget<'_>>,
        grad_output: &GradOutput<'p>,
        of_target: bool,
        census: Census<'p>,
    ) -> Result<Self> {
        let upstream = Upstream::new(cuda, "grad_output", grad_output)?;
        Ok(SoftBatch { loss: kernel(checked.options, of_target), weight: None, upstream, census })
    }

    /// All but where rows lie.
    pub(crate) fn args(
        &self,
        checked: &Checked<'_, SoftTarget<'_>>,
    ) -> Result<SoftCrossEntropyArgs> {
        let options = checked.options;
        Ok(SoftCrossEntropyArgs {
            rows: RowOperands {
                count: count("target", checked.rows.iter().product())?,
                classes: count("logits", checked.classes)?,
                ..RowOperands::default()
            },
            upstream: self.upstream.args(),
            logits: logits(options),
            weight: class_weights(self.weight.as_ref()),
            options: smoothing(options, checked.classes, &self.census),
            teacher: options.teacher_scale.unwrap_or(0.0),
            ..SoftCrossEntropyArgs::default()
        })
    }
}

/// The kernels, with the gradient of probabilities or without.
fn kernel(options: &CrossEntropy<'_>, of_target: bool) -> Loss {
    let full = options.softcap.is_some()
        || options.label_smoothing > 0.0
        || options.weight.is_some()
        || of_target;
    match options.teacher_scale {
        Some(_) => Loss::Distillation,
        None if full => Loss::SoftCrossEntropyFull,
        None => Loss::SoftCrossEntropy,
    }
}
