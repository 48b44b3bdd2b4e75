//! Cross entropy on a CUDA device: `kernels/cross_entropy.cu` between a census and a sum.

use super::Cuda;
use super::args::{self, RowArgs};
use super::lines::{Lines, count};
use super::memory::Input;
use super::ranks::Ranks;
use super::rows::{Work, data};
use super::variants::Loss;
use crate::loss::{Checked, GradOutput};
use crate::{CrossEntropyOut, Reduction, Result, Shape, TensorMut, TensorRef};

impl Cuda {
    pub(crate) fn cross_entropy_forward(
        &self,
        checked: &Checked<'_>,
        logits: TensorRef<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let x = self.input("logits", logits)?;
        let lines = lines(checked, &x.shape, x.row_stride);
        let rows = self.rows_in(&x, &lines)?;
        let args = RowArgs { x: rows.address, x_stride: rows.stride as i64, ..RowArgs::default() };
        self.with_losses(checked, args, &GradOutput::default(), Work::Forward, out, None)
    }

    pub(crate) fn cross_entropy_forward_backward(
        &self,
        checked: &Checked<'_>,
        logits: TensorMut<'_>,
        grad_output: GradOutput<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        self.with_losses(checked, RowArgs::default(), &grad_output, Work::Fused, out, Some(logits))
    }

    /// Loss and what else `out` asks for; in place on `logits` where there are any.
    fn with_losses(
        &self,
        checked: &Checked<'_>,
        mut args: RowArgs,
        grad_output: &GradOutput<'_>,
        work: Work,
        out: CrossEntropyOut<'_>,
        logits: Option<TensorMut<'_>>,
    ) -> Result<()> {
        let reduction = checked.options.reduction;
        let loss = self.output("loss", out.loss, false)?;
        let z_loss = out.z_loss.map(|t| self.output("z_loss", t, false)).transpose()?;
        let lse = out.lse.map(|t| self.output("lse", t, false)).transpose()?;
        let ranks = Ranks::new(self, checked.classes, out.argmax, out.rank)?;
        let logits = logits.map(|t| self.output("logits", t, true)).transpose()?;
        let batch = Batch::new(self, checked, grad_output)?;
        batch.fill(checked, &mut args)?;

        let written = match &logits {
            Some(x) => {
                let lines = lines(checked, &x.shape, x.row_stride);
                let rows = self.rows_out(x, &lines, true)?;
                (args.x, args.y) = (rows.address, rows.address);
                (args.x_stride, args.y_stride) = (rows.stride as i64, rows.stride as i64);
                Some((rows, lines))
            }
            None => None,
        };
        args.lse = lse.as_ref().map_or(0, |t| t.address);
        ranks.fill(&mut args);
        let kernel = if ranks.wanted() { Loss::CrossEntropyRanked } else { batch.loss };
        let z_loss_out = z_loss.as_ref().map_or(0, |t| t.address);
        // Without a z-loss its rows are 0, and only written where the caller asked for them.
        let wants_z = args.lambda > 0.0;
        let rows = checked.target.elements();
        let workspace;
        let summed = match reduction {
            Reduction::None => {
                (args.loss, args.z_loss, args.whole) = (loss.address, z_loss_out, 1);
                None
            }
            Reduction::Sum | Reduction::Mean | Reduction::BatchMean => {
                workspace = self.pool.take("workspace", rows * 8)?;
                args.loss = workspace.address();
                args.z_loss = if wants_z { args.loss + 4 * rows as u64 } else { 0 };
                Some([args.loss, args.z_loss])
            }
        };
        // SAFETY: shapes, strides and lengths were checked; outputs are borrowed exclusively.
        unsafe { self.go(kernel, data(checked.dtype)?, work, args)? };
        if let Some(rows) = summed {
            self.sum(&batch.census, rows, [loss.address, z_loss_out])?;
        }
        if let (Some((rows, lines)), Some(x)) = (written, &logits) {
            self.settle(rows, x, &lines)?;
        }
        self.read_back([Some(loss), z_loss, lse, logits, ranks.argmax, ranks.rank])
    }

    pub(crate) fn cross_entropy_backward(
        &self,
        checked: &Checked<'_>,
        logits: TensorRef<'_>,
        lse: TensorRef<'_>,
        grad_output: GradOutput<'_>,
        grad_logits: TensorMut<'_>,
    ) -> Result<()> {
        let x = self.input("logits", logits)?;
        let x_lines = lines(checked, &x.shape, x.row_stride);
        let x_rows = self.rows_in(&x, &x_lines)?;
        let from = Some((x_rows.address, x_rows.stride));
        self.gradient(checked, from, lse, &grad_output, grad_logits)
    }

    pub(crate) fn cross_entropy_backward_in_place(
        &self,
        checked: &Checked<'_>,
        logits: TensorMut<'_>,
        lse: TensorRef<'_>,
        grad_output: GradOutput<'_>,
    ) -> Result<()> {
        self.gradient(checked, None, lse, &grad_output, logits)
    }

    /// Gradient from a saved lse, of rows elsewhere or of those that it overwrites.
    fn gradient(
        &self,
        checked: &Checked<'_>,
        from: Option<(u64, usize)>,
        lse: TensorRef<'_>,
        grad_output: &GradOutput<'_>,
        grad_logits: TensorMut<'_>,
    ) -> Result<()> {
        let lse = self.input("lse", lse)?;
        let grad = self.output("grad_logits", grad_logits, from.is_none())?;
        let batch = Batch::new(self, checked, grad_output)?;
        let lines = lines(checked, &grad.shape, grad.row_stride);
        let rows = self.rows_out(&grad, &lines, from.is_none())?;
        let (x, x_stride) = from.unwrap_or((rows.address, rows.stride));
        let mut args = RowArgs {
            x,
            x_stride: x_stride as i64,
            y: rows.address,
            y_stride: rows.stride as i64,
            lse: lse.address,
            ..RowArgs::default()
        };
        batch.fill(checked, &mut args)?;
        // SAFETY: shapes, strides and lengths were checked; the output is borrowed exclusively.
        unsafe { self.go(batch.loss, data(checked.dtype)?, Work::FromLse, args)? };
        self.settle(rows, &grad, &lines)?;
        self.read_back([Some(grad)])
    }
}

/// Rows of logits.
pub(super) fn lines(checked: &Checked<'_>, shape: &Shape, row_stride: usize) -> Lines {
    Lines::new(shape, row_stride, |d| d == checked.class_dim)
}

/// An upstream gradient: one number, or a tensor with elements between rows.
pub(super) struct Upstream<'p> {
    number: f32,
    tensor: Option<(Input<'p>, i64)>,
}

/// An upstream gradient as [`RowArgs`] have it.
pub(super) struct UpstreamFields {
    pub(super) address: u64,
    pub(super) stride: i64,
    pub(super) kind: u32,
    pub(super) number: f32,
}

impl<'p> Upstream<'p> {
    pub(super) fn new(
        cuda: &'p Cuda,
        argument: &'static str,
        grad_output: &GradOutput<'p>,
    ) -> Result<Self> {
        Ok(match grad_output {
            GradOutput::Number(number) => Upstream { number: *number, tensor: None },
            GradOutput::Tensor(t) => {
                let stride = i64::from(t.elements() != 1);
                Upstream { number: 0.0, tensor: Some((cuda.input(argument, *t)?, stride)) }
            }
        })
    }

    pub(super) fn fields(&self) -> UpstreamFields {
        let number = self.number;
        match &self.tensor {
            None => UpstreamFields { address: 0, stride: 0, kind: 0, number },
            Some((t, stride)) => UpstreamFields {
                address: t.address,
                stride: *stride,
                kind: args::kind(t.dtype),
                number,
            },
        }
    }
}

/// A call's inputs besides the logits.
pub(super) struct Batch<'p> {
    loss: Loss,
    target: Input<'p>,
    weight: Option<Input<'p>>,
    upstream: Upstream<'p>,
    census: super::batch::Census<'p>,
}

impl<'p> Batch<'p> {
    pub(super) fn new(
        cuda: &'p Cuda,
        checked: &Checked<'p>,
        grad_output: &GradOutput<'p>,
    ) -> Result<Self> {
        let options = checked.options;
        let target = cuda.input("target", checked.target)?;
        let weight = options.weight.map(|w| cuda.input("weight", w)).transpose()?;
        let upstream = Upstream::new(cuda, "grad_output", grad_output)?;
        let census = cuda.census(&checked.labels(), Some(&target), weight.as_ref())?;
        let full = options.softcap.is_some() || options.label_smoothing > 0.0;
        let loss = if full { Loss::CrossEntropyFull } else { Loss::CrossEntropy };
        Ok(Batch { loss, target, weight, upstream, census })
    }

    pub(super) fn fill(&self, checked: &Checked<'_>, args: &mut RowArgs) -> Result<()> {
        let options = checked.options;
        let epsilon = options.label_smoothing;
        args.target = self.target.address;
        args.target_kind = args::kind(self.target.dtype);
        if let Some(weight) = &self.weight {
            (args.weight, args.weight_kind) = (weight.address, args::kind(weight.dtype));
        }
        let upstream = self.upstream.fields();
        (args.upstream, args.upstream_stride) = (upstream.address, upstream.stride);
        (args.upstream_kind, args.number) = (upstream.kind, upstream.number);
        args.totals = self.census.totals();
        args.rows = count("target", checked.target.elements())?;
        args.classes = count("logits", checked.classes)?;
        args.ignore_index = options.ignore_index;
        args.scale = options.logit_scale;
        args.cap = options.softcap.unwrap_or(0.0);
        args.hard = (1.0 - epsilon) as f32;
        args.soft = if epsilon > 0.0 { (epsilon / checked.classes as f64) as f32 } else { 0.0 };
        args.lambda = options.lse_square_scale as f32;
        args.mean = (options.reduction == Reduction::Mean).into();
        Ok(())
    }
}
