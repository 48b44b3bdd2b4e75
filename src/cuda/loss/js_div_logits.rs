//! Jensen–Shannon divergence from logits on a CUDA device: `kernels/loss/js_div_logits.cu` between a
//! count of the rows and a sum. Without a gradient it is the same kernels, which write numbers
//! alone then: a row's second pass needs it on chip as well.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::code::args::{JsDivLogitsArgs, LabelArgs, RowOperands};
use crate::code::variants::Loss;
use crate::cuda::loss::cross_entropy::labels;
use crate::cuda::schedule::batch::{Census, RowFactors};
use crate::cuda::schedule::blocks::RowTensors;
use crate::cuda::schedule::lines::count;
use crate::cuda::schedule::operands::{ReadRows, WriteRows, along};
use crate::cuda::schedule::rows::{Work, data};
use crate::cuda::schedule::upstream::Upstream;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::indices::Indices;
use crate::cuda::stream::memory::Output;
use crate::spec::grad_output::GradOutput;
use crate::spec::js_div_logits::{CheckedJsDiv, JsDivLogitsGradOut, JsDivRows};

impl Cuda {
    pub(crate) fn js_div_logits_forward(
        &self,
        checked: &CheckedJsDiv<'_>,
        logits: TensorRef<'_>,
        loss: TensorMut<'_>,
    ) -> Result<()> {
        let loss = self.output("loss", loss, false)?;
        let x = self.read_rows("logits", logits, along(checked.class_dim))?;
        let call = Call::new(self, checked, &GradOutput::default(), None)?;
        self.js_div_rows(checked, call, (Some(&x), None), Some(loss))
    }

    pub(crate) fn js_div_logits_backward(
        &self,
        checked: &CheckedJsDiv<'_>,
        logits: TensorRef<'_>,
        grad_output: GradOutput<'_>,
        gradients: JsDivLogitsGradOut<'_>,
    ) -> Result<()> {
        let x = self.read_rows("logits", logits, along(checked.class_dim))?;
        let JsDivLogitsGradOut { logits, target } = gradients;
        let y = self.write_rows("grad_logits", logits, false, along(checked.class_dim))?;
        let call = Call::new(self, checked, &grad_output, target)?;
        self.js_div_rows(checked, call, (Some(&x), Some(y)), None)
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
        let x = self.write_rows("logits", logits, true, along(checked.class_dim))?;
        let call = Call::new(self, checked, &grad_output, target)?;
        self.js_div_rows(checked, call, (None, Some(x)), Some(loss))
    }

    /// Losses where there is room for them, and gradients: from `x` to `y`, or over `y`.
    fn js_div_rows<'a, 'p: 'a>(
        &'p self,
        checked: &CheckedJsDiv<'_>,
        call: Call<'a, 'p>,
        (x, y): (Option<&ReadRows<'p>>, Option<WriteRows<'a, 'p>>),
        loss: Option<Output<'a, 'p>>,
    ) -> Result<()> {
        let mut args = call.of_rows.args(&checked.of_rows)?;
        let rows = args.rows.count as usize;
        let per_row = checked.of_rows.options.reduction == Reduction::None;
        let workspace;
        if let Some(loss) = &loss {
            args.loss = match per_row {
                true => loss.address,
                false => {
                    workspace = self.pool.take("workspace", rows * 4)?;
                    workspace.address()
                }
            };
        }
        if let (Some(loss), false) = (&loss, per_row) {
            args.schedule.sum = call.of_rows.census.sum(([args.loss, 0], false), [loss.address, 0]);
        }
        let kernels = (Loss::JsDivLogits, data(checked.dtype)?, Work::Fused);
        let Call { target, grad_target, of_rows: _of_rows } = call;
        let beside = Some(&target);
        let tensors = RowTensors { x, upstream: None, beside, y, grad_beside: grad_target };
        // SAFETY: shapes, strides and lengths were checked (`CheckedJsDiv`); outputs are borrowed
        // exclusively.
        let gradients = unsafe { self.go_through(kernels, args, tensors)? };
        self.read_back([loss].into_iter().chain(gradients))
    }
}

/// A call's tensors besides the logits.
struct Call<'a, 'p> {
    target: ReadRows<'p>,
    grad_target: Option<WriteRows<'a, 'p>>,
    of_rows: OfRows<'p>,
}

impl<'a, 'p: 'a> Call<'a, 'p> {
    fn new(
        cuda: &'p Cuda,
        checked: &CheckedJsDiv<'p>,
        grad_output: &GradOutput<'p>,
        grad_target: Option<TensorMut<'a>>,
    ) -> Result<Self> {
        let target = cuda.read_rows("target", checked.target, along(checked.class_dim))?;
        let grad_target = grad_target
            .map(|t| cuda.write_rows("grad_target", t, false, along(checked.class_dim)))
            .transpose()?;
        let of_rows = OfRows::new(cuda, &checked.of_rows, grad_output, RowFactors::default())?;
        Ok(Call { target, grad_target, of_rows })
    }
}

/// What is known of rows beside their logits.
pub(crate) struct OfRows<'p> {
    labels: Option<Indices<'p>>,
    upstream: Upstream<'p>,
    pub(crate) census: Census<'p>,
}

impl<'p> OfRows<'p> {
    pub(crate) fn new(
        cuda: &'p Cuda,
        of: &JsDivRows<'p>,
        grad_output: &GradOutput<'p>,
        factors: RowFactors,
    ) -> Result<OfRows<'p>> {
        let labels = of.labels.map(|labels| cuda.indices(labels)).transpose()?;
        let upstream = Upstream::new(cuda, "grad_output", grad_output)?;
        let census = cuda.census_of_rows(&of.counting(), (labels.as_ref(), None), factors)?;
        Ok(OfRows { labels, upstream, census })
    }

    /// Notes what is wrong with factors that the rows have besides.
    pub(crate) fn check(&self, cuda: &Cuda, of: &JsDivRows<'_>, factors: RowFactors) -> Result<()> {
        cuda.census_of_rows(&of.counting(), (self.labels.as_ref(), None), factors).map(drop)
    }

    /// All but where rows lie.
    pub(crate) fn args(&self, of: &JsDivRows<'_>) -> Result<JsDivLogitsArgs> {
        let options = of.options;
        let ignored = |indices| labels(indices, options.ignore_index);
        Ok(JsDivLogitsArgs {
            rows: RowOperands {
                count: count("target", of.rows())?,
                classes: count("logits", of.classes)?,
                ..RowOperands::default()
            },
            upstream: self.upstream.args(),
            labels: self.labels.as_ref().map_or(LabelArgs::default(), ignored),
            totals: self.census.totals(),
            scale: options.logit_scale,
            teacher: options.teacher_scale,
            beta: options.divergence.beta(),
            share: of.share() as f32,
            mean: of.averages().into(),
            ..JsDivLogitsArgs::default()
        })
    }
}
