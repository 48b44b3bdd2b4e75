//! Logits that nobody goes back over: a tile of rows and classes at a time, which is read while a cache holds
//! it, and then no more.

use crate::base::error::Result;
use crate::cpu::matrix::by_rows::product_by_rows;
use crate::cpu::matrix::chunks::part::{CLASSES, Chunks, Hidden, Part};
use crate::cpu::matrix::product::Panel;
use crate::cpu::matrix::scratch::{with_large, with_scratch};
use std::ops::Range;

/// Features whose weights are widened at once: as many terms as a product adds up in one piece.
const FEATURES: usize = 512;
/// f32 elements of a task's memory beside its logits, where weights are not f32.
pub(crate) const WIDENED_OF_TILE: usize = CLASSES * FEATURES;
/// Rows that one task looks up the logits of one class each for.
const LOOKED_UP: usize = 64;

/// Logits of some rows and classes.
pub(crate) struct Tile {
    /// Of the band.
    pub(crate) rows: Range<usize>,
    pub(crate) classes: Range<usize>,
    pub(crate) logits: Panel,
}

/// Sees logits, on any thread.
pub(crate) type Read<'r> = &'r (dyn Fn(Tile) + Sync);

/// How logits are cut: rows that are gone through before the next, rows of a tile, and its classes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) band: usize,
    pub(crate) rows: usize,
    pub(crate) classes: usize,
}

/// Rows that are gone through at once.
pub(crate) struct Band<'a> {
    part: Part<'a>,
    cut: Cut,
}

impl Chunks<'_> {
    /// Calls `work` with each band of rows.
    ///
    /// # Errors
    /// Those of `work`; memory that cannot be had.
    pub(crate) fn bands(
        &self,
        cut: Cut,
        work: &mut dyn FnMut(&Band<'_>) -> Result<()>,
    ) -> Result<()> {
        let rows = self.rows.len();
        let band = cut.band.clamp(1, rows.max(1));
        let pairs = self.pairs();
        let hidden = self.hidden_len(band, pairs);
        with_large("hidden rows in f32", hidden, |memory| {
            for from in (0..rows).step_by(band) {
                let rows = from..(from + band).min(rows);
                let hidden = self.hidden(&rows, pairs, memory);
                work(&Band {
                    part: Part { chunks: self, rows, hidden, stride: cut.classes },
                    cut,
                })?;
            }
            Ok(())
        })?
    }
}

impl Band<'_> {
    /// Which of the rows that there are.
    pub(crate) fn rows(&self) -> Range<usize> {
        self.part.rows.clone()
    }

    /// Has `read` see all logits, each in one tile, in no order and on any thread.
    pub(crate) fn tiles(&self, read: Read<'_>) {
        let (chunks, rows) = (self.part.chunks, self.part.rows.len());
        let groups = rows.div_ceil(self.cut.rows.max(1)).max(1);
        let of_group = match self.part.hidden {
            Hidden::Wide(_) => rows.div_ceil(groups),
            Hidden::Pairs(..) => rows.div_ceil(groups).next_multiple_of(16),
        };
        let blocks = chunks.classes().div_ceil(self.cut.classes);
        // Tasks that follow one another have the same classes.
        chunks.cpu.share(blocks * groups, 1, &|task| {
            let first = task / groups * self.cut.classes;
            let classes = first..(first + self.cut.classes).min(chunks.classes());
            let rows = task % groups * of_group..((task % groups + 1) * of_group).min(rows);
            if rows.is_empty() {
                return;
            }
            let wide = match self.part.hidden {
                Hidden::Wide(_) if chunks.weight.scratch(1) > 0 => WIDENED_OF_TILE,
                _ => 0,
            };
            with_scratch([rows.len() * classes.len(), wide], |[tile, wide]| {
                let logits = Panel::of_mut(tile, classes.len());
                // SAFETY: this task's memory, of so many rows and classes.
                unsafe { self.fill(logits, rows.clone(), classes.clone(), wide) };
                read(Tile { rows, classes, logits });
            });
        });
    }

    /// # Safety
    /// The panel has those rows and classes, which there are, and nobody else uses it.
    unsafe fn fill(&self, to: Panel, rows: Range<usize>, classes: Range<usize>, wide: &mut [f32]) {
        let (chunks, features) = (self.part.chunks, self.part.chunks.features());
        let hidden = match self.part.hidden {
            Hidden::Wide(hidden) => hidden,
            // SAFETY: the caller's promise; a group's first row is a multiple of 16.
            Hidden::Pairs(pairs, left) => unsafe {
                self.part.logits_by((pairs, left), to, rows.clone(), classes.clone());
                return self.part.adjust(to, rows, classes);
            },
        };
        for class in classes.clone().step_by(CLASSES) {
            let some = class..(class + CLASSES).min(classes.end);
            for feature in (0..features.max(1)).step_by(FEATURES) {
                let terms = feature..(feature + FEATURES).min(features);
                let weight = chunks.weight.piece(some.clone(), terms.clone(), wide).transposed();
                let sizes = [rows.len(), some.len(), terms.len()];
                // SAFETY: rows and features of the hidden rows; the panel has the rest: the caller's promise.
                unsafe {
                    let to = to.at(0, class - classes.start);
                    let factors = [hidden.at(rows.start, feature), weight];
                    product_by_rows(feature > 0, to, factors, sizes);
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.part.adjust(to, rows, classes) };
    }

    /// Each row's logit of one class, with the bits that it has in its tile.
    pub(crate) fn logits_of(&self, classes: &[usize], out: &mut [f32]) {
        let (chunks, features) = (self.part.chunks, self.part.chunks.features());
        let out = &mut out[..classes.len()];
        let of_some = classes.chunks(LOOKED_UP).zip(out.chunks_mut(LOOKED_UP));
        let mut of_some: Vec<_> = of_some.collect();
        chunks.cpu.share_items(&mut of_some, |task, (classes, out)| {
            let n = classes.len();
            let hidden = match self.part.hidden {
                Hidden::Wide(hidden) => hidden,
                Hidden::Pairs(pairs, left) => {
                    self.part.logits_of_rows((pairs, left), task * LOOKED_UP, classes, out);
                    return self.adjust_each(task * LOOKED_UP, classes, out);
                }
            };
            let pieces = features.min(FEATURES);
            with_scratch([n * pieces, n * n], |[weight, logits]| {
                let to = Panel::of_mut(logits, n);
                for feature in (0..features.max(1)).step_by(FEATURES) {
                    let terms = feature..(feature + FEATURES).min(features);
                    let width = terms.len();
                    for (i, &class) in classes.iter().enumerate() {
                        let row = &mut weight[i * width..][..width];
                        chunks.weight.widen_some(class, terms.clone(), row);
                    }
                    let gathered = Panel::of_mut(weight, width).transposed();
                    // SAFETY: rows of the band and their features; the scratch has the rest.
                    unsafe {
                        let hidden = hidden.at(task * LOOKED_UP, feature);
                        product_by_rows(feature > 0, to, [hidden, gathered], [n, n, width]);
                    }
                }
                for (i, out) in out.iter_mut().enumerate() {
                    *out = logits[i * n + i];
                }
            });
            self.adjust_each(task * LOOKED_UP, classes, out);
        });
    }

    /// Adds each row's bias, and multiplies by its scale, of one class a row.
    fn adjust_each(&self, first: usize, classes: &[usize], logits: &mut [f32]) {
        for (i, &class) in classes.iter().enumerate() {
            let to = Panel::of_mut(&mut logits[i..], 1);
            // SAFETY: one element, taken for that of its class.
            unsafe { self.part.adjust(to, first + i..first + i + 1, class..class + 1) };
        }
    }
}
