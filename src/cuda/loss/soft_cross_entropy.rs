//! Cross entropy against probabilities, or a teacher's logits, on a CUDA device:
//! `kernels/loss/soft_cross_entropy.cu` before a sum.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args::{LogitArgs, RowOperands, SoftCrossEntropyArgs};
use crate::code::variants::Loss;
use crate::cuda::loss::cross_entropy::{class_weights, smoothing};
use crate::cuda::schedule::batch::Census;
use crate::cuda::schedule::blocks::RowTensors;
use crate::cuda::schedule::lines::count;
use crate::cuda::schedule::operands::{ReadRows, WriteRows};
use crate::cuda::schedule::rows::{Work, data};
use crate::cuda::schedule::upstream::Upstream;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::{Input, Output};
use crate::cuda::stream::pool::Block;
use crate::spec::cross_entropy::{Checked, CrossEntropyGradients, CrossEntropyOut, SoftTarget};
use crate::spec::grad_output::GradOutput;

impl Cuda {
    pub(crate) fn soft_cross_entropy_forward(
        &self,
        checked: &Checked<'_, SoftTarget<'_>>,
        logits: TensorRef<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let results = Results::new(self, out)?;
        let x = self.read_rows("logits", logits, along(checked))?;
        let call = Call::new(self, checked, &GradOutput::default(), None)?;
        self.soft_rows(checked, call, Work::Forward, (Some(&x), None), Some(results))
    }

    pub(crate) fn soft_cross_entropy_backward(
        &self,
        checked: &Checked<'_, SoftTarget<'_>>,
        logits: TensorRef<'_>,
        grad_output: GradOutput<'_>,
        gradients: CrossEntropyGradients<'_>,
    ) -> Result<()> {
        let x = self.read_rows("logits", logits, along(checked))?;
        let CrossEntropyGradients { logits, target } = gradients;
        let y = self.write_rows("grad_logits", logits, false, along(checked))?;
        let call = Call::new(self, checked, &grad_output, target)?;
        self.soft_rows(checked, call, Work::Fused, (Some(&x), Some(y)), None)
    }

    /// The gradient over the logits, and the loss where there is room for it.
    pub(crate) fn soft_cross_entropy_in_place(
        &self,
        checked: &Checked<'_, SoftTarget<'_>>,
        gradients: CrossEntropyGradients<'_>,
        grad_output: GradOutput<'_>,
        out: Option<CrossEntropyOut<'_>>,
    ) -> Result<()> {
        let CrossEntropyGradients { logits, target } = gradients;
        let results = out.map(|out| Results::new(self, out)).transpose()?;
        let x = self.write_rows("logits", logits, true, along(checked))?;
        let call = Call::new(self, checked, &grad_output, target)?;
        self.soft_rows(checked, call, Work::Fused, (None, Some(x)), results)
    }

    /// Goes through rows of logits and of targets: from `x` to `y`, or over `y`.
    fn soft_rows<'a, 'p: 'a>(
        &'p self,
        checked: &Checked<'_, SoftTarget<'_>>,
        call: Call<'a, 'p>,
        work: Work,
        (x, y): (Option<&ReadRows<'p>>, Option<WriteRows<'a, 'p>>),
        results: Option<Results<'a, 'p>>,
    ) -> Result<()> {
        let mut args = call.args(checked)?;
        let (rows, workspace) = (args.rows.count as usize, self.losses_of_rows(checked)?);
        let mut sums = None;
        if let Some(Results { loss, z_loss, lse }) = &results {
            let wants_z = args.options.lambda > 0.0;
            let out = &mut args.out;
            out.lse = lse.as_ref().map_or(0, |t| t.address);
            let z_loss = z_loss.as_ref().map_or(0, |t| t.address);
            match &workspace {
                None => (out.loss, out.z_loss, out.whole) = (loss.address, z_loss, 1),
                Some(workspace) => {
                    (out.loss, out.wide) = (workspace.address(), 1);
                    out.z_loss = if wants_z { out.loss + 8 * rows as u64 } else { 0 };
                    sums = Some(([out.loss, out.z_loss], [loss.address, z_loss]));
                }
            }
        }
        let kernels = (call.loss, data(checked.dtype)?, work);
        let Call { target, grad_target, census, weight: _weight, upstream: _upstream, .. } = call;
        let beside = Some(&target);
        let tensors = RowTensors { x, upstream: None, beside, y, grad_beside: grad_target };
        // SAFETY: shapes, strides and lengths were checked (`Checked`); outputs are borrowed
        // exclusively.
        let gradients = unsafe { self.go_through(kernels, args, tensors)? };
        if let Some((rows, out)) = sums {
            self.sum(&census, (rows, true), out)?;
        }
        let results = results.map(|Results { loss, z_loss, lse }| [Some(loss), z_loss, lse]);
        self.read_back(results.into_iter().flatten().chain(gradients))
    }

    /// Workspace for the losses and z-losses of rows (f64) that are summed up; none where they are
    /// results themselves.
    fn losses_of_rows(&self, checked: &Checked<'_, SoftTarget<'_>>) -> Result<Option<Block<'_>>> {
        match checked.options.reduction {
            Reduction::None => Ok(None),
            Reduction::Sum | Reduction::Mean | Reduction::BatchMean => {
                let rows: usize = checked.rows.iter().product();
                self.pool.take("workspace", rows * 16).map(Some)
            }
        }
    }
}

/// The dimension of classes.
fn along(checked: &Checked<'_, SoftTarget<'_>>) -> impl Fn(usize) -> bool + use<> {
    let class_dim = checked.class_dim;
    move |d| d == class_dim
}

/// Where a forward pass writes.
struct Results<'a, 'p> {
    loss: Output<'a, 'p>,
    z_loss: Option<Output<'a, 'p>>,
    lse: Option<Output<'a, 'p>>,
}

impl<'a, 'p: 'a> Results<'a, 'p> {
    fn new(cuda: &'p Cuda, out: CrossEntropyOut<'a>) -> Result<Self> {
        Ok(Results {
            loss: cuda.output("loss", out.loss, false)?,
            z_loss: out.z_loss.map(|t| cuda.output("z_loss", t, false)).transpose()?,
            lse: out.lse.map(|t| cuda.output("lse", t, false)).transpose()?,
        })
    }
}

/// A call's tensors besides the logits.
struct Call<'a, 'p> {
    loss: Loss,
    target: ReadRows<'p>,
    grad_target: Option<WriteRows<'a, 'p>>,
    weight: Option<Input<'p>>,
    upstream: Upstream<'p>,
    census: Census<'p>,
}

impl<'a, 'p: 'a> Call<'a, 'p> {
    fn new(
        cuda: &'p Cuda,
        checked: &Checked<'p, SoftTarget<'p>>,
        grad_output: &GradOutput<'p>,
        grad_target: Option<TensorMut<'a>>,
    ) -> Result<Self> {
        let options = checked.options;
        let target = cuda.read_rows("target", checked.target.tensor(), along(checked))?;
        let weight = options.weight.map(|w| cuda.input("weight", w)).transpose()?;
        let upstream = Upstream::new(cuda, "grad_output", grad_output)?;
        let full = options.softcap.is_some()
            || options.label_smoothing > 0.0
            || weight.is_some()
            || grad_target.is_some();
        let loss = match options.teacher_scale {
            Some(_) => Loss::Distillation,
            None if full => Loss::SoftCrossEntropyFull,
            None => Loss::SoftCrossEntropy,
        };
        let grad_target = grad_target
            .map(|t| cuda.write_rows("grad_target", t, false, along(checked)))
            .transpose()?;
        let census = cuda.census(&checked.counting(), None, weight.as_ref())?;
        Ok(Call { loss, target, grad_target, weight, upstream, census })
    }

    /// All but where rows lie.
    fn args(&self, checked: &Checked<'_, SoftTarget<'_>>) -> Result<SoftCrossEntropyArgs> {
        let options = checked.options;
        Ok(SoftCrossEntropyArgs {
            rows: RowOperands {
                count: count("target", checked.rows.iter().product())?,
                classes: count("logits", checked.classes)?,
                ..RowOperands::default()
            },
            upstream: self.upstream.args(),
            logits: LogitArgs::new(options.logit_scale, options.softcap),
            weight: class_weights(self.weight.as_ref()),
            options: smoothing(options, checked.classes, &self.census),
            teacher: options.teacher_scale.unwrap_or(0.0),
            ..SoftCrossEntropyArgs::default()
        })
    }
}
