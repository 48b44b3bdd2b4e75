//! Jensen–Shannon divergence from logits on a CUDA device: `kernels/loss/js_div_logits.cu` between a
//! count of the rows and a sum. Without a gradient it is the same kernels, which write numbers
//! alone then: a row's second pass needs it on chip as well.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args::{BesideArgs, JsDivLogitsArgs, LabelArgs, RowOperands};
use crate::code::variants::Loss;
use crate::cuda::loss::cross_entropy::labels;
use crate::cuda::schedule::batch::Census;
use crate::cuda::schedule::lines::{Lines, Rows, count};
use crate::cuda::schedule::rows::{Work, data};
use crate::cuda::schedule::upstream::Upstream;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::indices::Indices;
use crate::cuda::stream::memory::{Input, Output};
use crate::spec::grad_output::GradOutput;
use crate::spec::js_div_logits::{CheckedJsDiv, JsDivLogitsGradOut};

impl Cuda {
    pub(crate) fn js_div_logits_forward(
        &self,
        checked: &CheckedJsDiv<'_>,
        logits: TensorRef<'_>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let loss = self.output("loss", loss, false)?;
        let x = self.input("logits", logits)?;
        let rows = self.rows_in(&x, &lines(checked, &x.shape, x.row_stride))?;
        let call = Call::new(self, checked, &GradOutput::default(), None)?;
        self.js_div_rows(checked, &call, rows.read(), Some(&loss))?;
        self.read_back([Some(loss)])
    }

    pub(crate) fn js_div_logits_backward(
        &self,
        checked: &CheckedJsDiv<'_>,
        logits: TensorRef<'_>,
        grad_output: GradOutput<'_>,
        gradients: JsDivLogitsGradOut<'_>,
    ) -> Result<()> {
        let x = self.input("logits", logits)?;
        let rows = self.rows_in(&x, &lines(checked, &x.shape, x.row_stride))?;
        let JsDivLogitsGradOut { logits, target } = gradients;
        let y = Written::new(self, checked, "grad_logits", logits, false)?;
        let mut call = Call::new(self, checked, &grad_output, target)?;
        self.js_div_rows(checked, &call, rows.to(&y.rows), None)?;
        let target = call.target_gradient.take().map(|t| t.settle(self)).transpose()?;
        let y = y.settle(self)?;
        self.read_back([Some(y), target])
    }

    /// Loss, and the gradient over the logits.
    pub(crate) fn js_div_logits_forward_backward(
        &self,
        checked: &CheckedJsDiv<'_>,
        gradients: JsDivLogitsGradOut<'_>,
        grad_output: GradOutput<'_>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let JsDivLogitsGradOut { logits, target } = gradients;
        let loss = self.output("loss", loss, false)?;
        let x = Written::new(self, checked, "logits", logits, true)?;
        let mut call = Call::new(self, checked, &grad_output, target)?;
        self.js_div_rows(checked, &call, x.rows.to(&x.rows), Some(&loss))?;
        let target = call.target_gradient.take().map(|t| t.settle(self)).transpose()?;
        let x = x.settle(self)?;
        self.read_back([Some(loss), Some(x), target])
    }

    /// Losses where there is room for them, and gradients where the arguments have it.
    fn js_div_rows(
        &self,
        checked: &CheckedJsDiv<'_>,
        call: &Call<'_, '_>,
        operands: RowOperands,
        loss: Option<&Output<'_, '_>>,
    ) -> Result<()> {
        let mut args = call.args(checked, operands)?;
        let rows = args.rows.count as usize;
        let per_row = checked.options.reduction == Reduction::None;
        let workspace;
        if let Some(loss) = loss {
            args.loss = match per_row {
                true => loss.address,
                false => {
                    workspace = self.pool.take("workspace", rows * 4)?;
                    workspace.address()
                }
            };
        }
        // SAFETY: shapes, strides and lengths were checked; outputs are borrowed exclusively.
        unsafe { self.go(Loss::JsDivLogits, data(checked.dtype)?, Work::Fused, args)? };
        match loss {
            Some(loss) if !per_row => {
                self.sum(&call.census, ([args.loss, 0], false), [loss.address, 0])
            }
            _ => Ok(()),
        }
    }
}

/// Rows of logits, of a teacher's, or of their gradients.
fn lines(checked: &CheckedJsDiv<'_>, shape: &Shape, row_stride: usize) -> Lines {
    Lines::new(shape, row_stride, |d| d == checked.class_dim)
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
        checked: &CheckedJsDiv<'_>,
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
    _target: Input<'p>,
    target: Rows<'p>,
    target_gradient: Option<Written<'a, 'p>>,
    labels: Option<Indices<'p>>,
    upstream: Upstream<'p>,
    census: Census<'p>,
}

impl<'a, 'p: 'a> Call<'a, 'p> {
    fn new(
        cuda: &'p Cuda,
        checked: &CheckedJsDiv<'p>,
        grad_output: &GradOutput<'p>,
        grad_target: Option<TensorMut<'a>>,
    ) -> Result<Self> {
        let input = cuda.input("target", checked.target)?;
        let target = cuda.rows_in(&input, &lines(checked, &input.shape, input.row_stride))?;
        let labels = checked.labels.map(|labels| cuda.indices(labels)).transpose()?;
        let upstream = Upstream::new(cuda, "grad_output", grad_output)?;
        let target_gradient = grad_target
            .map(|t| Written::new(cuda, checked, "grad_target", t, false))
            .transpose()?;
        let census = cuda.census(&checked.counting(), labels.as_ref(), None)?;
        Ok(Call { _target: input, target, target_gradient, labels, upstream, census })
    }

    fn args(&self, checked: &CheckedJsDiv<'_>, rows: RowOperands) -> Result<JsDivLogitsArgs> {
        let options = checked.options;
        let mut target = BesideArgs { values: self.target.address, ..BesideArgs::default() };
        target.stride = self.target.stride as i64;
        if let Some(gradient) = &self.target_gradient {
            target.gradient = gradient.rows.address;
            target.gradient_stride = gradient.rows.stride as i64;
        }
        let ignored = |indices| labels(indices, options.ignore_index);
        Ok(JsDivLogitsArgs {
            rows: RowOperands {
                count: count("target", checked.rows())?,
                classes: count("logits", checked.classes)?,
                ..rows
            },
            upstream: self.upstream.args(),
            target,
            labels: self.labels.as_ref().map_or(LabelArgs::default(), ignored),
            totals: self.census.totals(),
            scale: options.logit_scale,
            teacher: options.teacher_scale,
            beta: options.beta,
            share: checked.share() as f32,
            mean: checked.averages().into(),
            ..JsDivLogitsArgs::default()
        })
    }
}
