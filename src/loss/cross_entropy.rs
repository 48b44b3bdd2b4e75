//! Cross entropy with class indices or class probabilities: options, checks and the maths in words.
//!
//! With z = c·tanh(s·x/c), or s·x without a cap, m = max z, lse = m + ln Σ e^(z − m),
//! p_j = e^(z_j − lse), ε the label smoothing and S = Σ_c w_c over all V classes, a kept row has
//!
//! ```text
//! ℓ        = (1−ε)·w_t·(lse − z_t) + (ε/V)·Σ_c w_c·(lse − z_c) + λ·lse²
//! ∂ℓ/∂z_j  = (A + 2λ·lse)·p_j − (1−ε)·w_t·[j = t] − (ε/V)·w_j,   A = (1−ε)·w_t + (ε/V)·S
//! ```
//!
//! The mean divides the first two terms by W = Σ w_t over kept rows and the last (z-loss) by
//! their number. An ignored row is never read; its loss and gradient are 0.
//!
//! Against probabilities q, which nothing normalises, with q' = (1−ε)·q + ε/V and M = Σ_c w_c·q'_c:
//!
//! ```text
//! ℓ        = Σ_c w_c·q'_c·(lse − z_c) + λ·lse²
//! ∂ℓ/∂z_j  = (M + 2λ·lse)·p_j − w_j·q'_j
//! ∂ℓ/∂q_j  = (1−ε)·w_j·(lse − z_j)
//! ```
//!
//! Here the mean divides by the number of rows. A teacher's logits y in the place of q stand for
//! softmax(s_T·y).

mod checked;
mod outputs;

use super::{GradOutput, Ranks, check};
use crate::device::{Device, on_device};
use crate::error::Result;
use crate::reduction::Reduction;
use crate::tensor::{Tensor, TensorRef};

use checked::Target;
pub(crate) use checked::{Checked, SoftTarget};
pub use outputs::{CrossEntropyGrad, CrossEntropyGradients, CrossEntropyOut, CrossEntropyOutput};

/// Cross entropy between logits and class indices or class probabilities, in nats.
///
/// Options have PyTorch's names and defaults (`torch.nn.CrossEntropyLoss`); logit scale, soft-cap
/// and z-loss are extensions. Applied in this order: scale, soft-cap, log-sum-exp, z-loss.
///
/// | tensor | shape | dtype |
/// |---|---|---|
/// | logits | `[C]`, `[N, C]` or `[N, C, d1, …]`, row stride free | f32, f16, bf16 |
/// | target, indices | `[]` or `[1]`, `[N]`, `[N, d1, …]` | i64, i32, u32, u8 |
/// | target, probabilities | the logits', row stride free | the logits' |
/// | weight | `[C]` | f32 or the logits' |
/// | loss | `[]`, or one a row for [`Reduction::None`] | f32 |
/// | lse | one a row; 0 for ignored rows | f32 |
/// | argmax, rank | one a row, on request; −1 for ignored rows | i64 |
///
/// A target of floats holds probabilities, which need not sum to 1, or with
/// [`CrossEntropy::teacher_scale`] a teacher's logits. No row is ignored then, the mean divides by
/// the number of rows, and the probabilities have a gradient too, which a call computes where
/// [`CrossEntropyGradients`] has memory for it.
///
/// Sums are f32 or wider, in an order that does not depend on the number of threads: the same
/// input gives the same bits. The mean is NaN if no row is kept, as in PyTorch.
///
/// ```
/// use warploss::{CrossEntropy, Device, TensorRef};
/// let logits = TensorRef::new(&[2.0f32, 1.0, 0.1, 0.5, 2.5, 0.0], &[2, 3])?;
/// let target = TensorRef::new(&[0i64, 1], &[2])?;
/// let out = CrossEntropy::default().forward(&Device::best(), logits, target)?;
/// assert!((out.loss.item()? - 0.3069).abs() < 1e-4);
/// let target = TensorRef::new(&[0.9f32, 0.1, 0.0, 0.0, 1.0, 0.0], &[2, 3])?;
/// let out = CrossEntropy::default().forward(&Device::best(), logits, target)?;
/// assert!((out.loss.item()? - 0.3569).abs() < 1e-4);
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct CrossEntropy<'w> {
    pub(crate) weight: Option<TensorRef<'w>>,
    pub(crate) ignore_index: i64,
    pub(crate) reduction: Reduction,
    pub(crate) label_smoothing: f64,
    pub(crate) lse_square_scale: f64,
    pub(crate) logit_scale: f32,
    pub(crate) softcap: Option<f32>,
    pub(crate) teacher_scale: Option<f32>,
}

impl Default for CrossEntropy<'_> {
    fn default() -> Self {
        CrossEntropy {
            weight: None,
            ignore_index: -100,
            reduction: Reduction::Mean,
            label_smoothing: 0.0,
            lse_square_scale: 0.0,
            logit_scale: 1.0,
            softcap: None,
            teacher_scale: None,
        }
    }
}

impl<'w> CrossEntropy<'w> {
    /// Class weights, `[C]`, finite; f32 or the logits' dtype. Default: 1 each.
    pub fn weight(self, weight: TensorRef<'_>) -> CrossEntropy<'_> {
        CrossEntropy {
            weight: Some(weight),
            ignore_index: self.ignore_index,
            reduction: self.reduction,
            label_smoothing: self.label_smoothing,
            lse_square_scale: self.lse_square_scale,
            logit_scale: self.logit_scale,
            softcap: self.softcap,
            teacher_scale: self.teacher_scale,
        }
    }

    /// The label of rows that do not count; any integer. Default −100.
    pub fn ignore_index(mut self, label: i64) -> Self {
        self.ignore_index = label;
        self
    }

    /// Default [`Reduction::Mean`], which divides by the weights of the kept rows' targets.
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    /// ε in [0, 1]: the target is mixed with the uniform distribution over classes. Default 0.
    pub fn label_smoothing(mut self, epsilon: f64) -> Self {
        self.label_smoothing = epsilon;
        self
    }

    /// λ ≥ 0 of the z-loss λ·lse² per kept row. Default 0.
    pub fn lse_square_scale(mut self, lambda: f64) -> Self {
        self.lse_square_scale = lambda;
        self
    }

    /// s in (0, 2e38], the inverse temperature. Default 1.
    pub fn logit_scale(mut self, scale: f32) -> Self {
        self.logit_scale = scale;
        self
    }

    /// c > 0: logits become c·tanh(s·x/c). Default `None`: no cap.
    pub fn softcap(mut self, cap: Option<f32>) -> Self {
        self.softcap = cap;
        self
    }

    /// `Some(s_T)`, s_T > 0: a target of floats holds a teacher's logits y, and the probabilities
    /// are softmax(s_T·y), which are never written out. Temperature T of a distillation is a
    /// [`CrossEntropy::logit_scale`] and an s_T of 1/T; the factor T² that some multiply by is not
    /// in the loss. The teacher has no gradient. Default `None`.
    pub fn teacher_scale(mut self, scale: Option<f32>) -> Self {
        self.teacher_scale = scale;
        self
    }

    /// Loss and log-sum-exp of every row.
    ///
    /// # Errors
    /// A shape, dtype, stride, option or target that breaks the rules above; out of memory.
    pub fn forward(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
    ) -> Result<CrossEntropyOutput> {
        let checked = self.check(&logits, &target)?;
        let mut output = checked.allocate(device, &logits)?;
        self.forward_into(device, logits, target, output.out())?;
        Ok(output)
    }

    /// As [`CrossEntropy::forward`], with what each row's logits say of the target beside the
    /// other classes, from the same read.
    ///
    /// # Errors
    /// As `forward`.
    pub fn forward_with_ranks(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
    ) -> Result<(CrossEntropyOutput, Ranks)> {
        let checked = self.check(&logits, &target)?;
        checked.has_ranks("rank")?;
        let mut output = checked.allocate(device, &logits)?;
        let mut ranks = Ranks::new(device, checked.rows, &logits)?;
        let out = CrossEntropyOut {
            argmax: Some(ranks.argmax.view_mut()),
            rank: Some(ranks.rank.view_mut()),
            ..output.out()
        };
        self.forward_into(device, logits, target, out)?;
        Ok((output, ranks))
    }

    /// As [`CrossEntropy::forward`], into the caller's buffers; allocates nothing.
    ///
    /// # Errors
    /// As `forward`; nothing is written then.
    pub fn forward_into(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let checked = self.check(&logits, &target)?;
        checked.check_out(&out)?;
        on_device!(device, "logits", [logits.place()], on => match checked.target {
            Target::Classes(t) => on.cross_entropy_forward(&checked.with(t), logits, out),
            Target::Soft(t) => on.soft_cross_entropy_forward(&checked.with(t), logits, out),
        })
    }

    /// Gradient with respect to the logits from the `lse` that a forward pass returned. (Against
    /// probabilities the sum over each row is made anew, since M is needed anyway.)
    ///
    /// # Errors
    /// As [`CrossEntropy::forward`], and shapes of `lse` and `grad_output`.
    pub fn backward<'g>(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
        lse: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
    ) -> Result<Tensor> {
        let mut grad = device.zeros("grad_logits", logits.dtype(), logits.shape(), &logits)?;
        let saved = (target, lse);
        self.backward_into(device, logits, saved, grad_output, grad.view_mut())?;
        Ok(grad)
    }

    /// As [`CrossEntropy::backward`], into `gradients`: that of the logits (their shape and dtype,
    /// its own row stride) and, where there is memory for it, that of probabilities. Allocates
    /// nothing. `saved` is the forward pass's target and `lse`.
    ///
    /// # Errors
    /// As `backward`; nothing is written then.
    pub fn backward_into<'g, 'o>(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        saved: (TensorRef<'_>, TensorRef<'_>),
        grad_output: impl Into<GradOutput<'g>>,
        gradients: impl Into<CrossEntropyGradients<'o>>,
    ) -> Result<()> {
        let (target, lse) = saved;
        let checked = self.check(&logits, &target)?;
        let (grad_output, gradients) = (grad_output.into(), gradients.into());
        checked.check_backward(&lse, &grad_output)?;
        let grad = gradients.logits.as_ref();
        check::shape("grad_logits", &grad, logits.shape(), "the logits'")?;
        check::dtype("grad_logits", &grad, &[logits.dtype()], "the logits'")?;
        checked.check_grad_target(&gradients)?;
        on_device!(device, "logits", [logits.place(), grad.place(), lse.place()], on => {
            match checked.target {
                Target::Classes(t) => {
                    let (checked, grad) = (checked.with(t), gradients.logits);
                    on.cross_entropy_backward(&checked, logits, lse, grad_output, grad)
                }
                Target::Soft(t) => {
                    let checked = checked.with(t);
                    on.soft_cross_entropy_backward(&checked, logits, grad_output, gradients)
                }
            }
        })
    }

    /// As [`CrossEntropy::backward_into`], **overwriting the logits** with their gradient.
    ///
    /// # Errors
    /// As `backward`; nothing is written then.
    pub fn backward_in_place<'g, 'o>(
        &self,
        device: &Device,
        logits: impl Into<CrossEntropyGradients<'o>>,
        target: TensorRef<'_>,
        lse: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
    ) -> Result<()> {
        let (gradients, grad_output) = (logits.into(), grad_output.into());
        let logits = gradients.logits.as_ref();
        let checked = self.check(&logits, &target)?;
        checked.check_backward(&lse, &grad_output)?;
        checked.check_grad_target(&gradients)?;
        on_device!(device, "logits", [logits.place(), lse.place()], on => match checked.target {
            Target::Classes(t) => {
                let (checked, logits) = (checked.with(t), gradients.logits);
                on.cross_entropy_backward_in_place(&checked, logits, lse, grad_output)
            }
            Target::Soft(t) => {
                on.soft_cross_entropy_in_place(&checked.with(t), gradients, grad_output, None)
            }
        })
    }

    /// Loss and gradient in one pass, **overwriting the logits** with their gradient: memory is
    /// read once and written once, and nothing is allocated.
    ///
    /// # Errors
    /// As [`CrossEntropy::forward`]; nothing is written then, the logits are as they were.
    pub fn forward_backward_in_place<'g, 'o>(
        &self,
        device: &Device,
        logits: impl Into<CrossEntropyGradients<'o>>,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let (gradients, grad_output) = (logits.into(), grad_output.into());
        let logits = gradients.logits.as_ref();
        let checked = self.check(&logits, &target)?;
        checked.check_out(&out)?;
        checked.check_grad_output(&grad_output)?;
        checked.check_grad_target(&gradients)?;
        on_device!(device, "logits", [logits.place()], on => match checked.target {
            Target::Classes(t) => {
                let (checked, logits) = (checked.with(t), gradients.logits);
                on.cross_entropy_forward_backward(&checked, logits, grad_output, out)
            }
            Target::Soft(t) => {
                on.soft_cross_entropy_in_place(&checked.with(t), gradients, grad_output, Some(out))
            }
        })
    }

    /// As [`CrossEntropy::forward_backward_in_place`], **consuming the logits**: the tensor comes
    /// back as the gradient.
    ///
    /// # Errors
    /// As `forward`.
    pub fn forward_backward<'g>(
        &self,
        device: &Device,
        mut logits: Tensor,
        target: TensorRef<'_>,
        grad_output: impl Into<GradOutput<'g>>,
    ) -> Result<CrossEntropyGrad> {
        let mut output = self.check(&logits.view(), &target)?.allocate(device, &logits.view())?;
        let view = logits.view_mut();
        self.forward_backward_in_place(device, view, target, grad_output, output.out())?;
        Ok(CrossEntropyGrad { output, grad_logits: logits })
    }
}
