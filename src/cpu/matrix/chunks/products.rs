//! Products of bf16 hidden rows and weights where they lie, by instructions that multiply pairs (`bf16/`): logits
//! of exact products, and gradients of which the logits' one is taken in two parts.
//!
//! An element's bits follow from its row and column alone, as they do of products in f32: hidden rows and weights
//! are packed by whole terms, and what is added up over classes or rows is added up in the same pieces and blocks.

use crate::cpu::matrix::bf16::{Factor, Packed, Parts, multiply, packed_len};
use crate::cpu::matrix::chunks::hidden::{PIECE, WIDENED};
use crate::cpu::matrix::chunks::pairs::Pairs;
use crate::cpu::matrix::chunks::part::{CLASSES, Part, block_rows};
use crate::cpu::matrix::product::Panel;
use crate::cpu::matrix::scratch::with_scratch;
use half::bf16;
use std::ops::Range;

/// f32 elements of a thread's memory in which weights are packed, as long as they are more than a few classes.
const WEIGHTS: usize = 1 << 19;
/// Classes whose weights are packed at once at least, and rows that are multiplied at once.
const LEAST: usize = 32;
const ROWS: usize = 192;
/// Classes whose gradients are added up at once: a second-level cache holds their sums.
const SUMMED: usize = 256;
/// Classes whose weights are packed for all rows, in memory for [`WIDENED`] of them in f32.
const PACKED: usize = 2 * WIDENED;

impl Part<'_> {
    /// Logits of some rows, of which the first is a multiple of 16, and classes.
    ///
    /// # Safety
    /// The panel has those rows and classes, and nobody else uses it.
    pub(super) unsafe fn logits_by(
        &self,
        (pairs, left): (Pairs<'_>, Packed),
        to: Panel,
        rows: Range<usize>,
        classes: Range<usize>,
    ) {
        let features = self.chunks.features();
        let of_class = packed_len(16, features, Parts::One).div_ceil(16).max(1);
        let each = (WEIGHTS / of_class).clamp(LEAST, CLASSES) / 32 * 32;
        let each = each.min(classes.len().max(1));
        with_scratch([packed_len(each, features, Parts::One)], |[memory]| {
            for class in classes.clone().step_by(each) {
                let n = each.min(classes.end - class);
                // SAFETY: classes of the classifier, rows of the hidden ones, and the panel has both: the caller's
                // promise.
                unsafe {
                    let weight = pairs.weight(class).transposed();
                    let right = Packed::right(pairs.unit, weight, [features, n], memory);
                    let (left, to) = (left.from(rows.start), to.at(0, class - classes.start));
                    multiply(pairs.unit, false, to, [left, right], [rows.len(), n, features]);
                }
            }
        });
    }

    /// Logits of one class each, without biases and scales, of rows from a multiple of 16 on.
    pub(super) fn logits_of_rows(
        &self,
        (pairs, left): (Pairs<'_>, Packed),
        first: usize,
        classes: &[usize],
        out: &mut [f32],
    ) {
        let (n, features) = (classes.len(), self.chunks.features());
        let len = packed_len(n, features, Parts::One);
        with_scratch([len, (n * features).div_ceil(2), n * n], |[memory, rows, logits]| {
            let weight = Panel::at_address(rows.as_mut_ptr().cast::<bf16>(), features);
            for (i, &class) in classes.iter().enumerate() {
                // SAFETY: a row of memory that has room for as many of 16 bits.
                let row = unsafe { weight.row(i, features) };
                row.copy_from_slice(pairs.class(class, features));
            }
            // SAFETY: the rows that were just written, and hidden rows that there are.
            unsafe {
                let columns = weight.transposed();
                let right = Packed::right(pairs.unit, columns, [features, n], memory);
                let (left, to) = (left.from(first), Panel::of_mut(logits, n));
                multiply(pairs.unit, false, to, [left, right], [n, n, features]);
            }
            for (i, out) in out.iter_mut().enumerate() {
                *out = logits[i * n + i];
            }
        });
    }

    /// Adds up the products of the logits' gradient and all classes, in their order.
    pub(super) fn sums_by(&self, pairs: Pairs<'_>, logits: Panel, sums: Panel) {
        let (classes, features) = (self.chunks.classes(), self.chunks.features());
        let (rows, cpu) = (self.rows.len(), self.chunks.cpu);
        let of_piece = packed_len(features, PIECE, Parts::One);
        let pieces = PACKED.min(classes).div_ceil(PIECE);
        with_scratch([pieces * of_piece], |[memory]| {
            for from in (0..classes).step_by(PACKED) {
                let n = PACKED.min(classes - from);
                let terms = |piece: usize| PIECE.min(n - piece * PIECE);
                let pieces = memory.chunks_exact_mut(of_piece).take(n.div_ceil(PIECE));
                let mut right: Vec<Packed> = pieces
                    .enumerate()
                    .map(|(piece, memory)| {
                        Packed::new(Parts::One, [features, terms(piece)], memory)
                    })
                    .collect();
                cpu.share_items(&mut right, |piece, packed| {
                    let weight = Factor::Bf16(pairs.weight(from + piece * PIECE).transposed());
                    // SAFETY: classes of the classifier, and the factor's memory, which this task alone writes.
                    unsafe { packed.fill(pairs.unit, weight, [features, terms(piece)], false) };
                });
                let right = &right;
                cpu.share(rows.div_ceil(ROWS), 1, &|task| {
                    let row = task * ROWS;
                    let m = ROWS.min(rows - row);
                    with_scratch([packed_len(m, PIECE, Parts::Two)], |[memory]| {
                        for (piece, &right) in right.iter().enumerate() {
                            let (at, k) = (from + piece * PIECE, terms(piece));
                            // SAFETY: rows of this task alone, of classes that there are.
                            unsafe {
                                let grad = Factor::F32(logits.at(row, at), Parts::Two);
                                let left = Packed::left(pairs.unit, grad, [m, k], memory);
                                let (to, sizes) = (sums.at(row, 0), [m, features, k]);
                                multiply(pairs.unit, at > 0, to, [left, right], sizes);
                            }
                        }
                    });
                });
            }
        });
    }

    /// Gradients of a tile's logits, turned, by the hidden rows, block after block.
    ///
    /// # Safety
    /// The panels have these rows and classes, and nobody else touches `to`.
    pub(super) unsafe fn products_by(
        &self,
        (pairs, blocks): (Pairs<'_>, &[Packed]),
        to: Panel,
        logits: Panel,
        classes: &Range<usize>,
        add: bool,
    ) {
        let features = self.chunks.features();
        let block = block_rows(self.chunks.classes());
        let of_block = packed_len(SUMMED.min(classes.len()), block, Parts::Two);
        with_scratch([of_block], |[memory]| {
            for class in classes.clone().step_by(SUMMED) {
                let m = SUMMED.min(classes.end - class);
                for (at, &right) in (0..self.rows.len()).step_by(block).zip(blocks) {
                    let k = block.min(self.rows.len() - at);
                    // SAFETY: rows of both, blocks that were packed, and classes of the panel: the caller's promise.
                    unsafe {
                        let grad = Factor::F32(logits.at(at, class).transposed(), Parts::Two);
                        let left = Packed::left(pairs.unit, grad, [m, k], memory);
                        let to = to.at(class - classes.start, 0);
                        let sizes = [m, features, k];
                        multiply(pairs.unit, add || at > 0, to, [left, right], sizes);
                    }
                }
            }
        });
    }
}
