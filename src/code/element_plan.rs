//! How elementwise losses are spread over a card: a pure function of a call's space and the card.
//!
//! Blocks come as many as fill the card, and go through the elements in turn, so that the number of
//! partial sums, and with it every bit of the result, depends on shapes and card alone.

use crate::code::card::Card;
use crate::code::variants::{Data, ELEMENT_THREADS};
use crate::spec::elementwise::{Operand, Space};

/// Packs of a warp's tile of a line, 32 lanes that have as many each: the more, the less is spent on
/// finding tiles. The fewest are taken where more would leave warps without work.
const TILES: [usize; 3] = [32 * 8, 32 * 4, 32 * 2];
/// Warps of a block.
const WARPS: usize = ELEMENT_THREADS as usize / 32;
/// Blocks a multiprocessor is given: the two or three it holds at once, a few times over.
/// Predicted, not measured.
const BLOCKS: usize = 8;
/// Fewest packs of a line that a warp is worth; shorter lines are gone through by elements.
const SHORTEST_LINE: usize = 16;
/// Terms of a sum that a thread is worth. Predicted.
const THREAD_TERMS: usize = 32;
/// Most parts of a sum.
const MAX_PARTS: usize = 2048;

/// How a pass goes through the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// Packs of a tile, tiles of a line and of all; the operand whose packs are aligned.
    Lines { tile: usize, tiles: usize, units: usize, lead: Operand },
    /// An element a thread.
    Strided,
}

/// As many blocks as there is work for, and no more than fill the card.
fn spread(blocks: usize, card: &Card) -> u32 {
    blocks.min(card.multiprocessors.max(1) as usize * BLOCKS) as u32
}

/// A pass over all elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PassPlan {
    pub(crate) walk: Walk,
    pub(crate) blocks: u32,
}

impl PassPlan {
    /// `written` says what the call writes, of [`Operand::WRITTEN`]; the space is not empty.
    pub(crate) fn new(
        space: &Space,
        written: impl Fn(Operand) -> bool,
        data: Data,
        card: &Card,
    ) -> PassPlan {
        let strided = PassPlan::strided(space.count(), card);
        let Some(d) = space.sizes().len().checked_sub(1) else { return strided };
        let along = |o: &Operand| space.stride(*o, d);
        let (len, lines) = (space.inner(), space.count() / space.inner());
        let lead = [Operand::Input, Operand::Target].into_iter().find(|o| along(o) == 1);
        let Some(lead) = lead else { return strided };
        let fits = Operand::READ.iter().all(|o| along(o) <= 1)
            && Operand::WRITTEN.iter().all(|o| !written(*o) || along(o) == 1);
        // A line that begins in the middle of a pack touches one more.
        let packs = (len / data.lanes()).saturating_add(2);
        let long = lines == 1 || packs >= SHORTEST_LINE;
        // Kernels number a line's packs in 32 bits.
        if !fits || !long || i32::try_from(packs.saturating_add(TILES[0])).is_err() {
            return strided;
        }
        let warps = spread(usize::MAX, card) as usize * WARPS;
        let units = |tile: usize| packs.div_ceil(tile) * lines;
        let tile = TILES.into_iter().find(|&tile| units(tile) >= warps).unwrap_or(TILES[2]);
        let (tiles, units) = (packs.div_ceil(tile), units(tile));
        let blocks = spread(units.div_ceil(WARPS), card);
        PassPlan { walk: Walk::Lines { tile, tiles, units, lead }, blocks }
    }

    /// An element a thread.
    pub(crate) fn strided(count: usize, card: &Card) -> PassPlan {
        let blocks = spread(count.div_ceil(ELEMENT_THREADS as usize), card);
        PassPlan { walk: Walk::Strided, blocks }
    }
}

/// The sums of a gradient that is summed back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SumPlan {
    /// Threads that share a part of an output.
    pub(crate) lanes: u32,
    /// Parts of each output, and terms of a part.
    pub(crate) parts: usize,
    pub(crate) part: usize,
}

impl SumPlan {
    /// `outputs` sums of `terms` terms; `inside`: neighbours in memory are terms of one sum.
    pub(crate) fn new(outputs: usize, terms: usize, inside: bool, card: &Card) -> SumPlan {
        let lanes = if inside { 32 } else { 1 };
        let threads = card.multiprocessors.max(1) as usize * BLOCKS * ELEMENT_THREADS as usize;
        let wanted = threads.div_ceil(outputs.saturating_mul(lanes).max(1));
        let parts = wanted.min(terms.div_ceil(THREAD_TERMS * lanes)).clamp(1, MAX_PARTS);
        let part = terms.div_ceil(parts).max(1);
        SumPlan { lanes: lanes as u32, parts: terms.div_ceil(part).max(1), part }
    }

    /// Blocks of the launch; `None` where there are too many.
    pub(crate) fn blocks(&self, outputs: usize) -> Option<u32> {
        let threads = outputs.checked_mul(self.parts)?.checked_mul(self.lanes as usize)?;
        i32::try_from(threads.div_ceil(ELEMENT_THREADS as usize)).ok().map(|n| n as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::shape::{MAX_RANK, Shape};
    use crate::spec::elementwise::{OPERANDS, Strides};

    fn space(sizes: &[usize], input: &[usize], target: &[usize]) -> Space {
        let mut strides: Strides = [[0; MAX_RANK]; OPERANDS];
        strides[Operand::Input as usize][..input.len()].copy_from_slice(input);
        strides[Operand::GradInput as usize][..input.len()].copy_from_slice(input);
        strides[Operand::Target as usize][..target.len()].copy_from_slice(target);
        Space::new(&Shape::new(sizes).unwrap(), &strides)
    }

    fn plan(space: &Space) -> PassPlan {
        PassPlan::new(space, |o| o == Operand::GradInput, Data::F32, &Card::h100())
    }

    #[test]
    fn neighbours_are_read_by_packs() {
        use Operand::{Input, Target};
        let lines = |tiles, units, lead| Walk::Lines { tile: 64, tiles, units, lead };
        for (sizes, input, target, walk) in [
            (&[1 << 20][..], &[1][..], &[1][..], lines(4097, 4097, Input)),
            (&[7], &[1], &[1], lines(1, 1, Input)),
            (&[100, 1000], &[1003, 1], &[1000, 1], lines(4, 400, Input)),
            (&[100, 1000], &[1000, 1], &[0, 1], lines(4, 400, Input)),
            (&[100, 1000], &[1000, 1], &[1, 0], lines(4, 400, Input)),
            (&[100, 10], &[12, 1], &[10, 1], Walk::Strided),
            (&[100], &[3], &[1], Walk::Strided),
            (&[], &[], &[], Walk::Strided),
        ] {
            assert_eq!(plan(&space(sizes, input, target)).walk, walk, "{sizes:?} {input:?}");
        }
        // The target's packs lead where the input has one element for a line, and no gradient.
        let one = space(&[100, 1000], &[1, 0], &[1000, 1]);
        let got = PassPlan::new(&one, |_| false, Data::F32, &Card::h100());
        assert_eq!(got.walk, lines(4, 400, Target));
    }

    #[test]
    fn tiles_are_large_where_all_warps_have_some() {
        let tile = |n: usize| match plan(&space(&[n], &[1], &[1])).walk {
            Walk::Lines { tile, tiles, units, .. } => {
                assert!(tiles == units && tiles * tile >= n / 4 && (tiles - 1) * tile <= n / 4 + 2);
                tile
            }
            Walk::Strided => 0,
        };
        let warps = 132 * 8 * 8;
        assert_eq!([7, 4 * 128 * warps, 4 * 256 * warps, 1 << 30].map(tile), [64, 128, 256, 256]);
    }

    #[test]
    fn blocks_fill_the_card_and_no_more() {
        let blocks = |n: usize| plan(&space(&[n], &[1], &[1])).blocks;
        assert_eq!((blocks(10), blocks(1 << 30)), (1, 132 * 8));
    }

    #[test]
    fn parts_of_a_sum_have_all_terms() {
        for card in [Card::h100(), Card { multiprocessors: 2, ..Card::h100() }] {
            for outputs in [1, 3, 1000, 1 << 22] {
                for terms in [0, 1, 31, 1000, 1025, 1 << 24] {
                    for inside in [false, true] {
                        let plan = SumPlan::new(outputs, terms, inside, &card);
                        assert!(plan.parts * plan.part >= terms && plan.parts <= MAX_PARTS);
                        assert!(terms == 0 || (plan.parts - 1) * plan.part < terms, "{plan:?}");
                        assert!(plan.blocks(outputs).is_some());
                    }
                }
            }
        }
    }
}
