//! A batch on its way: what has been made of the rows that went by.

use crate::base::error::Result;
use crate::cpu::matrix::chunks::classifier::Parameters;
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
        Ok(Walk { chunks, gradients, parameters, stride: stride(chunks.classes()), chunk })
    }

    /// The rows of each step: of all but the last whole blocks.
    pub(super) fn steps(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, chunk) = (self.chunks.rows.len(), self.chunk);
        (0..rows).step_by(chunk).map(move |from| from..(from + chunk).min(rows))
    }

    /// f32 elements of memory that a step needs.
    pub(crate) fn memory(&self) -> usize {
        let hidden = if self.chunks.in_place().is_some() { 0 } else { self.chunks.features() };
        self.chunk * (self.stride + hidden)
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
        let (logits, hidden) = memory.split_at_mut(self.chunk * stride);
        let part = Part { chunks, hidden: chunks.hidden(&rows, hidden), rows, stride };
        let data = &mut logits[..part.rows.len() * stride];
        part.logits(data);
        let (rows, classes) = (part.rows.clone(), chunks.classes());
        turn(Logits { rows, classes, stride, data: &mut *data })?;
        if let Some(gradients) = self.gradients {
            self.parameters.add(&part, data);
            if let Some(input) = &gradients.input {
                part.hidden_gradient(data, input)?;
            }
        }
        Ok(())
    }

    /// Writes what is not in its place yet; zeros, if no row came by.
    pub(crate) fn settle(self) {
        self.parameters.settle();
    }
}
