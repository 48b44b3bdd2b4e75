//! Cross entropy of given logits over lists of classes (`spec/class_subset.rs` has the maths).

use crate::base::error::Result;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::base::validate;
use crate::spec::class_subset::ClassSubset;
use crate::spec::cross_entropy::{CrossEntropy, CrossEntropyOutput};
use crate::spec::linear_cross_entropy::{
    CheckedLinear, LinearCrossEntropy, LinearGradOut, LinearInput,
};

/// Cross entropy of logits over lists of classes ([`ClassSubset`]), in nats; logits that a row does not list are
/// not read, and their gradient is 0.
///
/// It is made from a [`CrossEntropy`], whose options it has but for label smoothing; from hidden states the
/// same is [`LinearInput::subset`].
///
/// | tensor ([`SubsetInput`]) | shape | dtype |
/// |---|---|---|
/// | logits | `[V]` or `[N, V]`, row stride free | f32, f16, bf16 |
/// | target, indices | `[]` or `[1]`, `[N]` | i64, i32, u32, u8 |
/// | target, probabilities of the listed | `[K]`, `[N, K]`, row stride free | the logits' |
/// | temperature, row_weight | one a row | f32 |
///
/// ```
/// use warploss::{ClassSubset, CrossEntropy, Device, SubsetCrossEntropy, SubsetInput, TensorRef};
/// // Class 3 was masked when the token was drawn: it has no part in its probability.
/// let logits = TensorRef::new(&[1.0f32, 1.0, 0.0, 9.0], &[1, 4])?;
/// let target = TensorRef::new(&[1i64], &[1])?;
/// let kept = TensorRef::new(&[1i64, 0, -1], &[1, 3])?;
/// let loss = SubsetCrossEntropy::from(CrossEntropy::default());
/// let input = SubsetInput::new(logits, target, ClassSubset::per_row(kept, None));
/// let result = loss.forward_backward(&Device::best(), &input, 1.0)?;
/// assert!((result.output.loss.item()? - 2f32.ln()).abs() < 1e-6);
/// let gradient = result.logits.to_host()?;
/// let gradient = gradient.as_slice::<f32>().unwrap_or_default();
/// assert!(gradient.iter().zip([0.5, -0.5, 0.0, 0.0]).all(|(g, e)| (g - e).abs() < 1e-6));
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use = "options do nothing until a call is made with them"]
pub struct SubsetCrossEntropy<'w>(pub(crate) LinearCrossEntropy<'w>);

/// Logits, what they are to be, and the classes that count.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct SubsetInput<'a>(LinearInput<'a>);

/// Memory that gradients are written to; a [`TensorMut`] stands for that of the logits alone.
#[derive(Debug)]
pub struct SubsetGradOut<'a> {
    /// The logits' shape and dtype, row stride free.
    pub logits: TensorMut<'a>,
    /// The gradient with respect to probabilities; their shape and dtype, row stride free.
    pub target: Option<TensorMut<'a>>,
}

/// What an allocating forward and backward pass returns.
#[derive(Debug, Clone, PartialEq)]
pub struct SubsetGrad {
    /// Loss, log-sum-exp and z-loss.
    pub output: CrossEntropyOutput,
    /// Gradient of the logits; their shape and dtype.
    pub logits: Tensor,
}

impl<'w> From<CrossEntropy<'w>> for SubsetCrossEntropy<'w> {
    fn from(of_logits: CrossEntropy<'w>) -> Self {
        SubsetCrossEntropy(of_logits.into())
    }
}

impl<'a> From<TensorMut<'a>> for SubsetGradOut<'a> {
    fn from(logits: TensorMut<'a>) -> Self {
        SubsetGradOut { logits, target: None }
    }
}

impl<'a> SubsetInput<'a> {
    /// Without temperatures and weights of rows.
    pub fn new(logits: TensorRef<'a>, target: TensorRef<'a>, subset: ClassSubset<'a>) -> Self {
        // Logits are their own products: there is no classifier.
        SubsetInput(LinearInput::new(logits, logits, target).subset(subset))
    }

    /// With a temperature for each row.
    pub fn temperature(self, temperature: TensorRef<'a>) -> Self {
        SubsetInput(self.0.temperature(temperature))
    }

    /// With a weight for each row.
    pub fn row_weight(self, weight: TensorRef<'a>) -> Self {
        SubsetInput(self.0.row_weight(weight))
    }

    /// The logits.
    pub(crate) fn logits(&self) -> &TensorRef<'a> {
        &self.0.input
    }
}

impl SubsetCrossEntropy<'_> {
    /// Bytes that a call may take beside its inputs, outputs and gradients. Default 512 MiB.
    pub fn max_workspace_bytes(self, bytes: usize) -> Self {
        SubsetCrossEntropy(self.0.max_workspace_bytes(bytes))
    }

    /// Everything about the inputs that can be told without reading them.
    pub(crate) fn check<'a>(&'a self, of: &SubsetInput<'a>) -> Result<CheckedLinear<'a>> {
        validate::float("logits", of.logits())?;
        validate::classes("logits", of.logits().shape())?;
        self.0.check_given(&of.0)
    }
}

impl<'a> SubsetGradOut<'a> {
    /// As those of hidden states, which the logits stand for.
    pub(crate) fn of_input(self) -> LinearGradOut<'a> {
        LinearGradOut { input: Some(self.logits), target: self.target, ..LinearGradOut::default() }
    }
}
