//! Logits that are there a chunk of rows at a time: made, turned into their gradient by whoever has asked for
//! them, and multiplied out.
//!
//! No bit depends on how long chunks are, on how many threads there are, or, of what belongs to a row, on the
//! other rows: logits and the hidden rows' gradients are products by rows (`by_rows.rs`), the latter added up
//! over pieces of classes in order; gradients of the classifier are added up over blocks of rows in order, and
//! every chunk but the last has whole blocks.

mod classifier;
mod hidden;
mod packs;
mod pairs;
mod part;
mod products;
mod tiles;
mod walk;

pub(crate) use crate::cpu::matrix::chunks::hidden::WIDENED;
pub(crate) use crate::cpu::matrix::chunks::packs::beyond_wide;
pub(crate) use crate::cpu::matrix::chunks::part::{
    Chunks, Gradients, Logits, TILE, block_rows, stride,
};
pub(crate) use crate::cpu::matrix::chunks::tiles::{Cut, Read, Tile, WIDENED_OF_TILE};
pub(crate) use crate::cpu::matrix::chunks::walk::{Turn, Walk};

use crate::base::error::Result;
use crate::cpu::matrix::chunks::packs::packed_rows;
use crate::cpu::matrix::chunks::pairs::Pairs;
use crate::cpu::matrix::chunks::part::{Factors, Hidden};
use crate::cpu::matrix::gradient::Gradient;
use crate::cpu::matrix::product::Panel;
use crate::cpu::matrix::scratch::{with_large, with_scratch};
use crate::cpu::processor::Cpu;
use std::ops::Range;

impl Chunks<'_> {
    /// Has `turn` read all logits, chunk by chunk; with gradients, of what it makes of them.
    ///
    /// # Errors
    /// Those of `turn`; memory that cannot be had.
    pub(crate) fn run(&self, gradients: Option<&Gradients<'_>>, turn: Turn<'_>) -> Result<()> {
        let mut walk = Walk::new(self, gradients)?;
        let result = with_large("logits of a chunk", walk.memory(), |memory| {
            walk.steps().try_for_each(|rows| walk.step(rows, memory, &mut *turn))
        })?;
        walk.settle();
        result
    }

    /// The hidden rows, where those that there are lie as products take them.
    fn in_place(&self) -> Option<Panel> {
        (self.rows.len() == self.input.rows).then(|| self.input.f32_panel()).flatten()
    }

    /// Elements of memory for so many hidden rows, as logits and then the classifier's gradient need them.
    fn hidden_len(&self, rows: usize, pairs: Option<Pairs<'_>>) -> usize {
        let wide = if self.in_place().is_some() { 0 } else { rows * self.features() };
        pairs.map_or(wide, |_| wide.max(packed_rows(self, rows)))
    }

    /// Some hidden rows in such memory, for logits.
    fn hidden<'p>(
        &self,
        rows: &Range<usize>,
        pairs: Option<Pairs<'p>>,
        memory: &mut [f32],
    ) -> Hidden<'p> {
        match pairs {
            Some(pairs) => Hidden::Pairs(pairs, self.pack(pairs, rows, memory)),
            None => Hidden::Wide(self.wide(rows, memory)),
        }
    }

    /// The same rows for the classifier's gradient, in the same memory: pairs make it where no number is endless.
    fn factors<'p>(
        &self,
        (rows, hidden): (&Range<usize>, Hidden<'p>),
        finite: bool,
        memory: &mut [f32],
    ) -> Factors<'p> {
        match hidden {
            Hidden::Wide(panel) => Factors::Wide(panel),
            Hidden::Pairs(pairs, _) if finite => {
                Factors::Pairs(pairs, self.pack_blocks(pairs, rows, memory))
            }
            Hidden::Pairs(..) => Factors::Wide(self.wide(rows, memory)),
        }
    }

    /// Some hidden rows in f32.
    fn wide(&self, rows: &Range<usize>, memory: &mut [f32]) -> Panel {
        if let Some(panel) = self.in_place() {
            // SAFETY: a row of the panel, which has all of them.
            return unsafe { panel.at(rows.start, 0) };
        }
        self.input.gather_into(self.cpu, &self.rows[rows.clone()], memory)
    }
}

/// A row of a gradient that nobody made: zeros, unless what is there is added to.
pub(crate) fn clear_rows(cpu: &Cpu, gradient: &Gradient<'_>, rows: &[usize]) {
    let columns = gradient.columns;
    cpu.share(rows.len(), 64, &|i| {
        with_scratch([gradient.scratch(1)], |[scratch]| {
            // SAFETY: a row of the gradient, each of which comes once.
            unsafe {
                gradient.rows(rows[i]..rows[i] + 1, scratch, |out, add| {
                    // Of 16 bits zeros are what is rounded, and added.
                    if !add {
                        out.row(0, columns).fill(0.0);
                    }
                });
            }
        });
    });
}
