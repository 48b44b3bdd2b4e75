//! What is read.

use crate::base::tensor::TensorRef;

/// Hidden states and the classifier that makes logits of them.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct LinearHead<'a> {
    /// Hidden states, `[D]` or `[N, D]`.
    pub input: TensorRef<'a>,
    /// The classifier, `[V, D]`.
    pub linear_weight: TensorRef<'a>,
    /// `[V]`.
    pub linear_bias: Option<TensorRef<'a>>,
    /// τ > 0 of each row, finite, f32: logits are divided by it. Default 1 each.
    pub temperature: Option<TensorRef<'a>>,
}

impl<'a> LinearHead<'a> {
    /// Without bias and temperatures.
    pub fn new(input: TensorRef<'a>, linear_weight: TensorRef<'a>) -> LinearHead<'a> {
        LinearHead { input, linear_weight, linear_bias: None, temperature: None }
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

    /// All tensors that there are.
    pub(super) fn tensors(&self) -> impl Iterator<Item = TensorRef<'a>> {
        let optional = [self.linear_bias, self.temperature];
        [self.input, self.linear_weight].into_iter().chain(optional.into_iter().flatten())
    }
}

/// A student and its teacher.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct DistillationInput<'a> {
    /// The model that learns.
    pub student: LinearHead<'a>,
    /// The one that it learns from: of as many rows and classes.
    pub teacher: LinearHead<'a>,
    /// u ≥ 0 of each row, finite, f32: the row's loss is multiplied by it, and a mean divides by what they add up
    /// to. Default 1 each.
    pub row_weight: Option<TensorRef<'a>>,
}

impl<'a> DistillationInput<'a> {
    /// Without weights of rows.
    pub fn new(student: LinearHead<'a>, teacher: LinearHead<'a>) -> DistillationInput<'a> {
        DistillationInput { student, teacher, row_weight: None }
    }

    /// With a weight for each row.
    pub fn row_weight(mut self, weight: TensorRef<'a>) -> Self {
        self.row_weight = Some(weight);
        self
    }
}
