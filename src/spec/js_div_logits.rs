//! Jensen–Shannon divergence from logits, and total variation: options, checks and the maths in words.
//!
//! With x = log_softmax(s·a) the model, y = log_softmax(s_T·b) the teacher, M = β·P + (1 − β)·Q,
//! the slopes G_c = ∂ℓ/∂x_c and H_c = ∂ℓ/∂y_c of [`JsDiv`](crate::JsDiv) give, a row,
//!
//! ```text
//! ℓ       = Σ_c G_c + H_c
//! ∂ℓ/∂a_j = s·(G_j − Q_j·Σ_c G_c)
//! ∂ℓ/∂b_j = s_T·(H_j − P_j·Σ_c H_c)
//! ```
//!
//! which needs three passes over a row: its sums, its slopes' sums, its gradient. Rows are brought
//! from memory once.
//!
//! A model is as a rule near its teacher, and then all of these are small. What they are made of
//! is x − y, which comes from the difference of the logits and of the log-sum-exps; at β = 0 and 1
//! slopes are taken but for what the normalisation takes away again: G = Q − P and H = P·(y − x)
//! for KL(P‖Q), whose terms P·(e^(x − y) − 1 − (x − y)) are never negative. The total variation ½·Σ |P − Q| has
//! the same Q − P = P·(e^(x − y) − 1), and slopes G = ½·Q·sign(Q − P) and H = −½·P·sign(Q − P).

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::base::validate;
use crate::spec::class_indices::ClassIndices;
use crate::spec::counting::Counting;
use crate::spec::divergence::Divergence;
use crate::spec::grad_output::GradOutput;

/// Generalised Jensen–Shannon divergence between the softmax of a model's logits and that of a
/// teacher's (as [`JsDiv`](crate::JsDiv), which takes log-probabilities), or another [`Divergence`].
///
/// | tensor | shape | dtype |
/// |---|---|---|
/// | logits | `[C]`, `[N, C]` or `[N, C, d1, …]`, row stride free | f32, f16, bf16 |
/// | target, a teacher's logits | the logits', row stride free | the logits' |
/// | labels | `[]` or `[1]`, `[N]`, `[N, d1, …]` | i64, i32, u32, u8 |
/// | loss | `[]`, or one a row for [`Reduction::None`] | f32 |
/// | grad_output | the loss's, or one number | f32 or the logits' |
/// | gradients | the logits', row stride free | the logits' |
///
/// A row's loss is the sum over its classes. [`Reduction::BatchMean`], the default, divides by the
/// number of rows that count, [`Reduction::Mean`] by that of their elements. With labels, rows
/// whose label is `ignore_index` do not count: they are not read, and have loss and gradient 0.
/// A row of logits without probabilities (all −∞, or +∞ or NaN among them) is NaN as a whole.
///
/// ```
/// use warploss::{Device, JsDivLogits, TensorRef};
/// let student = TensorRef::new(&[2.0f32, 1.0, 0.1, 0.5, 2.5, 0.0], &[2, 3])?;
/// let teacher = TensorRef::new(&[1.0f32, 1.0, 0.1, 0.5, 3.5, 0.0], &[2, 3])?;
/// let js = JsDivLogits::default();
/// let loss = js.forward(&Device::best(), student, teacher)?;
/// assert!(loss.item()? > 0.0);
/// assert_eq!(js.forward(&Device::best(), teacher, teacher)?.item()?, 0.0);
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "options do nothing until a call is made with them"]
pub struct JsDivLogits<'w> {
    pub(crate) divergence: Divergence,
    pub(crate) reduction: Reduction,
    pub(crate) logit_scale: f32,
    pub(crate) teacher_scale: f32,
    pub(crate) labels: Option<TensorRef<'w>>,
    pub(crate) ignore_index: i64,
}

impl Default for JsDivLogits<'_> {
    fn default() -> Self {
        JsDivLogits {
            divergence: Divergence::Js(0.5),
            reduction: Reduction::BatchMean,
            logit_scale: 1.0,
            teacher_scale: 1.0,
            labels: None,
            ignore_index: -100,
        }
    }
}

/// Memory that gradients are written to; a [`TensorMut`] stands for that of the logits alone.
#[derive(Debug)]
pub struct JsDivLogitsGradOut<'a> {
    /// The logits' shape and dtype; in a call that works in place, the logits themselves.
    pub logits: TensorMut<'a>,
    /// The gradient with respect to the teacher's logits, of their shape and dtype.
    pub target: Option<TensorMut<'a>>,
}

impl<'a> From<TensorMut<'a>> for JsDivLogitsGradOut<'a> {
    fn from(logits: TensorMut<'a>) -> Self {
        JsDivLogitsGradOut { logits, target: None }
    }
}

/// What a fused forward and backward pass returns: the logits' memory now holds the gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct JsDivLogitsGrad {
    /// `[]`, or one a row for none; f32.
    pub loss: Tensor,
    /// Gradient with respect to the logits, in their memory, shape and dtype.
    pub grad_logits: Tensor,
}

impl<'w> JsDivLogits<'w> {
    /// β in [0, 1], the teacher's share of the mixture: 0 is KL(teacher‖model), 1 is
    /// KL(model‖teacher). Default 0.5.
    pub fn beta(self, beta: f32) -> Self {
        self.divergence(Divergence::Js(beta))
    }

    /// Another divergence, or this one of another β. Default [`Divergence::Js`] of 0.5.
    pub fn divergence(mut self, divergence: Divergence) -> Self {
        self.divergence = divergence;
        self
    }

    /// Default [`Reduction::BatchMean`].
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    /// s in (0, 2e38], the inverse temperature of the model. Default 1.
    pub fn logit_scale(mut self, scale: f32) -> Self {
        self.logit_scale = scale;
        self
    }

    /// s_T in (0, 2e38], the inverse temperature of the teacher. Default 1.
    pub fn teacher_scale(mut self, scale: f32) -> Self {
        self.teacher_scale = scale;
        self
    }

    /// A class for each row, or `ignore_index` where the row does not count. Default: every row
    /// does.
    pub fn labels(self, labels: TensorRef<'_>) -> JsDivLogits<'_> {
        let JsDivLogits { divergence, reduction, logit_scale, teacher_scale, ignore_index, .. } =
            self;
        let labels = Some(labels);
        JsDivLogits { divergence, reduction, logit_scale, teacher_scale, labels, ignore_index }
    }

    /// The label of rows that do not count; any integer. Default −100.
    pub fn ignore_index(mut self, label: i64) -> Self {
        self.ignore_index = label;
        self
    }

    /// Everything about the inputs that can be told without reading them.
    pub(crate) fn check<'a>(
        &'a self,
        logits: &TensorRef<'_>,
        target: &TensorRef<'a>,
    ) -> Result<CheckedJsDiv<'a>> {
        self.check_options()?;
        validate::float("logits", logits)?;
        let shape = logits.shape();
        let (class_dim, rows) = validate::classes("logits", shape)?;
        validate::shape("target", target, shape, "the logits', of a teacher")?;
        validate::dtype("target", target, &[logits.dtype()], "the logits'")?;
        let of_rows = self.check_rows(shape[class_dim], rows)?;
        Ok(CheckedJsDiv { of_rows, dtype: logits.dtype(), class_dim, target: *target })
    }

    fn check_options(&self) -> Result<()> {
        self.divergence.check()?;
        validate::scale("logit_scale", self.logit_scale)?;
        validate::scale("teacher_scale", self.teacher_scale)
    }

    /// The same where logits are yet to be made: so many classes in rows of this shape.
    pub(crate) fn check_rows(&self, classes: usize, row_shape: Shape) -> Result<JsDivRows<'_>> {
        self.check_options()?;
        let labels = self.labels.as_ref();
        let labels = labels.map(|l| ClassIndices::of_rows("labels", l, row_shape, "one a row"));
        let labels = labels.transpose()?;
        let row_shape = labels.as_ref().map_or(row_shape, ClassIndices::shape);
        Ok(JsDivRows { options: self, classes, labels, row_shape })
    }
}

/// Inputs that have passed the checks: only [`JsDivLogits`] makes one, and a device takes nothing
/// else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckedJsDiv<'a> {
    pub(crate) of_rows: JsDivRows<'a>,
    pub(crate) dtype: DType,
    /// The logits' dimension of classes: 0 or 1.
    pub(crate) class_dim: usize,
    /// The teacher's logits.
    pub(crate) target: TensorRef<'a>,
}

/// Which rows count, and for what: whatever their logits come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JsDivRows<'a> {
    pub(crate) options: &'a JsDivLogits<'a>,
    pub(crate) classes: usize,
    /// What says which rows count.
    pub(crate) labels: Option<ClassIndices<'a>>,
    /// The shape of what has one value a row.
    pub(crate) row_shape: Shape,
}

impl<'a> JsDivRows<'a> {
    pub(crate) fn rows(&self) -> usize {
        self.row_shape.iter().product()
    }

    pub(crate) fn loss_shape(&self) -> Shape {
        self.options.reduction.loss_shape(self.row_shape)
    }

    /// What the rows' losses are multiplied by before they are added up, or averaged over rows.
    pub(crate) fn share(&self) -> f64 {
        match self.options.reduction {
            Reduction::Mean => 1.0 / self.classes as f64,
            Reduction::None | Reduction::Sum | Reduction::BatchMean => 1.0,
        }
    }

    /// Whether the sum is divided by the rows that count.
    pub(crate) fn averages(&self) -> bool {
        matches!(self.options.reduction, Reduction::Mean | Reduction::BatchMean)
    }

    /// What the rows are counted by.
    pub(crate) fn counting(&self) -> Counting<'a> {
        Counting {
            rows: self.rows(),
            weight: None,
            // Without labels a row counts even if it is empty.
            classes: self.classes.max(usize::from(self.labels.is_none())),
            ignore_index: Some(self.options.ignore_index),
            by_rows: false,
            reduction: if self.averages() { Reduction::Mean } else { Reduction::Sum },
        }
    }
}

impl CheckedJsDiv<'_> {
    pub(crate) fn check_grad_target(&self, gradients: &JsDivLogitsGradOut<'_>) -> Result<()> {
        let Some(grad) = &gradients.target else {
            return Ok(());
        };
        let grad = grad.as_ref();
        validate::shape("grad_target", &grad, self.target.shape(), "the target's")?;
        validate::dtype("grad_target", &grad, &[self.dtype], "the target's")
    }
}

/// A call that has passed the checks, with everything that it reads and writes.
#[derive(Debug)]
pub(crate) enum Call<'a> {
    Forward {
        logits: TensorRef<'a>,
        loss: TensorMut<'a>,
    },
    Backward {
        logits: TensorRef<'a>,
        grad_output: GradOutput<'a>,
        gradients: JsDivLogitsGradOut<'a>,
    },
    /// In one pass, the gradient over the logits.
    ForwardBackward {
        gradients: JsDivLogitsGradOut<'a>,
        grad_output: GradOutput<'a>,
        loss: TensorMut<'a>,
    },
}
