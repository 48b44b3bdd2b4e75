//! Cross entropy against probabilities, or a teacher's logits, on a CUDA device:
//! `kernels/loss/soft_cross_entropy.cu` before a sum.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args::{BesideArgs, LogitArgs, RowOperands, SoftCrossEntropyArgs};
use crate::code::variants::Loss;
use crate::cuda::loss::cross_entropy::{class_weights, smoothing};
use crate::cuda::schedule::batch::Census;
use crate::cuda::schedule::lines::{Lines, Rows, count};
use crate::cuda::schedule::rows::{Work, data};
use crate::cuda::schedule::upstream::Upstream;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::{Input, Output};
use crate::spec::cross_entropy::{Checked, CrossEntropyGradients, CrossEntropyOut, SoftTarget};
use crate::spec::grad_output::GradOutput;

impl Cuda {
    pub(crate) fn soft_cross_entropy_forward(
        &self,
        checked: &Checked<'_, SoftTarget<'_>>,
        logits: TensorRef<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let x = self.input("logits", logits)?;
        let rows = self.rows_in(&x, &lines(checked, &x.shape, x.row_stride))?;
        let operands = rows.read();
        let results = Results::new(self, out)?;
        let call = Call::new(self, checked, &GradOutput::default(), None)?;
        self.soft_losses(checked, &call, operands, Work::Forward, results)
    }

    pub(crate) fn soft_cross_entropy_backward(
        &self,
        checked: &Checked<'_, SoftTarget<'_>>,
        logits: TensorRef<'_>,
        grad_output: GradOutput<'_>,
        gradients: CrossEntropyGradients<'_>,
    ) -> Result<()> {
        let x = self.input("logits", logits)?;
        let rows = self.rows_in(&x, &lines(checked, &x.shape, x.row_stride))?;
        let CrossEntropyGradients { logits, target } = gradients;
        let y = Written::new(self, checked, "grad_logits", logits, false)?;
        let call = Call::new(self, checked, &grad_output, target)?;
        let args = call.args(checked, rows.to(&y.rows))?;
        // SAFETY: shapes, strides and lengths were checked; outputs are borrowed exclusively.
        unsafe { self.go(call.loss, data(checked.dtype)?, Work::Fused, args)? };
        let target = call.target_gradient.map(|t| t.settle(self)).transpose()?;
        let y = y.settle(self)?;
        self.read_back([Some(y), target])
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
        let x = Written::new(self, checked, "logits", logits, true)?;
        let results = out.map(|out| Results::new(self, out)).transpose()?;
        let mut call = Call::new(self, checked, &grad_output, target)?;
        let operands = x.rows.to(&x.rows);
        match results {
            // The gradients go to the host after the losses have: an error that a kernel found
            // comes before anything is written.
            Some(results) => self.soft_losses(checked, &call, operands, Work::Fused, results)?,
            None => {
                let args = call.args(checked, operands)?;
                // SAFETY: shapes, strides and lengths were checked (`Checked`); the logits, which
                // are overwritten, are borrowed exclusively.
                unsafe { self.go(call.loss, data(checked.dtype)?, Work::Fused, args)? };
            }
        }
        let target = call.target_gradient.take().map(|t| t.settle(self)).transpose()?;
        let x = x.settle(self)?;
        self.read_back([Some(x), target])
    }

    /// Loss and what else is asked for, and gradients where the arguments have room for them.
    fn soft_losses(
        &self,
        checked: &Checked<'_, SoftTarget<'_>>,
        call: &Call<'_, '_>,
        operands: RowOperands,
        work: Work,
        results: Results<'_, '_>,
    ) -> Result<()> {
        let Results { loss, z_loss, lse } = results;
        let mut args = call.args(checked, operands)?;
        let out = &mut args.out;
        out.lse = lse.as_ref().map_or(0, |t| t.address);
        let z_loss_out = z_loss.as_ref().map_or(0, |t| t.address);
        let rows = args.rows.count as usize;
        let workspace;
        let summed = match checked.options.reduction {
            Reduction::None => {
                (out.loss, out.z_loss, out.whole) = (loss.address, z_loss_out, 1);
                None
            }
            Reduction::Sum | Reduction::Mean | Reduction::BatchMean => {
                workspace = self.pool.take("workspace", rows * 16)?;
                (out.loss, out.wide) = (workspace.address(), 1);
                let wants_z = args.options.lambda > 0.0;
                out.z_loss = if wants_z { out.loss + 8 * rows as u64 } else { 0 };
                Some([out.loss, out.z_loss])
            }
        };
        // SAFETY: shapes, strides and lengths were checked; outputs are borrowed exclusively.
        unsafe { self.go(call.loss, data(checked.dtype)?, work, args)? };
        if let Some(rows) = summed {
            self.sum(&call.census, (rows, true), [loss.address, z_loss_out])?;
        }
        self.read_back([Some(loss), z_loss, lse])
    }
}

/// Rows of logits, of targets, or of their gradients.
fn lines(checked: &Checked<'_, SoftTarget<'_>>, shape: &Shape, row_stride: usize) -> Lines {
    Lines::new(shape, row_stride, |d| d == checked.class_dim)
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

/// A tensor whose rows are written.
struct Written<'a, 'p> {
    tensor: Output<'a, 'p>,
    rows: Rows<'p>,
    lines: Lines,
}

impl<'a, 'p: 'a> Written<'a, 'p> {
    fn new(
        cuda: &'p Cuda,
        checked: &Checked<'_, SoftTarget<'_>>,
        argument: &'static str,
        tensor: TensorMut<'a>,
        read: bool,
    ) -> Result<Self> {
        let tensor = cuda.output(argument, tensor, read)?;
        let lines = lines(checked, &tensor.shape, tensor.row_stride);
        let rows = cuda.rows_out(&tensor, &lines, read)?;
        Ok(Written { tensor, rows, lines })
    }

    /// Brings the rows to where the tensor has them.
    fn settle(self, cuda: &Cuda) -> Result<Output<'a, 'p>> {
        cuda.settle(self.rows, &self.tensor, &self.lines)?;
        Ok(self.tensor)
    }
}

/// A call's tensors besides the logits.
struct Call<'a, 'p> {
    loss: Loss,
    _target: Input<'p>,
    target: Rows<'p>,
    target_gradient: Option<Written<'a, 'p>>,
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
        let input = cuda.input("target", checked.target.tensor())?;
        let target = cuda.rows_in(&input, &lines(checked, &input.shape, input.row_stride))?;
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
        let target_gradient = grad_target
            .map(|t| Written::new(cuda, checked, "grad_target", t, false))
            .transpose()?;
        let census = cuda.census(&checked.counting(), None, weight.as_ref())?;
        let _target = input;
        Ok(Call { loss, _target, target, target_gradient, weight, upstream, census })
    }

    fn args(
        &self,
        checked: &Checked<'_, SoftTarget<'_>>,
        rows: RowOperands,
    ) -> Result<SoftCrossEntropyArgs> {
        let options = checked.options;
        let mut target = BesideArgs { values: self.target.address, ..BesideArgs::default() };
        target.stride = self.target.stride as i64;
        if let Some(gradient) = &self.target_gradient {
            target.gradient = gradient.rows.address;
            target.gradient_stride = gradient.rows.stride as i64;
        }
        Ok(SoftCrossEntropyArgs {
            rows: RowOperands {
                count: count("target", checked.rows.iter().product())?,
                classes: count("logits", checked.classes)?,
                ..rows
            },
            upstream: self.upstream.args(),
            logits: LogitArgs::new(options.logit_scale, options.softcap),
            target,
            weight: class_weights(self.weight.as_ref()),
            options: smoothing(options, checked.classes, &self.census),
            teacher: options.teacher_scale.unwrap_or(0.0),
            ..SoftCrossEntropyArgs::default()
        })
    }
}
