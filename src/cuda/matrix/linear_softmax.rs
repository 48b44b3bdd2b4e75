//! One softmax whose logits are products, an adaptive softmax's head or a cluster of it: products to
//! logits, a cross entropy over them in place, products back; chunk by chunk, so that no buffer exceeds
//! the budget. Logits, hidden rows and gradients on their way are f32 whatever the input's type
//! (`factors.rs`). Clusters of few features do without logits (`tiles.rs`), and so does what has weights of 16 bits,
//! where few of its logits fit the budget at once (`wide.rs`).
//!
//! A slot without a row has hidden rows and gradients of 0, whatever the weights are: so a cluster that no
//! row uses has no part in any result.

mod back;
pub(crate) mod operands;
mod part;
pub(crate) mod rows;
pub(crate) mod tiles;
mod wide;

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::variants::Batch;
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::accumulator::{Growing, Sum};
use crate::cuda::matrix::products::{Places, Workspace};
use back::Going;
use operands::{Gradients, Softmax};
use part::{Maker, Part};
use tiles::{Kernels, Tiles};
use wide::{Chunk, Wide};

/// How a softmax's logits are made.
enum Way {
    /// All of a chunk's, in memory.
    Stored,
    /// Of few features, where they are needed.
    Narrow(Kernels),
    /// Of any number, so many at once.
    Wide(Chunk),
}

impl<'p> Softmax<'p> {
    /// How logits are made.
    fn way(&self, back: bool) -> Way {
        // For a cluster, whose number of rows is on the device.
        let narrow = self.projection.and_then(|_| Kernels::of(self.dtype(), self.width, false));
        if let Some(kernels) = narrow {
            return Way::Narrow(kernels);
        }
        self.wide(back).map_or(Way::Stored, Way::Wide)
    }

    /// Puts all launches on the stream.
    ///
    /// # Safety
    /// The call's shapes were checked, rows are in their slots, and outputs are borrowed exclusively.
    pub(crate) unsafe fn run(&self, back: Option<Gradients>) -> Result<()> {
        let (cuda, backward) = (self.cuda, back.is_some());
        let way = self.way(backward);
        let stored = if matches!(way, Way::Stored) { self.classes } else { 0 };
        let chunk = if let Way::Wide(chunk) = way { chunk.rows } else { self.chunk(stored) };
        let chunks = self.slots.len.div_ceil(chunk);
        let (width, classes) = (self.width, self.classes);
        let grow = |sum: Option<Sum>, sizes| {
            sum.map(|sum| Growing::new(cuda, sum, sizes, (chunks, self.budget))).transpose()
        };
        let bias = back.as_ref().and_then(|b| b.bias);
        // Its sums are f32 whatever its type.
        let mut workspace = Workspace::new(cuda, 1);
        let going = Going {
            weight: grow(back.as_ref().and_then(|b| b.weight), [classes, width])?,
            projection: grow(back.as_ref().and_then(|b| b.projection), [width, self.features])?,
            sums: bias.map(|_| workspace.panel(classes, DType::F32)).transpose()?,
            d_x: back.as_ref().and_then(|b| b.d_x),
        };
        // SAFETY: the layer's shapes were checked, says the caller.
        let added = unsafe { cuda.bias(self.linear.bias, classes)? };
        let rows = chunk.min(self.slots.len);
        let buffers = self.buffers(rows, stored, backward)?;
        let maker = match way {
            Way::Narrow(of) => {
                let sizes = [rows, classes, width];
                Maker::Narrow(Tiles::new(cuda, of, sizes, self.budget, backward)?)
            }
            Way::Wide(chunk) => {
                let hidden = self.projection.is_some() || going.d_x.is_some();
                let back = backward.then_some([hidden, bias.is_some()]);
                Maker::Wide(Box::new(Wide::new(self, chunk, back)?))
            }
            Way::Stored => Maker::Stored,
        };
        // SAFETY: shapes were checked, rows are in their slots and outputs are borrowed
        // exclusively, says the caller; the buffers were taken for as many rows as the longest
        // chunk.
        unsafe {
            for (number, from) in (0..self.slots.len).step_by(chunk).enumerate() {
                let n = chunk.min(self.slots.len - from);
                let (first, bias) = (number == 0, added.address);
                let part = Part { softmax: self, from, n, first, bias, buffers: &buffers };
                let pass = part.forward(&maker, backward)?;
                if backward {
                    part.back(&maker, pass, &going)?;
                }
            }
            if let (Some(bias), Some(sums)) = (bias, going.sums) {
                // Without a chunk there are no sums.
                let address = if self.slots.len == 0 { 0 } else { sums.address };
                let panels = [Panel { address, ..sums }, bias.to];
                let places = Places::default();
                cuda.panel(Batch::PanelRound, panels, [1, classes], places, bias.add)?;
            }
            for growing in [going.weight, going.projection].into_iter().flatten() {
                growing.settle(cuda, chunks)?;
            }
        }
        Ok(())
    }
}
