//! How a call's bytes are spent: on what all rows have, on the classifier's gradient on its way, and then on as
//! many rows of logits as there is room for.

use super::{by_slot, rows};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args::Totals;
use crate::code::plan::MAX_PARTS;
use crate::code::variants::Loss;
use crate::cuda::matrix::factors::{SUM, two_parts};
use crate::cuda::matrix::products::padded;
use crate::cuda::matrix::wide_tiles::SLOT;
use crate::spec::cross_entropy::checked::Target;
use crate::spec::cross_entropy::{CrossEntropyOut, TopKOut};
use crate::spec::linear_cross_entropy::{
    CheckedLinear, LinearGradOut, LinearOutputs, small_budget,
};

/// What the pool's blocks are multiples of, and how many a call takes at most.
pub(in crate::cuda::loss) const GRAIN: usize = 512;
const BLOCKS: usize = 24;
/// Bytes of a row that a split's part has at the least (`PART_BYTES` of plans).
pub(in crate::cuda::loss) const PART_BYTES: usize = 16 * 1024;
/// Kernels that leave the most of a part.
pub(in crate::cuda::loss) const WIDEST: [Loss; 2] =
    [Loss::CrossEntropyTop, Loss::SoftCrossEntropyFull];
/// As much as the divergence of two rows leaves.
const _: () = assert!(words(Loss::JsDivLogits) <= words(WIDEST[0]));

const fn words(loss: Loss) -> usize {
    loss.words() + 1 + loss.second_words()
}

impl LinearOutputs {
    /// Those that a call writes.
    pub(crate) fn of(
        gradients: Option<&LinearGradOut<'_>>,
        out: Option<&CrossEntropyOut<'_>>,
    ) -> LinearOutputs {
        LinearOutputs {
            gradients: gradients.is_some(),
            ranks: out.is_some_and(|out| out.argmax.is_some() || out.rank.is_some()),
            top_k: out.and_then(|out| out.top_k.as_ref()).map_or(0, TopKOut::k),
            linear_weight_rest: gradients.is_some_and(|to| to.linear_weight_rest.is_some()),
        }
    }

    /// Whether a row's classes are compared.
    pub(crate) fn in_order(&self) -> bool {
        self.ranks || self.top_k > 0
    }
}

/// What a call takes beside its inputs, outputs and gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cuda::loss) struct Budget {
    /// Rows of a chunk.
    pub(in crate::cuda::loss) rows: usize,
    /// Bytes of what is made of weights for a product, and of sums on their way to 16 bits.
    pub(super) room: usize,
    /// Whether the classifier's gradient is f32 until the end.
    pub(super) wide: bool,
    /// Whether there is room to put rows that count first, and there are chunks that this saves.
    pub(super) packs: bool,
    /// All of it, at most.
    pub(in crate::cuda::loss) bytes: usize,
}

/// What a call takes, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::cuda::loss) struct Needs {
    /// Whatever the chunk.
    pub(in crate::cuda::loss) fixed: usize,
    /// For each of a chunk's rows.
    pub(in crate::cuda::loss) row: usize,
    /// What products need at the least.
    pub(in crate::cuda::loss) least_room: usize,
    /// Gradients of classifiers in f32, where those are of another type.
    pub(in crate::cuda::loss) wide: usize,
    /// Whether they are, whatever else there is room for.
    pub(in crate::cuda::loss) must: bool,
}

impl Budget {
    /// # Errors
    /// One that does not do for a row.
    pub(super) fn new(checked: &CheckedLinear<'_>, outputs: LinearOutputs) -> Result<Budget> {
        let sizes = Sizes::new(checked, outputs.gradients);
        let (n, all) = (checked.rows, checked.options.workspace);
        let needs = Needs { must: outputs.linear_weight_rest, ..sizes.needs() };
        let budget = Budget::of(needs, n, all)?;
        let packs = checked.options.skip_ignored && !sizes.soft && sizes.positions == 1;
        if !packs || budget.rows >= n {
            return Ok(budget);
        }
        // What is known of a row by its slot.
        let row = SLOT + by_slot::BYTES + outputs.top_k * (8 + 4);
        let slots = n.saturating_mul(row).saturating_add(by_slot::PIECES * GRAIN);
        let fixed = needs.fixed.saturating_add(slots);
        let packed = Budget::of(Needs { fixed, ..needs }, n, all);
        // Not where that would cost the f32 sums.
        let packed = packed.ok().filter(|packed| packed.wide == budget.wide);
        Ok(packed.map_or(budget, |packed| Budget { packs: true, ..packed }))
    }

    /// For so many rows, of all these bytes.
    pub(in crate::cuda::loss) fn of(needs: Needs, n: usize, all: usize) -> Result<Budget> {
        let Needs { fixed, row, least_room, wide, must } = needs;
        let at_once = if must { wide } else { 0 };
        let least = fixed.saturating_add(least_room).saturating_add(row).saturating_add(at_once);
        if all < least {
            return Err(small_budget(least, all));
        }
        let most_room = all - fixed - row - at_once;
        let room = match least_room {
            0 => 0,
            least => (all / 8).min(SUM).clamp(least, most_room),
        };
        let left = all - fixed - room;
        // Where all rows go at once their gradient is rounded once as it is.
        let takes = must || wide > 0 && left / row < n && wide <= left / 2;
        let taken = if takes { wide } else { 0 };
        let most = ((left - taken) / row).max(1);
        // Chunks of one length, so that none is much shorter than products like.
        let rows = n.div_ceil(n.div_ceil(most).max(1));
        let bytes = fixed + room + taken + rows * row;
        Ok(Budget { rows, room, wide: takes, packs: false, bytes })
    }
}

/// A call's sizes.
pub(in crate::cuda::loss) struct Sizes {
    pub(in crate::cuda::loss) n: usize,
    pub(in crate::cuda::loss) features: usize,
    pub(in crate::cuda::loss) classes: usize,
    /// Losses of a row.
    pub(in crate::cuda::loss) positions: usize,
    pub(in crate::cuda::loss) dtype: DType,
    pub(in crate::cuda::loss) soft: bool,
    pub(in crate::cuda::loss) back: bool,
    /// Whether class weights are of 16 bits.
    pub(in crate::cuda::loss) narrow_weights: bool,
}

impl Sizes {
    pub(super) fn new(checked: &CheckedLinear<'_>, back: bool) -> Sizes {
        Sizes {
            n: checked.rows,
            features: checked.features,
            classes: checked.columns(),
            positions: checked.positions,
            dtype: checked.input.input.dtype(),
            soft: matches!(checked.of_logits.target, Target::Soft(_)),
            back,
            narrow_weights: checked
                .of_logits
                .options
                .class_weight()
                .is_some_and(|weight| weight.dtype() != DType::F32),
        }
    }

    pub(in crate::cuda::loss) fn needs(&self) -> Needs {
        Needs {
            fixed: self.fixed(),
            row: self.row(),
            least_room: self.least_room(),
            wide: self.wide(),
            must: false,
        }
    }

    pub(super) fn narrow(&self) -> bool {
        self.dtype != DType::F32
    }

    /// Bytes that no chunk changes: the numbers of rows, their losses in f64, the sums of a bias.
    pub(super) fn fixed(&self) -> usize {
        let losses = self.n * self.positions;
        let chunks = losses.div_ceil(4096) + self.classes.div_ceil(4096);
        let census = size_of::<Totals>() + 28 * (chunks + 1);
        let bias = if self.back { 4 * padded(self.classes) } else { 0 };
        let weights = if self.narrow_weights { 4 * padded(self.classes) + GRAIN } else { 0 };
        losses.saturating_mul(16 + rows::BYTES)
            + census
            + bias
            + weights
            + (BLOCKS + rows::PIECES + if self.positions > 1 { 3 } else { 0 }) * GRAIN
    }

    /// Bytes of a row of a chunk.
    fn row(&self) -> usize {
        let [classes, features] = [self.classes, self.features].map(padded);
        let mut bytes = self.dtype.size() * features + 4 * classes;
        if self.back {
            bytes += 4 * features;
            bytes += if self.narrow() { 2 * two_parts(self.classes) } else { 0 };
            bytes += if self.dtype == DType::F16 { 2 * two_parts(self.features) } else { 0 };
        }
        let beside = if self.back { 8 * classes } else { 4 * classes };
        bytes += if self.soft && self.narrow() { beside } else { 0 };
        if self.positions > 1 {
            // Lines that are gathered.
            bytes += 4 * classes + if self.soft { beside } else { 0 };
        }
        bytes + self.positions * self.parts()
    }

    /// Bytes that kernels leave of a row that is split.
    fn parts(&self) -> usize {
        let parts = (4 * self.classes / self.positions).div_ceil(PART_BYTES).min(MAX_PARTS) + 1;
        let words = WIDEST.map(words);
        let words = if self.soft { words[1] } else { words[0] };
        8 + if parts > 2 { parts * 4 * words } else { 0 }
    }

    /// The least bytes of a row of weights in two parts, or of one of a sum.
    pub(super) fn least_room(&self) -> usize {
        match self.back && self.narrow() {
            true => (2 * two_parts(self.features)).max(4 * padded(self.features)),
            false => 0,
        }
    }

    /// Bytes of the classifier's gradient in f32, where it is of another type.
    fn wide(&self) -> usize {
        match self.back && self.narrow() {
            true => self.classes.saturating_mul(4 * padded(self.features)),
            false => 0,
        }
    }
}
