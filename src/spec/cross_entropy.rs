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
//! their number. What an ignored row holds is never used; its loss and gradient are 0.
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

mod call;
pub(crate) mod checked;
mod outputs;
pub(crate) mod shard;
pub(crate) mod tokens;

use crate::base::reduction::Reduction;
use crate::base::tensor::TensorRef;
use crate::spec::weight::Weight;

pub(crate) use call::{Call, SoftCall};
pub(crate) use checked::{Checked, SoftTarget};
pub use outputs::{CrossEntropyGrad, CrossEntropyGradients, CrossEntropyOut, CrossEntropyOutput};
pub(crate) use shard::{CheckedShard, ShardCall};
pub use tokens::{CrossEntropyUpstream, TopKOut};

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
/// | logprob, entropy | one a row, on request; 0 for ignored rows | f32 |
/// | top_k | k a row, on request ([`TopKOut`]) | i64, f32 |
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
#[must_use = "options do nothing until a call is made with them"]
pub struct CrossEntropy<'w> {
    pub(crate) weight: Option<Weight<'w>>,
    pub(crate) ignore_index: i64,
    pub(crate) reduction: Reduction,
    pub(crate) label_smoothing: f64,
    pub(crate) lse_square_scale: f64,
    pub(crate) logit_scale: f32,
    pub(crate) softcap: Option<f32>,
    pub(crate) softcap_approximate: bool,
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
            softcap_approximate: false,
            teacher_scale: None,
        }
    }
}

impl<'w> CrossEntropy<'w> {
    /// Class weights, `[C]`, finite; f32 or the logits' dtype. Default: 1 each.
    pub fn weight<'v>(self, weight: impl Into<Weight<'v>>) -> CrossEntropy<'v> {
        CrossEntropy {
            weight: Some(weight.into()),
            ignore_index: self.ignore_index,
            reduction: self.reduction,
            label_smoothing: self.label_smoothing,
            lse_square_scale: self.lse_square_scale,
            logit_scale: self.logit_scale,
            softcap: self.softcap,
            softcap_approximate: self.softcap_approximate,
            teacher_scale: self.teacher_scale,
        }
    }

    /// The weights, where there are any.
    pub(crate) fn class_weight(&self) -> Option<TensorRef<'_>> {
        self.weight.as_ref().map(Weight::view)
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

    /// Whether a GPU may take the soft-cap's tanh from its special-function unit (PTX `tanh.approx.f32`), which
    /// takes fewer instructions: capped logits are off by up to 2⁻¹¹ of themselves, less than bf16 rounds them by,
    /// and the soft-cap's slope, at most 1, by up to 2⁻¹⁰. The CPU's is exact all the same. Default false.
    pub fn softcap_approximate(mut self, approximate: bool) -> Self {
        self.softcap_approximate = approximate;
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
}
