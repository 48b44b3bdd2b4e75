//! What a call takes whose logits are made tile by tile: states of rows, and for a backward pass the gradient of
//! the logits of some classes at a time (a slab), for all rows.

use super::budget::Sizes;
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::variants::Loss;
use crate::cuda::matrix::factors::{SUM, two_parts};
use crate::cuda::matrix::products::padded;
use crate::cuda::matrix::slab_products::Extent;
use crate::cuda::matrix::wide_tiles::{CLASSES, SLOT, splits};
use crate::spec::linear_cross_entropy::{CheckedLinear, small_budget};

/// Words of what a row's gradient is made of, at most (`TokenSlopes`), and of what it must reach (`LinearLimits`).
const SLOPES: usize = 5;
pub(super) const LIMITS: usize = 2;
/// Words of a row's state at most.
const WORDS: usize = Loss::CrossEntropyTokens.words();
/// Blocks of memory beside those of [`Sizes::fixed`], each of which is a multiple of a grain.
const GRAINS: usize = 16 * 512;

/// How a call goes through classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slabs {
    /// Parts of the classes that blocks go through at the same time.
    pub(super) splits: usize,
    /// Classes whose logits' gradient is there at once; 0 without a backward pass.
    pub(super) classes: usize,
    /// Bytes of sums on their way to 16 bits.
    pub(super) room: usize,
    /// All of it, at most.
    pub(super) bytes: usize,
}

impl Slabs {
    /// # Errors
    /// A budget that does not do for a tile of classes.
    pub(super) fn new(checked: &CheckedLinear<'_>, sizes: &Sizes) -> Result<Slabs> {
        let all = checked.options.workspace;
        let splits = splits(sizes.classes);
        let fixed = sizes.fixed().saturating_add(of_rows(sizes, splits)).saturating_add(GRAINS);
        let of = extent(sizes);
        let one = if sizes.back { of.of_slab(CLASSES.min(sizes.classes)) } else { 0 };
        let least_room = sizes.least_room();
        let least = fixed.saturating_add(one).saturating_add(least_room);
        if all < least {
            return Err(small_budget(least, all));
        }
        let room = match least_room {
            0 => 0,
            least_room => (all / 8).min(SUM).clamp(least_room, all - fixed - one),
        };
        let slab = if sizes.back { of.slab(all - fixed - room) } else { 0 };
        let bytes = fixed + room + of.of_slab(slab);
        Ok(Slabs { splits, classes: slab, room, bytes })
    }
}

/// Bytes of what all rows have beside their numbers: slots, states, targets' logits, what gradients are made of, the
/// hidden rows that are read, their parts, and their gradient.
fn of_rows(sizes: &Sizes, splits: usize) -> usize {
    let mut row = SLOT + 4 + 4 * WORDS * splits;
    if sizes.back {
        let features = padded(sizes.features);
        row += 4 * (SLOPES + LIMITS) + sizes.dtype.size() * features + 4 * features;
        row += if sizes.dtype == DType::F16 { 2 * two_parts(sizes.features) } else { 0 };
    }
    sizes.n.saturating_mul(row)
}

fn extent(sizes: &Sizes) -> Extent {
    let Sizes { n, features, classes, dtype, .. } = *sizes;
    Extent { n, features, classes, dtype }
}
