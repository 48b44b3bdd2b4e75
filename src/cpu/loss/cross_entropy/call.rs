//! What rows of class indices are worked on with, whatever is made of them.

use crate::cpu::batch::lines::Line;
use crate::cpu::batch::numbers::Batch;
use crate::cpu::processor::Cpu;
use crate::cpu::row::work::{Also, Row};
use crate::cpu::threads::SyncPtr;

/// A batch with what its rows are worked on with.
pub(super) struct Call<'a> {
    pub(super) cpu: &'a Cpu,
    pub(super) batch: &'a Batch<'a>,
    /// Smoothing weights over the batch's unit; null for 1 each.
    pub(super) weights: SyncPtr<f32>,
    /// Whether anyone asks for argmax or rank.
    pub(super) standing: bool,
}

impl Call<'_> {
    pub(super) fn row<X, A, Y>(&self, line: &Line<X, A, Y>) -> Row<X> {
        Row {
            level: self.cpu.level,
            spread: line.spread,
            transform: self.batch.transform,
            x: line.x,
            len: line.len,
            smoothing: self.batch.epsilon > 0.0,
            weights: self.weights.get(),
            also: Also { standing: self.standing, ..Also::default() },
        }
    }
}
