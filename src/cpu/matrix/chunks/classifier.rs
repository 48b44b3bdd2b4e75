//! The classifier's gradient from that of the logits: added up over blocks of rows, in their order, whichever
//! chunks they come in.

use crate::base::error::Result;
use crate::cpu::matrix::chunks::part::{Chunks, Factors, Gradients, Part, Shared, block_rows};
use crate::cpu::matrix::gradient::Gradient;
use crate::cpu::matrix::product::{Panel, whole};
use crate::cpu::matrix::scratch::{keep, take, with_scratch, zeros};
use crate::cpu::threads::SyncPtr;
use std::ops::Range;

/// Gradients of weights and bias on their way.
pub(super) struct Parameters<'a> {
    chunks: &'a Chunks<'a>,
    weight: Option<&'a Gradient<'a>>,
    bias: Option<&'a Gradient<'a>>,
    /// The weights' sum, where it is rounded once, at the end; else empty.
    wide: Vec<f32>,
    /// One a class; empty where nobody asked.
    bias_sums: Vec<f32>,
    first: bool,
}

impl<'a> Parameters<'a> {
    pub(super) fn new(
        chunks: &'a Chunks<'a>,
        gradients: Option<&'a Gradients<'a>>,
        chunk: usize,
    ) -> Result<Parameters<'a>> {
        let weight = gradients.and_then(|g| g.weight.as_ref());
        let bias = gradients.and_then(|g| g.bias.as_ref());
        let several = chunk < chunks.rows.len() && gradients.is_some_and(|g| g.wide);
        let wide = weight.filter(|_| several).map_or(0, |w| w.scratch(chunks.classes()));
        Ok(Parameters {
            chunks,
            weight,
            bias,
            wide: match wide {
                0 => Vec::new(),
                _ => take("gradient of the classifier in f32", wide)?,
            },
            bias_sums: zeros("gradient of the bias", bias.map_or(0, |_| chunks.classes()))?,
            first: true,
        })
    }

    /// Whether anything is made of rows.
    pub(super) fn wanted(&self) -> bool {
        self.weight.is_some() || self.bias.is_some()
    }

    /// Adds what a part's rows make, which are there as factors too.
    pub(super) fn add(&mut self, part: &Part<'_>, hidden: &Factors<'_>, logits: &[f32]) {
        let tiles = part.of_classes();
        let logits = Panel::of(logits, part.stride);
        let wide = Panel::of_mut(&mut self.wide, self.chunks.features());
        let summed = !self.wide.is_empty();
        let bias = (!self.bias_sums.is_empty()).then_some(SyncPtr(self.bias_sums.as_mut_ptr()));
        let (weight, first) = (self.weight, self.first);
        self.chunks.cpu.share(tiles.count(), 1, &|tile| {
            let classes = tiles.of(tile);
            // SAFETY: classes of this task alone; the logits' gradient is only read.
            unsafe {
                match weight {
                    Some(_) if summed => {
                        let to = wide.at(classes.start, 0);
                        products((part, hidden), to, logits, &classes, !first);
                    }
                    Some(weight) => {
                        with_scratch([weight.scratch(classes.len())], |[scratch]| {
                            weight.grow(classes.clone(), scratch, !first, |to, add| {
                                products((part, hidden), to, logits, &classes, add);
                            });
                        });
                    }
                    None => {}
                }
                if let Some(bias) = bias {
                    column_sums(part, bias, logits, classes);
                }
            }
        });
        self.first = false;
    }

    /// Writes what is not in its place yet; zeros, if no row came by.
    pub(super) fn settle(self) {
        let cpu = self.chunks.cpu;
        if let Some(weight) = self.weight {
            match () {
                () if self.first => weight.clear(cpu),
                () if !self.wide.is_empty() => {
                    weight.add_all(cpu, &self.wide);
                }
                () => {}
            }
        }
        if let Some(bias) = self.bias {
            bias.write_row(&self.bias_sums);
        }
        if !self.wide.is_empty() {
            keep(self.wide);
        }
    }
}

/// Gradients of a tile's logits, turned, by the hidden rows, block after block.
///
/// # Safety
/// The panels have these rows and classes, and nobody else touches `to`.
unsafe fn products(
    (part, hidden): (&Part<'_>, &Factors<'_>),
    to: Panel,
    logits: Panel,
    classes: &Range<usize>,
    add: bool,
) {
    let features = part.chunks.features();
    if classes.is_empty() || features == 0 {
        return;
    }
    let hidden = match hidden {
        Factors::Wide(hidden) => hidden,
        Factors::Pairs(pairs, blocks) => {
            // SAFETY: the caller's promise.
            return unsafe { part.products_by((*pairs, blocks), to, logits, classes, add) };
        }
    };
    let block = block_rows(part.chunks.classes());
    for at in (0..part.rows.len()).step_by(block) {
        let n = block.min(part.rows.len() - at);
        // SAFETY: rows of both: the caller's promise.
        unsafe {
            let factors = [logits.at(at, classes.start).transposed(), hidden.at(at, 0)];
            whole(add || at > 0, to, factors, [classes.len(), features, n]);
        }
    }
}

/// Adds up the gradients of a tile's logits, block after block.
///
/// # Safety
/// As for [`products`]; there is a sum a class.
unsafe fn column_sums(part: &Part<'_>, sums: Shared, logits: Panel, classes: Range<usize>) {
    let block = block_rows(part.chunks.classes());
    // SAFETY: the sums of these classes are this task's alone: the caller's promise.
    let sums =
        unsafe { std::slice::from_raw_parts_mut(sums.get().add(classes.start), classes.len()) };
    with_scratch([classes.len()], |[of_block]| {
        for at in (0..part.rows.len()).step_by(block) {
            of_block.fill(0.0);
            for row in at..(at + block).min(part.rows.len()) {
                // SAFETY: a row of the tile, which is only read: the caller's promise.
                let grad = unsafe { logits.at(row, classes.start).row(0, classes.len()) };
                of_block.iter_mut().zip(&*grad).for_each(|(sum, g)| *sum += *g);
            }
            sums.iter_mut().zip(&*of_block).for_each(|(sum, g)| *sum += *g);
        }
    });
}
