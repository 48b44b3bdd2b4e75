//! `--ranks`: the tensors `argmax` and `rank` beside an op's own.

use crate::base::dtype::DType;
use crate::base::tensor::Tensor;
use crate::spec::ranks::Ranks;

/// Bytes of the tensors.
pub(super) fn bytes(wanted: bool, rows: usize) -> u128 {
    if wanted { 2 * super::call::bytes(DType::I64, &[rows]) } else { 0 }
}

/// The tensors by name, where they were asked for.
pub(super) fn named(ranks: Option<Ranks>) -> impl Iterator<Item = (String, Tensor)> {
    let both = ranks.map(|r| [("argmax".to_owned(), r.argmax), ("rank".to_owned(), r.rank)]);
    both.into_iter().flatten()
}
