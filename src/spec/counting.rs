//! What a batch is counted by.

use crate::base::reduction::Reduction;
use crate::base::tensor::TensorRef;

/// Which rows count and how much: beside class indices, what a census goes over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counting<'a> {
    /// Positions, each with a class if any has.
    pub(crate) rows: usize,
    pub(crate) weight: Option<TensorRef<'a>>,
    pub(crate) classes: usize,
    /// The class of rows that do not count; none: all do.
    pub(crate) ignore_index: Option<i64>,
    /// Whether rows count as 1 each, whatever their classes weigh.
    pub(crate) by_rows: bool,
    pub(crate) reduction: Reduction,
}
