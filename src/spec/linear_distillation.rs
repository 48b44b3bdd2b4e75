//! Distillation from hidden states: options, checks and the maths in words.
//!
//! A student with hidden states x `[N, D]` and a classifier W `[V, D]`, b `[V]`, and a teacher with its own x_T
//! `[N, D_T]`, W_T `[V, D_T]`, b_T, have the logits
//!
//! ```text
//! a_r = (W·x_r + b) / τ_r      y_r = (W_T·x_T,r + b_T) / τ_T,r
//! ```
//!
//! and the loss u_r·ℓ(a_r, y_r) with the ℓ of [`JsDivLogits`], its divergence, scales, labels and reductions; a
//! mean divides by Σ u_r over rows that count. With G and H the gradients of a and y, one row each:
//!
//! ```text
//! ∂x_r = G_r·W / τ_r      ∂W = Σ_r G_rᵀ·x_r / τ_r      ∂b = Σ_r G_r / τ_r      and of H for the teacher's
//! ```
//!
//! Logits of both are f32 and never all in memory: a chunk of rows' are made side by side, turned into their
//! gradients and multiplied out. What a row that does not count holds is not read.

mod call;
mod checked;
mod input;
mod outputs;

use crate::spec::divergence::Divergence;
use crate::spec::js_div_logits::JsDivLogits;
use crate::spec::linear_cross_entropy::{LinearPath, WORKSPACE};

pub(crate) use call::Call;
pub(crate) use checked::{CheckedDistillation, CheckedHead, wanted};
pub use input::{DistillationInput, LinearHead};
pub use outputs::{DistillationGrad, DistillationGradOut};

/// A [`Divergence`] between the distributions of a student and of a teacher, each given by hidden states and a
/// classifier; the logits of neither are ever all in memory.
///
/// Its options are those of [`JsDivLogits`], which it is made from; a divergence stands for one that is otherwise
/// as by default.
///
/// | tensor ([`DistillationInput`]) | shape | dtype |
/// |---|---|---|
/// | input | `[D]` or `[N, D]`, row stride free | f32, f16, bf16 |
/// | linear_weight | `[V, D]`, row stride free | the input's |
/// | linear_bias | `[V]` | the input's |
/// | temperature | one a row | f32 |
/// | the teacher's | the same, of another D, one V and one N | f32, f16, bf16 |
/// | row_weight | one a row | f32 |
/// | labels | `[]` or `[1]`, `[N]` | i64, i32, u32, u8 |
/// | loss | `[]`, or one a row for none | f32 |
/// | grad_output | the loss's, or one number | f32 or the input's |
/// | gradients ([`DistillationGradOut`]) | those of what they belong to | that |
///
/// Sums are f32 or wider. On the CPU their order depends neither on the number of threads nor on the size of
/// chunks: the same input gives the same bits, and a row's results do not depend on the other rows of the batch.
/// On a GPU that is so as far as the library's products keep to it.
///
/// ```
/// use warploss::{Device, DistillationInput, Divergence, LinearDistillation, LinearHead, TensorRef};
/// let hidden = TensorRef::new(&[1.0f32, 2.0, -1.0, 0.5], &[2, 2])?;
/// let classifier = TensorRef::new(&[1.0f32, 0.0, 0.0, 1.0, -1.0, 1.0], &[3, 2])?;
/// let of_teacher = TensorRef::new(&[0.5f32, -2.0], &[2, 1])?;
/// let teachers = TensorRef::new(&[1.0f32, 2.0, -1.0], &[3, 1])?;
/// let student = LinearHead::new(hidden, classifier);
/// let input = DistillationInput::new(student, LinearHead::new(of_teacher, teachers));
/// let loss = LinearDistillation::from(Divergence::Kl);
/// let result = loss.forward_backward(&Device::best(), &input, 1.0)?;
/// assert!(result.loss.item()? > 0.0);
/// assert_eq!(*result.linear_weight.shape(), [3, 2]);
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "options do nothing until a call is made with them"]
pub struct LinearDistillation<'w> {
    pub(crate) of_logits: JsDivLogits<'w>,
    pub(crate) path: LinearPath,
    pub(crate) workspace: usize,
}

impl Default for LinearDistillation<'_> {
    fn default() -> Self {
        JsDivLogits::default().into()
    }
}

impl<'w> From<JsDivLogits<'w>> for LinearDistillation<'w> {
    fn from(of_logits: JsDivLogits<'w>) -> Self {
        LinearDistillation { of_logits, path: LinearPath::Auto, workspace: WORKSPACE }
    }
}

impl From<Divergence> for LinearDistillation<'_> {
    fn from(divergence: Divergence) -> Self {
        JsDivLogits::default().divergence(divergence).into()
    }
}

impl LinearDistillation<'_> {
    /// Bytes that a call may take beside its inputs, outputs and gradients, for both sides. Default 512 MiB. Chunks
    /// are as long as that allows; the results do not depend on it.
    pub fn max_workspace_bytes(mut self, bytes: usize) -> Self {
        self.workspace = bytes;
        self
    }

    /// Default [`LinearPath::Auto`]; there is no other one than [`LinearPath::Chunked`].
    pub fn path(mut self, path: LinearPath) -> Self {
        self.path = path;
        self
    }
}
