//! Cross entropy of logits that are products: options, checks and the maths in words.
//!
//! With hidden states x `[N, D]` and a classifier W `[V, D]`, b `[V]`, a row r has the logits
//!
//! ```text
//! a_r = (W·x_r + b) / τ_r
//! ```
//!
//! and the loss u_r·ℓ(a_r) with the ℓ of [`CrossEntropy`], options and all; the mean divides by Σ u_r·w_t over
//! kept rows (the z-loss by Σ u_r). With G the gradient of a, one row each:
//!
//! ```text
//! ∂x_r = G_r·W / τ_r      ∂W = Σ_r G_rᵀ·x_r / τ_r      ∂b = Σ_r G_r / τ_r
//! ```
//!
//! Logits are f32 and never all in memory: they are made, turned into their gradient and multiplied out a
//! chunk of rows at a time. What an ignored row holds is not read.

mod call;
mod checked;
mod input;
mod outputs;
mod positions;

use crate::base::error::{Error, Result};
use crate::spec::cross_entropy::CrossEntropy;

pub(crate) use call::Call;
pub(crate) use checked::{CheckedLinear, check_classifier, rows_of};
pub use input::LinearInput;
pub(crate) use outputs::REST;
pub use outputs::{LinearGrad, LinearGradOut, LinearOutputs};

/// Cross entropy between hidden states times a classifier, and class indices or class probabilities, in nats;
/// the logits are never all in memory.
///
/// Its options are those of [`CrossEntropy`], which it is made from; PyTorch's function is
/// `torch.nn.functional.linear_cross_entropy`.
///
/// | tensor ([`LinearInput`]) | shape | dtype |
/// |---|---|---|
/// | input | `[D]` or `[N, D]`, row stride free | f32, f16, bf16 |
/// | linear_weight | `[V, D]`, row stride free; `[V, d1, …, D]` of `[N, D]` | the input's |
/// | linear_bias | `[V]`; `[V, d1, …]` | the input's |
/// | target, indices | `[]` or `[1]`, `[N]`; `[N, d1, …]` | i64, i32, u32, u8 |
/// | target, probabilities | `[V]` or `[N, V]`, row stride free; `[N, V, d1, …]` | the input's |
/// | temperature, row_weight | one a row | f32 |
/// | weight (of classes) | `[V]` | f32 or the input's |
/// | loss, lse, … ([`CrossEntropyOut`](crate::CrossEntropyOut)) | as of logits `[N, V]`; `[N, V, d1, …]` | f32, i64 |
/// | gradients ([`LinearGradOut`]) | those of what they belong to | the input's |
///
/// A classifier of more dimensions than two has one for each position, and a row a loss for each; temperatures, weights
/// of rows, lists of classes, a gradient filter and [`LinearPath::Tiled`] are for rows that share one.
///
/// Sums are f32 or wider. On the CPU their order depends neither on the number of threads nor on the size of
/// chunks: the same input gives the same bits, and a row's results do not depend on the other rows of the batch.
/// On a GPU that is so as far as the library's products keep to it.
/// Gradients of the classifier are added up in f32 and rounded once where the budget has room for that.
///
/// ```
/// use warploss::{CrossEntropy, Device, LinearCrossEntropy, LinearInput, TensorRef};
/// let hidden = TensorRef::new(&[1.0f32, 2.0, -1.0, 0.5], &[2, 2])?;
/// let classifier = TensorRef::new(&[1.0f32, 0.0, 0.0, 1.0, -1.0, 1.0], &[3, 2])?;
/// let target = TensorRef::new(&[1i64, 2], &[2])?;
/// let loss = LinearCrossEntropy::from(CrossEntropy::default().label_smoothing(0.1));
/// let input = LinearInput::new(hidden, classifier, target);
/// let result = loss.forward_backward(&Device::best(), &input, 1.0)?;
/// assert!((result.output.loss.item()? - 0.5532).abs() < 1e-3);
/// assert_eq!(*result.linear_weight.shape(), [3, 2]);
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "options do nothing until a call is made with them"]
pub struct LinearCrossEntropy<'w> {
    pub(crate) of_logits: CrossEntropy<'w>,
    pub(crate) path: LinearPath,
    pub(crate) workspace: usize,
    pub(crate) round_grad_logits: bool,
    pub(crate) gradient_filter: Option<f32>,
    pub(crate) skip_ignored: bool,
}

/// How logits are made that are never all in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LinearPath {
    /// Chosen from shapes, dtype, budget and device.
    #[default]
    Auto,
    /// By products of a library over chunks of rows, with the loss in place between them.
    Chunked,
    /// Tile by tile: a tile's logits are gone through while they are in registers (CUDA) or a cache (CPU: results
    /// alone, of class indices among more than 256), and of each row what its blocks of classes sum to is kept.
    Tiled,
}

/// What a call will do: [`LinearCrossEntropy::plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearPlan {
    /// [`LinearPath::Chunked`] or [`LinearPath::Tiled`].
    pub path: LinearPath,
    /// Rows whose logits, or what tiles of them sum to, are there at once.
    pub chunk_rows: usize,
    /// Bytes of memory beside inputs, outputs and gradients, at most.
    pub workspace_bytes: usize,
}

/// Bytes of a call's buffers, unless the caller has another budget.
pub(crate) const WORKSPACE: usize = 512 << 20;

impl Default for LinearCrossEntropy<'_> {
    fn default() -> Self {
        CrossEntropy::default().into()
    }
}

impl<'w> From<CrossEntropy<'w>> for LinearCrossEntropy<'w> {
    fn from(of_logits: CrossEntropy<'w>) -> Self {
        LinearCrossEntropy {
            of_logits,
            path: LinearPath::Auto,
            workspace: WORKSPACE,
            round_grad_logits: false,
            gradient_filter: None,
            skip_ignored: true,
        }
    }
}

impl LinearCrossEntropy<'_> {
    /// Bytes that a call may take beside its inputs, outputs and gradients. Default 512 MiB. Chunks are as long
    /// as that allows; the results do not depend on it. On the CPU a thread's products take up to 4 MiB of their own,
    /// within it where there is room for that.
    pub fn max_workspace_bytes(mut self, bytes: usize) -> Self {
        self.workspace = bytes;
        self
    }

    /// Whether the logits' gradient may be rounded to bf16 before the products that it goes into, where tensors are
    /// of 16 bits and that saves products: on a GPU each of them is two otherwise, of a number's two parts. It is
    /// what most fused kernels do; a gradient is then off by up to 2⁻⁹ of the size of its terms, before its own
    /// rounding. Default false.
    pub fn round_grad_logits(mut self, round: bool) -> Self {
        self.round_grad_logits = round;
        self
    }

    /// A bound below which a backward pass takes no notice of a class: where |p - y| is below it for all of a row's
    /// classes from 64·i to 64·i + 63 (p: the softmax of the row's logits, as the loss has them; y: 1 for the
    /// target, else 0; with a z-loss the target always counts), the gradient of these logits is 0. It depends neither
    /// on other rows nor on the path. On a GPU ([`LinearPath::Tiled`] alone has it there) products go by
    /// what has no other, 128 rows by 64 classes or 32 rows by 128 classes at a time. How much that saves, and what it
    /// costs in the gradients, depends on how peaked distributions are: `benches/NOTES.md` has both for bounds from
    /// 1e-6 to 1e-3; at 1e-5 less was lost than by rounding the logits' gradient to bf16. For class indices without
    /// label smoothing or lists of classes. Default `None`.
    pub fn gradient_filter(mut self, bound: Option<f32>) -> Self {
        self.gradient_filter = bound;
        self
    }

    /// Whether ignored rows take no part in a library's products on a GPU. The host then waits, once, until the device
    /// has counted the others: in a call that goes through several chunks, and for gradients by [`LinearPath::Tiled`].
    /// Half of the rows ignored are half of the products. While a stream is captured it does not wait, and takes all
    /// rows for such as count. `false`: no call waits, and ignored rows are multiplied as zeros. A call of one chunk
    /// and one with a gradient filter never do, nor does the CPU. Default true.
    pub fn skip_ignored(mut self, skip: bool) -> Self {
        self.skip_ignored = skip;
        self
    }

    /// Default [`LinearPath::Auto`].
    pub fn path(mut self, path: LinearPath) -> Self {
        self.path = path;
        self
    }
}

/// A budget that is too small, and the least that would do.
pub(crate) fn small_budget(least: usize, got: usize) -> Error {
    Error::Value {
        argument: "max_workspace_bytes",
        expected: format!("at least {least} for these shapes"),
        got: got.to_string(),
    }
}

impl LinearPath {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            LinearPath::Auto => "auto",
            LinearPath::Chunked => "chunked",
            LinearPath::Tiled => "tiled",
        }
    }

    /// An error that says which paths there are, for one that a device does not have.
    pub(crate) fn refuse<T>(self, device: &'static str, has: &'static str) -> Result<T> {
        let got = format!("{} on {device}", self.name());
        Err(Error::Value { argument: "path", expected: has.into(), got })
    }
}
