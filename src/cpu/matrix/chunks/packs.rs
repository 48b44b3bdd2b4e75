//! Hidden rows brought into the order in which instructions that multiply pairs take them (`bf16/`): once for logits,
//! and once more for the classifier's gradient, in the same memory. It is no more than f32 rows would take, but for
//! some rows and a line of the cache.

use crate::cpu::matrix::bf16::{Factor, Packed, Parts, Unit, packed_len};
use crate::cpu::matrix::chunks::pairs::Pairs;
use crate::cpu::matrix::chunks::part::{Chunks, block_rows};
use crate::cpu::matrix::product::Panel;
use crate::cpu::matrix::scratch::with_scratch;
use half::bf16;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Features, classes and rows of a block from which on pairs are multiplied: packs of fewer are padding for the most
/// part, and longer than rows in f32.
const LEAST: usize = 32;
/// Rows that a task packs.
const ROWS: usize = 64;

/// Bytes that packs of hidden rows take beyond as many in f32.
pub(crate) fn beyond_wide(features: usize) -> usize {
    4 * packed_len(16, features, Parts::One).max(packed_len(features, 32, Parts::One))
}

/// Elements of memory for so many packed rows of a chunk, in either order.
pub(super) fn packed_rows(chunks: &Chunks<'_>, rows: usize) -> usize {
    let (features, block) = (chunks.features(), block_rows(chunks.classes()));
    let of_block = |n| packed_len(features, n, Parts::One);
    let blocks = rows / block * of_block(block) + of_block(rows % block);
    packed_len(rows, features, Parts::One).max(blocks)
}

impl<'a> Chunks<'a> {
    /// Where such products are faster: shapes alone decide beside the processor, so that no bit depends on the rest.
    pub(super) fn pairs(&self) -> Option<Pairs<'a>> {
        let (features, classes) = (self.features(), self.classes());
        if features < LEAST || classes < LEAST || block_rows(classes) < LEAST {
            return None;
        }
        let unit = Unit::faster(self.cpu.level)?;
        Pairs::of(unit, &self.input, &self.weight)
    }

    /// Packs some hidden rows for logits.
    pub(super) fn pack(&self, pairs: Pairs<'_>, rows: &Range<usize>, memory: &mut [f32]) -> Packed {
        let (n, features) = (rows.len(), self.features());
        let left = Packed::new(Parts::One, [n, features], memory);
        self.cpu.share(n.div_ceil(ROWS), 1, &|task| {
            let some = task * ROWS..((task + 1) * ROWS).min(n);
            self.lying(pairs, rows.start + some.start..rows.start + some.end, &|panel| {
                // SAFETY: rows of the panel, and of the factor, which this task alone writes.
                unsafe {
                    let to = left.from(some.start);
                    to.fill(pairs.unit, Factor::Bf16(panel), [some.len(), features], true);
                }
            });
        });
        left
    }

    /// Packs some hidden rows for the classifier's gradient, block by block.
    pub(super) fn pack_blocks(
        &self,
        pairs: Pairs<'_>,
        rows: &Range<usize>,
        memory: &mut [f32],
    ) -> Vec<Packed> {
        let (n, features, block) = (rows.len(), self.features(), block_rows(self.classes()));
        let terms = |at: usize| at * block..((at + 1) * block).min(n);
        let blocks = memory.chunks_mut(packed_len(features, block, Parts::One));
        let mut blocks: Vec<Packed> = blocks
            .take(n.div_ceil(block))
            .enumerate()
            .map(|(at, memory)| Packed::new(Parts::One, [features, terms(at).len()], memory))
            .collect();
        self.cpu.share_items(&mut blocks, |at, packed| {
            let some = terms(at);
            self.lying(pairs, rows.start + some.start..rows.start + some.end, &|panel| {
                let columns = Factor::Bf16(panel.transposed());
                // SAFETY: rows of the panel, and the factor's memory, which this task alone writes.
                unsafe { packed.fill(pairs.unit, columns, [features, some.len()], false) };
            });
        });
        blocks
    }

    /// Calls `work` with some of the hidden rows that there are, next to one another or where they lie.
    fn lying(&self, pairs: Pairs<'_>, rows: Range<usize>, work: &dyn Fn(Panel<bf16>)) {
        let features = self.features();
        let rows = &self.rows[rows];
        let first = rows.first().copied().unwrap_or(0);
        if rows.last().is_none_or(|last| last - first + 1 == rows.len()) {
            return work(pairs.rows(first));
        }
        with_scratch([(rows.len() * features).div_ceil(2)], |[memory]| {
            let memory = memory.as_mut_ptr().cast::<bf16>();
            // SAFETY: two numbers of 16 bits take the memory of an f32, of which any bits are numbers.
            let memory = unsafe { std::slice::from_raw_parts_mut(memory, rows.len() * features) };
            for (to, &row) in memory.chunks_exact_mut(features.max(1)).zip(rows) {
                to.copy_from_slice(pairs.row(row, features));
            }
            work(Panel::of_mut(memory, features));
        });
    }

    /// Whether no weight is infinite or NaN: of such a one two parts make NaN, where one product were infinite.
    pub(super) fn finite_weights(&self, pairs: Pairs<'_>) -> bool {
        self.none(self.classes(), &|class| pairs.endless_class(class, self.features()))
    }

    /// The same of the hidden rows that there are.
    pub(super) fn finite_rows(&self, pairs: Pairs<'_>) -> bool {
        let features = self.features();
        self.none(self.rows.len(), &|i| pairs.endless_row(self.rows[i], features))
    }

    /// Whether nothing holds of any of `n` rows.
    fn none(&self, n: usize, holds: &(dyn Fn(usize) -> bool + Sync)) -> bool {
        let any = AtomicBool::new(false);
        let each = (1usize << 16).div_ceil(self.features().max(1));
        self.cpu.share(n.div_ceil(each), 1, &|task| {
            if (task * each..((task + 1) * each).min(n)).any(holds) {
                any.store(true, Relaxed);
            }
        });
        !any.into_inner()
    }
}
