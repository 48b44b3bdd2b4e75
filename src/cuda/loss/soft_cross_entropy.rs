//! Cross entropy against probabilities, or a teacher's logits, on a CUDA device:
//! `kernels/loss/soft_cross_entropy.cu` before a sum.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args;
use crate::code::args::RowArgs;
use crate::code::variants::Loss;
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
        let args = RowArgs { x: rows.address, x_stride: rows.stride as i64, ..RowArgs::default() };
        let results = Results::new(self, out)?;
        let call = Call::new(self, checked, &GradOutput::default(), None)?;
        self.soft_losses(checked, &call, args, Work::Forward, results)
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
        let mut args = RowArgs {
            x: rows.address,
            x_stride: rows.stride as i64,
            y: y.rows.address,
            y_stride: y.rows.stride as i64,
            ..RowArgs::default()
        };
        call.fill(checked, &mut args)?;
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
        let (address, stride) = (x.rows.address, x.rows.stride as i64);
        let mut args = RowArgs {
            x: address,
            y: address,
            x_stride: stride,
            y_stride: stride,
            ..RowArgs::default()
        };
        match results {
            // The gradients go to the host after the losses have: an error that a kernel found
            // comes before anything is written.
            Some(results) => self.soft_losses(checked, &call, args, Work::Fused, results)?,
            None => {
                call.fill(checked, &mut args)?;
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
        mut args: RowArgs,
        work: Work,
        results: Results<'_, '_>,
    ) -> Result<()> {
        let Results { loss, z_loss, lse } = results;
        call.fill(checked, &mut args)?;
        args.lse = lse.as_ref().map_or(0, |t| t.address);
        let z_loss_out = z_loss.as_ref().map_or(0, |t| t.address);
        let rows = args.rows as usize;
        let workspace;
        let summed = match checked.options.reduction {
            Reduction::None => {
                (args.loss, args.z_loss, args.whole) = (loss.address, z_loss_out, 1);
                None
            }
            Reduction::Sum | Reduction::Mean | Reduction::BatchMean => {
                workspace = self.pool.take("workspace", rows * 16)?;
                (args.loss, args.wide) = (workspace.address(), 1);
                args.z_loss = if args.lambda > 0.0 { args.loss + 8 * rows as u64 } else { 0 };
                Some([args.loss, args.z_loss])
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

    fn fill(&self, checked: &Checked<'_, SoftTarget<'_>>, args: &mut RowArgs) -> Result<()> {
        let options = checked.options;
        let epsilon = options.label_smoothing;
        (args.target, args.target_stride) = (self.target.address, self.target.stride as i64);
        if let Some(gradient) = &self.target_gradient {
            args.grad_target = gradient.rows.address;
            args.grad_target_stride = gradient.rows.stride as i64;
        }
        if let Some(weight) = &self.weight {
            (args.weight, args.weight_kind) = (weight.address, args::kind(weight.dtype));
        }
        let upstream = self.upstream.fields();
        (args.upstream, args.upstream_stride) = (upstream.address, upstream.stride);
        (args.upstream_kind, args.number) = (upstream.kind, upstream.number);
        args.totals = self.census.totals();
        args.rows = count("target", checked.rows.iter().product())?;
        args.classes = count("logits", checked.classes)?;
        args.transform(options.logit_scale, options.softcap);
        args.hard = (1.0 - epsilon) as f32;
        args.soft = if epsilon > 0.0 { (epsilon / checked.classes as f64) as f32 } else { 0.0 };
        args.lambda = options.lse_square_scale;
        args.mean = (options.reduction == Reduction::Mean).into();
        args.teacher = options.teacher_scale.unwrap_or(0.0);
        Ok(())
    }
}
