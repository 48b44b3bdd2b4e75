//! One softmax of an adaptive softmax, the head or a cluster: products to logits, a cross entropy over
//! them in place, products back; chunk by chunk, so that no buffer exceeds the budget.

use super::Call;
use super::bins::Slots;
use crate::cuda::args::{self, RowArgs};
use crate::cuda::pool::Block;
use crate::cuda::products::{Linear, Panel, Places, Product, Workspace};
use crate::cuda::rows::{Work, data};
use crate::cuda::variants::{Batch, Loss};
use crate::{DType, Result};

/// A softmax over `classes`, of rows of the input or of what a projection makes of them.
pub(super) struct Softmax<'s, 'p> {
    pub(super) call: &'s Call<'s, 'p>,
    pub(super) linear: Linear,
    /// `[width, features]`; none: the width is that of the features.
    pub(super) projection: Option<Panel>,
    pub(super) slots: Slots,
    pub(super) features: usize,
    pub(super) width: usize,
    pub(super) classes: usize,
}

/// A gradient that chunks are added to.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    pub(super) to: Panel,
    /// Whether what is there counts.
    pub(super) add: bool,
}

/// Where a softmax's gradients go.
pub(super) struct Gradients {
    /// Of all rows of the input; the head writes them, clusters add.
    pub(super) d_x: Option<Panel>,
    pub(super) weight: Option<Sum>,
    pub(super) bias: Option<Sum>,
    pub(super) projection: Option<Sum>,
}

/// A gradient on its way: f32 where it is of another type and made of several parts, if that fits.
struct Growing<'p> {
    sum: Sum,
    sizes: [usize; 2],
    /// The f32 sum, which is rounded at the end.
    wide: Option<(Panel, Block<'p>)>,
}

/// Memory of a chunk.
struct Buffers<'p> {
    /// Rows of the input, 0 where a slot is empty.
    x: Panel,
    /// What the projection makes of them.
    hidden: Panel,
    logits: Panel,
    d_hidden: Panel,
    /// f32.
    d_x: Panel,
    /// A chunk's losses, f32.
    nll: u64,
    _workspace: Workspace<'p>,
}

impl<'p> Softmax<'_, 'p> {
    fn dtype(&self) -> DType {
        self.call.input.dtype
    }

    /// Rows of a chunk: as many as the budget has room for logits, and for rows of the input.
    fn chunk(&self) -> usize {
        let row = self.dtype().size().saturating_mul(self.classes).max(4 * self.features);
        (self.call.budget / row.max(1)).clamp(1, self.slots.len.max(1))
    }

    fn growing(&self, sum: Sum, sizes: [usize; 2], chunks: usize) -> Result<Growing<'p>> {
        let bytes = sizes[0].saturating_mul(sizes[1]).saturating_mul(4);
        let narrow = sum.to.dtype != DType::F32;
        let wide = match narrow && (chunks > 1 || sum.add) && bytes <= self.call.budget {
            true => {
                let block = self.call.cuda.pool.take("workspace", bytes)?;
                Some((Panel::packed(block.address(), DType::F32, sizes[1]), block))
            }
            false => None,
        };
        Ok(Growing { sum, sizes, wide })
    }

    fn buffers(&self, rows: usize, back: bool) -> Result<Buffers<'p>> {
        let mut workspace = Workspace::new(self.call.cuda, rows);
        let (dtype, tail) = (self.dtype(), self.projection.is_some());
        let x = workspace.panel(self.features, dtype)?;
        let hidden = if tail { workspace.panel(self.width, dtype)? } else { x };
        let logits = workspace.panel(self.classes, dtype)?;
        let d_hidden = if tail && back { workspace.panel(self.width, dtype)? } else { x };
        let d_x = if tail && back { workspace.panel(self.features, DType::F32)? } else { x };
        let nll = workspace.panel(1, DType::F32)?.address;
        Ok(Buffers { x, hidden, logits, d_hidden, d_x, nll, _workspace: workspace })
    }

    /// Puts all launches on the stream.
    ///
    /// # Safety
    /// The call's shapes were checked, rows are in their slots, and outputs are borrowed exclusively.
    pub(super) unsafe fn run(&self, back: Option<Gradients>) -> Result<()> {
        let (cuda, chunk) = (self.call.cuda, self.chunk());
        let chunks = self.slots.len.div_ceil(chunk);
        let (width, classes) = (self.width, self.classes);
        let grow =
            |sum: Option<Sum>, sizes| sum.map(|sum| self.growing(sum, sizes, chunks)).transpose();
        let weight = grow(back.as_ref().and_then(|b| b.weight), [classes, width])?;
        let projection = grow(back.as_ref().and_then(|b| b.projection), [width, self.features])?;
        let bias = back.as_ref().and_then(|b| b.bias);
        // Its sums are f32 whatever its type.
        let mut workspace = Workspace::new(cuda, 1);
        let sums = bias.map(|_| workspace.panel(classes, DType::F32)).transpose()?;
        let buffers = self.buffers(chunk.min(self.slots.len), back.is_some())?;
        // SAFETY: the caller's contract, for all of them.
        unsafe {
            for (number, from) in (0..self.slots.len).step_by(chunk).enumerate() {
                let n = chunk.min(self.slots.len - from);
                let part = Part { softmax: self, from, n, first: number == 0, buffers: &buffers };
                part.logits()?;
                part.cross_entropy(back.is_some())?;
                let Some(back) = &back else { continue };
                part.weights(weight.as_ref(), projection.as_ref())?;
                if let Some(sums) = sums {
                    let panels = [buffers.logits, sums];
                    let places = Places::default();
                    cuda.panel(Batch::PanelColumnSums, panels, [n, classes], places, number > 0)?;
                }
                part.input(back.d_x)?;
            }
            if let (Some(bias), Some(sums)) = (bias, sums) {
                // Without a chunk there are no sums.
                let address = if self.slots.len == 0 { 0 } else { sums.address };
                let panels = [Panel { address, ..sums }, bias.to];
                let places = Places::default();
                cuda.panel(Batch::PanelRound, panels, [1, classes], places, bias.add)?;
            }
            for growing in [weight, projection].into_iter().flatten() {
                self.settle(&growing, chunks)?;
            }
        }
        Ok(())
    }

    /// # Safety
    /// As for [`Softmax::run`].
    unsafe fn settle(&self, growing: &Growing<'_>, chunks: usize) -> Result<()> {
        let Growing { sum, sizes, wide } = growing;
        // SAFETY: the caller's contract.
        unsafe {
            match wide {
                // Nothing was added at all.
                _ if chunks == 0 && sum.add => Ok(()),
                _ if chunks == 0 => self.call.cuda.zeros(sum.to, *sizes),
                Some((wide, _)) => {
                    let (panels, places) = ([*wide, sum.to], Places::default());
                    self.call.cuda.panel(Batch::PanelRound, panels, *sizes, places, sum.add)
                }
                None => Ok(()),
            }
        }
    }
}

impl Growing<'_> {
    /// Where a chunk's product goes, and whether it is added.
    fn target(&self, first: bool) -> (Panel, bool) {
        match &self.wide {
            Some((wide, _)) => (*wide, !first),
            None => (self.sum.to, self.sum.add || !first),
        }
    }
}

/// Some slots, whose logits are there at once.
struct Part<'s, 'p> {
    softmax: &'s Softmax<'s, 'p>,
    from: usize,
    n: usize,
    first: bool,
    buffers: &'s Buffers<'p>,
}

impl Part<'_, '_> {
    /// Which rows of the batch the slots hold.
    fn places(&self) -> Places {
        let (slots, from) = (self.softmax.slots, 8 * self.from as u64);
        let rows = if slots.rows == 0 { 0 } else { slots.rows + from };
        Places { rows, marks: slots.marks + from }
    }

    /// A panel of all rows, from where the slots' rows begin.
    fn of_rows(&self, panel: Panel) -> Panel {
        match self.softmax.slots.rows {
            0 => panel.starting_at(self.from),
            _ => panel,
        }
    }

    /// # Safety
    /// As for [`Softmax::run`], here and below.
    unsafe fn logits(&self) -> Result<()> {
        let Softmax { call, linear, projection, features, width, classes, .. } = *self.softmax;
        let (cuda, Buffers { x, hidden, logits, .. }) = (call.cuda, self.buffers);
        // SAFETY: the caller's contract.
        unsafe {
            let panels = [self.of_rows(Panel::from(&call.input)), *x];
            cuda.panel(Batch::PanelGather, panels, [self.n, features], self.places(), false)?;
            if let Some(projection) = projection {
                let projection = Linear { weight: projection, bias: None };
                cuda.linear(*x, projection, *hidden, [self.n, width, features])?;
            }
            cuda.linear(*hidden, linear, *logits, [self.n, classes, width])
        }
    }

    /// Losses of the rows, and with a backward pass the logits' gradient in their place.
    ///
    /// # Safety
    /// As above.
    unsafe fn cross_entropy(&self, back: bool) -> Result<()> {
        let Softmax { call, slots, classes, .. } = *self.softmax;
        let (logits, head) = (self.buffers.logits, slots.rows == 0);
        let nll = if head { slots.nll + 4 * self.from as u64 } else { self.buffers.nll };
        let args = RowArgs {
            x: logits.address,
            y: logits.address,
            x_stride: classes as i64,
            y_stride: classes as i64,
            target: self.places().marks,
            target_kind: args::kind(DType::I64),
            // Made for a backward pass alone.
            upstream: if back { slots.factors + 4 * self.from as u64 } else { 0 },
            upstream_stride: back.into(),
            upstream_kind: args::kind(DType::F32),
            loss: nll,
            whole: 1,
            rows: self.n as i64,
            classes: classes as i64,
            // An empty slot, and a row that does not count.
            ignore_index: -1,
            scale: 1.0,
            hard: 1.0,
            ..RowArgs::default()
        };
        let work = if back { Work::Fused } else { Work::Forward };
        // SAFETY: the caller's contract.
        unsafe {
            call.cuda.go(Loss::CrossEntropy, data(logits.dtype)?, work, args)?;
            if head {
                return Ok(());
            }
            let panels = [nll, slots.nll].map(|at| Panel::packed(at, DType::F32, 1));
            call.cuda.panel(Batch::PanelScatterAdd, panels, [self.n, 1], self.places(), false)
        }
    }

    /// Adds to the gradients of the weights, and makes that of the hidden rows.
    ///
    /// # Safety
    /// As above.
    unsafe fn weights(
        &self,
        weight: Option<&Growing<'_>>,
        projection: Option<&Growing<'_>>,
    ) -> Result<()> {
        let Softmax { call, features, width, classes, .. } = *self.softmax;
        let Buffers { x, hidden, logits, d_hidden, .. } = *self.buffers;
        // SAFETY: the caller's contract.
        unsafe {
            if let Some(weight) = weight {
                let (c, add) = weight.target(self.first);
                let (a, sizes) = (logits.transposed(), [classes, width, self.n]);
                call.cuda.product(Product { a, b: hidden, c, sizes, add })?;
            }
            if self.softmax.projection.is_none() {
                return Ok(());
            }
            let (b, sizes) = (self.softmax.linear.weight, [self.n, width, classes]);
            call.cuda.product(Product { a: logits, b, c: d_hidden, sizes, add: false })?;
            let Some(projection) = projection else { return Ok(()) };
            let (c, add) = projection.target(self.first);
            let (a, sizes) = (d_hidden.transposed(), [width, features, self.n]);
            call.cuda.product(Product { a, b: x, c, sizes, add })
        }
    }

    /// The gradient of the rows of the input: written by the head, added to by clusters.
    ///
    /// # Safety
    /// As above.
    unsafe fn input(&self, d_x: Option<Panel>) -> Result<()> {
        let Softmax { call, linear, features, width, classes, .. } = *self.softmax;
        let Some(sum) = d_x else { return Ok(()) };
        // SAFETY: the caller's contract.
        unsafe {
            let Some(projection) = self.softmax.projection else {
                let (c, sizes) = (self.of_rows(sum), [self.n, features, classes]);
                let a = self.buffers.logits;
                return call.cuda.product(Product { a, b: linear.weight, c, sizes, add: false });
            };
            let (a, c) = (self.buffers.d_hidden, self.buffers.d_x);
            let sizes = [self.n, features, width];
            call.cuda.product(Product { a, b: projection, c, sizes, add: false })?;
            let panels = [c, sum];
            call.cuda.panel(
                Batch::PanelScatterAdd,
                panels,
                [self.n, features],
                self.places(),
                false,
            )
        }
    }
}
