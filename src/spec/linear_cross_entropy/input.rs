//! What is read.

use crate::base::tensor::TensorRef;
use crate::spec::class_subset::ClassSubset;

/// Hidden states, the classifier that makes logits of them, and what they are to be.
///
/// ```
/// use warploss::{LinearInput, TensorRef};
/// let hidden = TensorRef::new(&[1.0f32, 2.0, -1.0, 0.5], &[2, 2])?;
/// let classifier = TensorRef::new(&[1.0f32, 0.0, 0.0, 1.0, -1.0, 1.0], &[3, 2])?;
/// let target = TensorRef::new(&[1i64, 2], &[2])?;
/// let bias = TensorRef::new(&[0.5f32, 0.0, 0.0], &[3])?;
/// let input = LinearInput::new(hidden, classifier, target).linear_bias(bias);
/// # Ok::<(), warploss::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct LinearInput<'a> {
    /// Hidden states, `[D]` or `[N, D]`.
    pub input: TensorRef<'a>,
    /// The classifier, `[V, D]`; one for each of several positions, `[V, d1, …, D]`, of hidden states `[N, D]`.
    pub linear_weight: TensorRef<'a>,
    /// `[V]`; `[V, d1, …]`.
    pub linear_bias: Option<TensorRef<'a>>,
    /// Class indices, `[]` or `[N]`; or class probabilities, `[V]` or `[N, V]`; of listed classes `[K]` or `[N, K]`; of
    /// several positions `[N, d1, …]` or `[N, V, d1, …]`.
    pub target: TensorRef<'a>,
    /// τ > 0 of each row, finite, f32: logits are divided by it. Default 1 each.
    pub temperature: Option<TensorRef<'a>>,
    /// u ≥ 0 of each row, finite, f32: the row's loss is multiplied by it, and the mean divides by what they add
    /// up to. Default 1 each.
    pub row_weight: Option<TensorRef<'a>>,
    /// The classes over which the softmax of each row goes. Default: all.
    pub subset: Option<ClassSubset<'a>>,
}

impl<'a> LinearInput<'a> {
    /// Without bias, temperatures and weights of rows, over all classes.
    pub fn new(
        input: TensorRef<'a>,
        linear_weight: TensorRef<'a>,
        target: TensorRef<'a>,
    ) -> LinearInput<'a> {
        let (linear_bias, temperature, row_weight, subset) = (None, None, None, None);
        LinearInput { input, linear_weight, linear_bias, target, temperature, row_weight, subset }
    }

    /// With a bias.
    pub fn linear_bias(mut self, bias: TensorRef<'a>) -> Self {
        self.linear_bias = Some(bias);
        self
    }

    /// With a temperature for each row.
    pub fn temperature(mut self, temperature: TensorRef<'a>) -> Self {
        self.temperature = Some(temperature);
        self
    }

    /// With a weight for each row.
    pub fn row_weight(mut self, weight: TensorRef<'a>) -> Self {
        self.row_weight = Some(weight);
        self
    }

    /// Over listed classes alone; of the classifier only their rows are read.
    pub fn subset(mut self, subset: ClassSubset<'a>) -> Self {
        self.subset = Some(subset);
        self
    }

    /// All tensors that there are, but for input and target.
    pub(super) fn others(&self) -> impl Iterator<Item = TensorRef<'a>> {
        let optional = [self.linear_bias, self.temperature, self.row_weight];
        let lists = self.subset.into_iter().flat_map(|subset| subset.tensors().collect::<Vec<_>>());
        std::iter::once(self.linear_weight).chain(optional.into_iter().flatten()).chain(lists)
    }
}
