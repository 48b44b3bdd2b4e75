//! A batch on its way: what has been made of the rows that went by.

use crate::base::error::Result;
use crate::cpu::matrix::chunks::classifier::Parameters;
use crate::cpu::matrix::chunks::pairs::Pairs;
use crate::cpu::matrix::chunks::part::{Chunks, Gradients, Logits, Part, stride};
use std::ops::Range;

/// Turns logits into their gradient, or reads them.
pub(crate) type Turn<'t> = &'t mut dyn FnMut(Logits<'_>) -> Result<()>;

/// Rows that are gone through some at a time, in order.
pub(crate) struct Walk<'a> {
    chunks: &'a Chunks<'a>,
    gradients: Option<&'a Gradients<'a>>,
    parameters: Parameters<'a>,
    /// Of the logits.
    stride: usize,
    /// Rows at once, at most.
    chunk: usize,
    /// What makes the logits, where that is pairs; and the hidden rows' gradient; and whether they make that of the
    /// classifier too.
    pairs: [Option<Pairs<'a>>; 2],
    finite: bool,
}

impl<'a> Walk<'a> {
    /// # Errors
    /// Memory that cannot be had.
    pub(crate) fn new(
        chunks: &'a Chunks<'a>,
        gradients: Option<&'a Gradients<'a>>,
    ) -> Result<Walk<'a>> {
        let chunk = chunks.chunk.clamp(1, chunks.rows.len().max(1));
        let parameters = Parameters::new(chunks, gradients, chunk)?;
        let pairs = chunks.pairs();
        let wanted = gradients.map_or([false; 2], |g| [g.input.is_some(), g.weight.is_some()]);
        let of_hidden = pairs.filter(|&pairs| wanted[0] && chunks.finite_weights(pairs));
        let finite = pairs.is_some_and(|pairs| wanted[1] && chunks.finite_rows(pairs));
        let stride = stride(chunks.classes());
        let pairs = [pairs, of_hidden];
        Ok(Walk { chunks, gradients, parameters, stride, chunk, pairs, finite })
    }

    /// The rows of each step: of all but the last whole blocks.
    pub(super) fn steps(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, chunk) = (self.chunks.rows.len(), self.chunk);
        (0..rows).step_by(chunk).map(move |from| from..(from + chunk).min(rows))
    }

    /// f32 elements of memory that a step needs.
    pub(crate) fn memory(&self) -> usize {
        self.chunk * self.stride + self.chunks.hidden_len(self.chunk, self.pairs[0])
    }

    /// Has `turn` read some rows' logits; with gradients, of what it makes of them.
    ///
    /// # Errors
    /// Those of `turn`; memory that cannot be had.
    pub(crate) fn step(
        &mut self,
        rows: Range<usize>,
        memory: &mut [f32],
        turn: Turn<'_>,
    ) -> Result<()> {
        let (chunks, stride) = (self.chunks, self.stride);
        let (logits, memory) = memory.split_at_mut(self.chunk * stride);
        let hidden = chunks.hidden(&rows, self.pairs[0], memory);
        let part = Part { chunks, hidden, rows, stride };
        let data = &mut logits[..part.rows.len() * stride];
        part.logits(data);
        let (rows, classes) = (part.rows.clone(), chunks.classes());
        turn(Logits { rows, classes, stride, data: &mut *data })?;
        if let Some(gradients) = self.gradients {
            if self.parameters.wanted() {
                let hidden = chunks.factors((&part.rows, hidden), self.finite, memory);
                self.parameters.add(&part, &hidden, data);
            }
            if let Some(input) = &gradients.input {
                part.hidden_gradient(data, self.pairs[1], input)?;
            }
        }
        Ok(())
    }

    /// Writes what is not in its place yet; zeros, if no row came by.
    pub(crate) fn settle(self) {
        self.parameters.settle();
    }
}
