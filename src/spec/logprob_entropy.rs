//! Log-probability of the target and entropy of the row: options, checks and the maths in words.
//!
//! With z, m, lse and p as in cross entropy, Σ = Σ e^(z − m) and E = Σ p_c·(m − z_c), a kept row has
//!
//! ```text
//! logp     = z_t − lse
//! H        = lse − Σ p_c·z_c = ln Σ + E
//! dz_j     = a·([j = t] − p_j) − b·p_j·(z_j − lse + H) = a·([j = t] − p_j) − b·p_j·((z_j − m) + E)
//! ```
//!
//! for upstream a on logp and b on H. The right-hand forms know nothing of a common offset of the
//! logits; both terms of H are sums of what is not negative. A term with p_c = 0 is 0.

use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::base::validate;
use crate::spec::cross_entropy::{Checked, CrossEntropy};
use crate::spec::grad_output::GradOutput;

/// Log-probability of the target, and entropy of the distribution, of every row of logits, in
/// nats: one read for both, and one gradient of both.
///
/// It is what policy gradients ask of a model: `logp = z_t − lse`, `H = −Σ p ln p`. Composed from
/// `torch.log_softmax` the entropy of a row with a masked class (−∞) is NaN; here such a class
/// adds 0. Options as in [`CrossEntropy`]: scale, then soft-cap.
///
/// | tensor | shape | dtype |
/// |---|---|---|
/// | logits | `[C]`, `[N, C]` or `[N, C, d1, …]`, row stride free | f32, f16, bf16 |
/// | target | `[]` or `[1]`, `[N]`, `[N, d1, …]` | i64, i32, u32, u8 |
/// | logprob, entropy, lse | the target's shape; 0 for ignored rows, whatever they hold | f32 |
/// | argmax, rank | the target's shape, on request; −1 for ignored rows | i64 |
/// | grad_logprob, grad_entropy | a number, or the target's shape | f32 or the logits' |
///
/// A row with NaN or +∞, or of −∞ alone, is NaN; −∞ at the target is a log-probability of −∞ with
/// a finite gradient. Sums are f32 or wider; the same input gives the same bits.
///
/// ```
/// use warploss::{Device, LogprobEntropy, TensorRef};
/// let logits = TensorRef::new(&[0.0f32, 0.0, f32::NEG_INFINITY], &[1, 3])?;
/// let target = TensorRef::new(&[1i64], &[1])?;
/// let out = LogprobEntropy::default().forward(&Device::best(), logits, target)?;
/// assert_eq!(out.logprob.as_slice::<f32>(), Some(&[-std::f32::consts::LN_2][..]));
/// assert_eq!(out.entropy.as_slice::<f32>(), Some(&[std::f32::consts::LN_2][..]));
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "options do nothing until a call is made with them"]
pub struct LogprobEntropy {
    /// Its rows are those of cross entropy: the same options, checks and targets.
    pub(crate) rows: CrossEntropy<'static>,
}

impl Default for LogprobEntropy {
    fn default() -> Self {
        LogprobEntropy { rows: CrossEntropy::default().reduction(Reduction::None) }
    }
}

/// Where a forward pass writes.
#[derive(Debug)]
pub struct LogprobEntropyOut<'a> {
    /// Log-probability of the target; the target's shape, f32.
    pub logprob: TensorMut<'a>,
    /// Entropy of the row; the target's shape, f32.
    pub entropy: TensorMut<'a>,
    /// Log-sum-exp of z, which a later backward pass takes; the target's shape, f32.
    pub lse: Option<TensorMut<'a>>,
    /// The class that beats all others ([`Ranks::argmax`](crate::Ranks::argmax)); the target's shape, i64.
    pub argmax: Option<TensorMut<'a>>,
    /// How many classes beat the target ([`Ranks::rank`](crate::Ranks::rank)); the target's shape, i64.
    pub rank: Option<TensorMut<'a>>,
}

impl<'a> LogprobEntropyOut<'a> {
    /// Only the two results.
    pub fn new(logprob: TensorMut<'a>, entropy: TensorMut<'a>) -> Self {
        LogprobEntropyOut { logprob, entropy, lse: None, argmax: None, rank: None }
    }
}

/// What an allocating forward pass returns; the target's shape, f32, 0 for ignored rows.
#[derive(Debug, Clone, PartialEq)]
pub struct LogprobEntropyOutput {
    /// Log-probability of the target.
    pub logprob: Tensor,
    /// Entropy of the row.
    pub entropy: Tensor,
    /// Log-sum-exp of z.
    pub lse: Tensor,
}

/// What a fused forward and backward pass returns: the logits' memory now holds the gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct LogprobEntropyGrad {
    /// Log-probability, entropy and log-sum-exp.
    pub output: LogprobEntropyOutput,
    /// Gradient with respect to the logits, in their memory, shape and dtype.
    pub grad_logits: Tensor,
}

/// Upstream gradients of the two results, each a number or one per row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogprobEntropyUpstream<'a> {
    /// What a change of the log-probability is worth. Default 1.
    pub grad_logprob: GradOutput<'a>,
    /// What a change of the entropy is worth. Default 0.
    pub grad_entropy: GradOutput<'a>,
}

impl Default for LogprobEntropyUpstream<'_> {
    fn default() -> Self {
        LogprobEntropyUpstream { grad_logprob: 1.0.into(), grad_entropy: 0.0.into() }
    }
}

impl LogprobEntropyUpstream<'_> {
    pub(crate) fn check(&self, checked: &Checked<'_>) -> Result<()> {
        let (rows, dtype) = (checked.rows, checked.dtype);
        self.grad_logprob.check_as("grad_logprob", rows, dtype)?;
        self.grad_entropy.check_as("grad_entropy", rows, dtype)
    }

    /// Where they lie, in the order of the fields.
    pub(crate) fn places(&self) -> [&'static str; 2] {
        [self.grad_logprob, self.grad_entropy].map(|g| match g {
            GradOutput::Number(_) => "host",
            GradOutput::Tensor(t) => t.place(),
        })
    }
}

impl LogprobEntropy {
    /// The label of rows that do not count; any integer. Default −100.
    pub fn ignore_index(self, label: i64) -> Self {
        LogprobEntropy { rows: self.rows.ignore_index(label) }
    }

    /// s in (0, 2e38], the inverse temperature. Default 1.
    pub fn logit_scale(self, scale: f32) -> Self {
        LogprobEntropy { rows: self.rows.logit_scale(scale) }
    }

    /// c > 0: logits become c·tanh(s·x/c). Default `None`: no cap.
    pub fn softcap(self, cap: Option<f32>) -> Self {
        LogprobEntropy { rows: self.rows.softcap(cap) }
    }

    /// As [`CrossEntropy::softcap_approximate`]. Default false.
    pub fn softcap_approximate(self, approximate: bool) -> Self {
        LogprobEntropy { rows: self.rows.softcap_approximate(approximate) }
    }

    pub(crate) fn check_backward<'a>(
        &'a self,
        logits: &TensorRef<'_>,
        target: &TensorRef<'a>,
        lse: &TensorRef<'_>,
        upstream: &LogprobEntropyUpstream<'_>,
    ) -> Result<Checked<'a>> {
        let checked = self.rows.check_classes(logits, target)?;
        validate::f32_output("lse", lse, checked.rows, "the target's")?;
        upstream.check(&checked)?;
        Ok(checked)
    }
}

impl LogprobEntropyOut<'_> {
    pub(crate) fn check(&self, checked: &Checked<'_>) -> Result<()> {
        let rows = checked.rows;
        let results = [("logprob", Some(&self.logprob)), ("entropy", Some(&self.entropy))];
        for (argument, out) in results.into_iter().chain([("lse", self.lse.as_ref())]) {
            if let Some(out) = out {
                validate::f32_output(argument, &out.as_ref(), rows, "the target's")?;
            }
        }
        checked.check_ranks(&self.argmax, &self.rank)
    }
}

impl LogprobEntropyOutput {
    pub(crate) fn out(&mut self) -> LogprobEntropyOut<'_> {
        LogprobEntropyOut {
            lse: Some(self.lse.view_mut()),
            ..LogprobEntropyOut::new(self.logprob.view_mut(), self.entropy.view_mut())
        }
    }
}

/// A call that has passed the checks, with everything that it reads and writes.
#[derive(Debug)]
#[expect(clippy::large_enum_variant)] // One a call, on its stack.
pub(crate) enum Call<'a> {
    Forward {
        logits: TensorRef<'a>,
        out: LogprobEntropyOut<'a>,
    },
    /// From a saved log-sum-exp.
    Backward {
        logits: TensorRef<'a>,
        lse: TensorRef<'a>,
        upstream: LogprobEntropyUpstream<'a>,
        grad_logits: TensorMut<'a>,
    },
    /// The same, over the logits.
    BackwardInPlace {
        logits: TensorMut<'a>,
        lse: TensorRef<'a>,
        upstream: LogprobEntropyUpstream<'a>,
    },
    /// In one pass, the gradient over the logits.
    ForwardBackward {
        logits: TensorMut<'a>,
        upstream: LogprobEntropyUpstream<'a>,
        out: LogprobEntropyOut<'a>,
    },
}
