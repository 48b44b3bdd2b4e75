//! What a softmax over products is of, and memory for a chunk of its rows.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::accumulator::Sum;
use crate::cuda::matrix::clusters::Slots;
use crate::cuda::matrix::products::{Linear, Workspace, padded};
use crate::cuda::stream::Cuda;

/// A softmax over `classes`, of rows of the input or of what a projection makes of them.
pub(crate) struct Softmax<'p> {
    pub(crate) cuda: &'p Cuda,
    /// All rows.
    pub(crate) input: Panel,
    /// Bytes of a buffer at most.
    pub(crate) budget: usize,
    pub(crate) linear: Linear,
    /// `[width, features]`; none: the width is that of the features.
    pub(crate) projection: Option<Panel>,
    pub(crate) slots: Slots,
    pub(crate) features: usize,
    pub(crate) width: usize,
    pub(crate) classes: usize,
}

/// Where a softmax's gradients go.
pub(crate) struct Gradients {
    /// Of all rows of the input, f32; the head writes them, clusters add.
    pub(crate) d_x: Option<Panel>,
    pub(crate) weight: Option<Sum>,
    pub(crate) bias: Option<Sum>,
    pub(crate) projection: Option<Sum>,
}

/// Memory of a chunk. Factors are memory for what lies before them, as products take it.
pub(super) struct Buffers<'p> {
    /// Rows of the input, 0 where a slot is empty.
    pub(super) x: Panel,
    pub(super) x_factor: Panel,
    /// What the projection makes of them; f32.
    pub(super) hidden: Panel,
    pub(super) hidden_factor: Panel,
    /// Logits, then their gradient; f32.
    pub(super) logits: Panel,
    pub(super) logits_factor: Panel,
    /// f32.
    pub(super) d_hidden: Panel,
    pub(super) d_hidden_factor: Panel,
    /// f32.
    pub(super) d_x: Panel,
    /// A chunk's losses, f32.
    pub(super) nll: u64,
    _workspace: Workspace<'p>,
}

impl<'p> Softmax<'p> {
    pub(super) fn dtype(&self) -> DType {
        self.input.dtype
    }

    /// Rows of a chunk: as many as the budget has room for so many numbers of each, and for rows of the input.
    pub(super) fn chunk(&self, columns: usize) -> usize {
        self.chunk_of(self.budget, columns)
    }

    pub(super) fn chunk_of(&self, bytes: usize, columns: usize) -> usize {
        let row = 4usize.saturating_mul(padded(columns).max(self.features));
        (bytes / row.max(1)).clamp(1, self.slots.len.max(1))
    }

    pub(super) fn buffers(&self, rows: usize, stored: usize, back: bool) -> Result<Buffers<'p>> {
        let mut workspace = Workspace::new(self.cuda, rows);
        let (dtype, tail) = (self.dtype(), self.projection.is_some());
        let if_back = |n: usize| if back { n } else { 0 };
        let of_tail = |n: usize| if tail && back { n } else { 0 };
        let x = workspace.panel(self.features, dtype)?;
        let x_factor = workspace.factor(if_back(self.features), dtype, dtype)?;
        let hidden = if tail { workspace.panel(self.width, DType::F32)? } else { x };
        let hidden_factor = workspace.factor(of_tail(self.width), DType::F32, dtype)?;
        let logits = workspace.panel(stored, DType::F32)?;
        let logits_factor = workspace.factor(if_back(stored), DType::F32, dtype)?;
        // What the head's logits in memory give is next multiplied as it is.
        let by_slots = if stored == 0 { if_back(self.width) } else { of_tail(self.width) };
        let d_hidden = workspace.panel(by_slots, DType::F32)?;
        let d_hidden_factor = workspace.factor(of_tail(self.width), DType::F32, dtype)?;
        let d_x = workspace.panel(of_tail(self.features), DType::F32)?;
        let nll = workspace.panel(1, DType::F32)?.address;
        Ok(Buffers {
            x,
            x_factor,
            hidden,
            hidden_factor,
            logits,
            logits_factor,
            d_hidden,
            d_hidden_factor,
            d_x,
            nll,
            _workspace: workspace,
        })
    }
}
