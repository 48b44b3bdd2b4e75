//! What a call over lists takes beside its inputs, outputs and gradients.

use crate::code::args::Totals;
use crate::code::plan::MAX_PARTS;
use crate::cuda::loss::linear_cross_entropy::budget::{GRAIN, PART_BYTES, WIDEST};
use crate::cuda::loss::linear_cross_entropy::rows;
use crate::cuda::matrix::products::padded;
use crate::spec::cross_entropy::checked::Target;
use crate::spec::linear_cross_entropy::CheckedLinear;

/// Pieces of memory of a call, at most.
const BLOCKS: usize = 24;
/// Parts that a block sorts.
const SORTED: usize = 2048;

/// Bytes of all rows at once: there are as many logits as were listed.
pub(super) fn bytes(checked: &CheckedLinear<'_>, back: bool) -> usize {
    let (n, columns) = (checked.rows, checked.classes());
    let stride = padded(columns);
    let soft = matches!(checked.of_logits.target, Target::Soft(_));
    let classes = checked.subset.map_or(0, |subset| subset.classes);
    // Classes, their rows and logits; where probabilities stood, those, and their gradient.
    let mut place = 8 + 8 + 4;
    place += if soft { 8 + 4 } else { 0 };
    place += if soft && back { 4 } else { 0 };
    let bucket = checked.subset.is_some_and(|subset| subset.bucket);
    // What multiplies a listed class's gradient under a soft-cap.
    place += if bucket && back { 4 } else { 0 };
    // Twice a class and its part, while they are sorted.
    let sorts = back && !bucket;
    place += if sorts { 32 } else { 0 };
    let sorted = if sorts { 1024 * (n.saturating_mul(stride).div_ceil(SORTED) + 1) } else { 0 };
    // Label, place, weight and what is wrong; losses in f64; what the rest is; marks and upstream gradients.
    let row = 8 + 8 + 4 + 8 + 16 + if bucket { 8 } else { 0 } + rows::BYTES + split(columns, soft);
    let chunks = n.div_ceil(4096) + classes.div_ceil(4096);
    let census = size_of::<Totals>() + 28 * (chunks + 1);
    n.saturating_mul(stride.saturating_mul(place).saturating_add(row))
        .saturating_add(sorted + census + (BLOCKS + rows::PIECES) * GRAIN)
}

/// Bytes that kernels leave of a row that is split.
fn split(columns: usize, soft: bool) -> usize {
    let parts = (4 * columns).div_ceil(PART_BYTES).min(MAX_PARTS) + 1;
    let words = WIDEST.map(|loss| loss.words() + 1 + loss.second_words());
    8 + if parts > 2 { parts * 4 * words[usize::from(soft)] } else { 0 }
}
