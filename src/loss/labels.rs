//! What a batch is counted by.

use crate::{Reduction, TensorRef};

/// Targets, and what says which of them count and how much: a census goes over these. The loss has
/// checked their shapes and dtypes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Labels<'a> {
    pub(crate) target: TensorRef<'a>,
    /// Positions that have a target each.
    pub(crate) rows: usize,
    pub(crate) weight: Option<TensorRef<'a>>,
    pub(crate) classes: usize,
    pub(crate) ignore_index: i64,
    pub(crate) reduction: Reduction,
}
