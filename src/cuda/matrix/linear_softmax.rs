//! One softmax whose logits are products, an adaptive softmax's head or a cluster of it: products to
//! logits, a cross entropy over them in place, products back; chunk by chunk, so that no buffer exceeds
//! the budget. Logits, hidden rows and gradients on their way are f32 whatever the input's type
//! (`factors.rs`). Clusters of few features do without logits (`tiles.rs`), and so does a forward pass of 16-bit
//! rows, where few of their logits fit the budget at once (`wide.rs`).
//!
//! A slot without a row has hidden rows and gradients of 0, whatever the weights are: so a cluster that no
//! row uses has no part in any result.

pub(crate) mod rows;
pub(crate) mod tiles;
mod wide;

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::variants::Batch;
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::accumulator::{Growing, Sum};
use crate::cuda::matrix::clusters::Slots;
use crate::cuda::matrix::factors::{Factor, SUM};
use crate::cuda::matrix::products::{Linear, Places, Workspace, padded};
use crate::cuda::matrix::wide_tiles;
use crate::cuda::schedule::rows::{Work, data};
use crate::cuda::stream::Cuda;
use rows::Rows;
use tiles::{Kernels, Products, Tiles};
use wide::Wide;

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

/// How a softmax's logits are made.
enum Way {
    /// All of a chunk's, in memory.
    Stored,
    /// Of few features, where they are needed.
    Narrow(Kernels),
    /// Of any number, for results alone.
    Wide,
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
struct Buffers<'p> {
    /// Rows of the input, 0 where a slot is empty.
    x: Panel,
    x_factor: Panel,
    /// What the projection makes of them; f32.
    hidden: Panel,
    hidden_factor: Panel,
    /// Logits, then their gradient; f32.
    logits: Panel,
    logits_factor: Panel,
    /// f32.
    d_hidden: Panel,
    d_hidden_factor: Panel,
    /// f32.
    d_x: Panel,
    /// A chunk's losses, f32.
    nll: u64,
    _workspace: Workspace<'p>,
}

impl<'p> Softmax<'p> {
    fn dtype(&self) -> DType {
        self.input.dtype
    }

    /// How logits are made.
    fn way(&self, back: bool) -> Way {
        // For a cluster, whose number of rows is on the device.
        let narrow = self.projection.and_then(|_| Kernels::of(self.dtype(), self.width, false));
        if let Some(kernels) = narrow {
            return Way::Narrow(kernels);
        }
        let card = self.cuda.driver.card();
        let takes = self.projection.is_none() && self.dtype() != DType::F32 && !back;
        let sizes = [self.slots.len, self.chunk(self.classes)];
        match takes && wide_tiles::fit(card) && wide_tiles::lead(card, sizes) {
            true => Way::Wide,
            false => Way::Stored,
        }
    }

    /// Rows of a chunk: as many as the budget has room for so many numbers of each, and for rows of the input.
    fn chunk(&self, columns: usize) -> usize {
        let row = 4usize.saturating_mul(padded(columns).max(self.features));
        (self.budget / row.max(1)).clamp(1, self.slots.len.max(1))
    }

    fn buffers(&self, rows: usize, stored: usize, back: bool) -> Result<Buffers<'p>> {
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
        let d_hidden = workspace.panel(of_tail(self.width), DType::F32)?;
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

    /// Puts all launches on the stream.
    ///
    /// # Safety
    /// The call's shapes were checked, rows are in their slots, and outputs are borrowed exclusively.
    pub(crate) unsafe fn run(&self, back: Option<Gradients>) -> Result<()> {
        let (cuda, way) = (self.cuda, self.way(back.is_some()));
        let stored = if matches!(way, Way::Stored) { self.classes } else { 0 };
        let chunk = self.chunk(match way {
            Way::Wide => wide::columns(self.classes),
            Way::Narrow(_) | Way::Stored => stored,
        });
        let chunks = self.slots.len.div_ceil(chunk);
        let (width, classes) = (self.width, self.classes);
        let grow = |sum: Option<Sum>, sizes| {
            sum.map(|sum| Growing::new(cuda, sum, sizes, (chunks, self.budget))).transpose()
        };
        let weight = grow(back.as_ref().and_then(|b| b.weight), [classes, width])?;
        let projection = grow(back.as_ref().and_then(|b| b.projection), [width, self.features])?;
        let bias = back.as_ref().and_then(|b| b.bias);
        // Its sums are f32 whatever its type.
        let mut workspace = Workspace::new(cuda, 1);
        let sums = bias.map(|_| workspace.panel(classes, DType::F32)).transpose()?;
        // SAFETY: the layer's shapes were checked, says the caller.
        let added = unsafe { cuda.bias(self.linear.bias, classes)? };
        let (rows, backward) = (chunk.min(self.slots.len), back.is_some());
        let buffers = self.buffers(rows, stored, backward)?;
        let sizes = [rows, classes, width];
        let (mut tiles, mut wide) = (None, None);
        match way {
            Way::Narrow(of) => tiles = Some(Tiles::new(cuda, of, sizes, self.budget, backward)?),
            Way::Wide => wide = Some(Wide::new(cuda, self.dtype(), [rows, classes])?),
            Way::Stored => {}
        }
        // SAFETY: shapes were checked, rows are in their slots and outputs are borrowed
        // exclusively, says the caller; the buffers were taken for as many rows as the longest
        // chunk.
        unsafe {
            for (number, from) in (0..self.slots.len).step_by(chunk).enumerate() {
                let n = chunk.min(self.slots.len - from);
                let (first, bias) = (number == 0, added.address);
                let part = Part { softmax: self, from, n, first, bias, buffers: &buffers };
                part.hidden()?;
                match (&tiles, &wide) {
                    (Some(tiles), _) => tiles.forward(&part.products(backward))?,
                    (None, Some(wide)) => wide.forward(&part.wide_products())?,
                    (None, None) => part.cross_entropy(backward)?,
                }
                part.losses()?;
                let Some(back) = &back else { continue };
                let slopes = match &tiles {
                    Some(tiles) => {
                        let weight = weight.as_ref().map(|weight| weight.target(part.first));
                        tiles.back(&part.products(backward), buffers.d_hidden, weight)?;
                        part.hidden_slopes()?
                    }
                    None => part.weights(weight.as_ref())?,
                };
                if let Some(projection) = &projection {
                    part.projection(slopes, projection)?;
                }
                if let Some(sums) = sums {
                    let panels = [buffers.logits, sums];
                    let places = Places::default();
                    cuda.panel(Batch::PanelColumnSums, panels, [n, classes], places, number > 0)?;
                }
                part.input(slopes, back.d_x)?;
            }
            if let (Some(bias), Some(sums)) = (bias, sums) {
                // Without a chunk there are no sums.
                let address = if self.slots.len == 0 { 0 } else { sums.address };
                let panels = [Panel { address, ..sums }, bias.to];
                let places = Places::default();
                cuda.panel(Batch::PanelRound, panels, [1, classes], places, bias.add)?;
            }
            for growing in [weight, projection].into_iter().flatten() {
                growing.settle(cuda, chunks)?;
            }
        }
        Ok(())
    }
}

/// Some slots, whose logits are there at once.
struct Part<'s, 'p> {
    softmax: &'s Softmax<'p>,
    from: usize,
    n: usize,
    first: bool,
    /// As [`Rows::bias`].
    bias: u64,
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

    /// The rows' input, and what the projection makes of it.
    ///
    /// # Safety
    /// As for [`Softmax::run`], here and below.
    unsafe fn hidden(&self) -> Result<()> {
        let Softmax { cuda, input, projection, features, width, .. } = *self.softmax;
        let Buffers { x, hidden, .. } = *self.buffers;
        // SAFETY: input and projection were checked to be of these sizes (`Softmax::run`), and the
        // buffers have the chunk's n rows.
        unsafe {
            let panels = [self.of_rows(input), x];
            cuda.panel(Batch::PanelGather, panels, [self.n, features], self.places(), false)?;
            let Some(projection) = projection else { return Ok(()) };
            cuda.linear(x, projection, hidden, [self.n, width, features])?;
            self.kept(hidden)
        }
    }

    /// Makes 0 of hidden rows where a slot has none: infinite weights have made NaN of its zeros.
    ///
    /// # Safety
    /// As above.
    unsafe fn kept(&self, rows: Panel) -> Result<()> {
        let Softmax { cuda, width, .. } = *self.softmax;
        let places = Places { rows: 0, ..self.places() };
        // SAFETY: `rows` is a buffer of the chunk's n rows of `width`, initialised by the product
        // before.
        unsafe { cuda.panel(Batch::PanelRound, [rows; 2], [self.n, width], places, false) }
    }

    /// Losses of the rows, and with a backward pass the logits' gradient in their place.
    ///
    /// # Safety
    /// As above.
    unsafe fn cross_entropy(&self, back: bool) -> Result<()> {
        let Softmax { cuda, linear, width, classes, budget, .. } = *self.softmax;
        let Buffers { hidden, logits, .. } = *self.buffers;
        let work = if back { Work::Fused } else { Work::Forward };
        // SAFETY: the weights were checked to be of these sizes (`Softmax::run`), the buffers have
        // the chunk's n rows, and the slots have a target, factor and loss each.
        unsafe {
            let sizes = [self.n, classes, width];
            match self.softmax.projection {
                None => cuda.linear(hidden, linear.weight, logits, sizes)?,
                Some(_) => cuda.logits([hidden, linear.weight, logits], sizes, budget)?,
            }
            let rows = self.rows(back);
            cuda.go(rows.loss(), data(logits.dtype)?, work, rows.args())
        }
    }

    /// The slots as rows of a cross entropy.
    fn rows(&self, back: bool) -> Rows {
        let factors = self.softmax.slots.factors + 4 * self.from as u64;
        Rows {
            z: self.buffers.logits,
            n: self.n,
            classes: self.softmax.classes,
            marks: self.places().marks,
            // Made for a backward pass alone.
            factors: if back { factors } else { 0 },
            nll: self.nll(),
            bias: self.bias,
        }
    }

    /// The same where there are no logits.
    fn products(&self, back: bool) -> Products {
        Products {
            rows: self.rows(back).args(),
            hidden: self.buffers.hidden,
            weight: self.softmax.linear.weight,
            width: self.softmax.width,
            count: self.softmax.slots.count,
            from: self.from,
        }
    }

    /// And where the rows are the input's own.
    fn wide_products(&self) -> wide::Products {
        wide::Products {
            rows: self.rows(false).args(),
            hidden: self.buffers.hidden,
            weight: self.softmax.linear.weight,
            features: self.softmax.width,
        }
    }

    /// Whether the slots are all rows, one after another.
    fn head(&self) -> bool {
        self.softmax.slots.rows == 0
    }

    /// Where the losses of the slots go first.
    fn nll(&self) -> u64 {
        match self.head() {
            true => self.softmax.slots.nll + 4 * self.from as u64,
            false => self.buffers.nll,
        }
    }

    /// Adds the slots' losses to those of their rows.
    ///
    /// # Safety
    /// As above.
    unsafe fn losses(&self) -> Result<()> {
        if self.head() {
            return Ok(());
        }
        let Softmax { cuda, slots, .. } = *self.softmax;
        let panels = [self.buffers.nll, slots.nll].map(|at| Panel::packed(at, DType::F32, 1));
        // SAFETY: the chunk has n losses, and `places` names rows that the slots' losses have: the
        // bins have put them there.
        unsafe { cuda.panel(Batch::PanelScatterAdd, panels, [self.n, 1], self.places(), false) }
    }

    /// Adds to the gradient of the weights, and makes that of the hidden rows where there is a projection;
    /// returns what of these, or else of the logits, is next multiplied.
    ///
    /// # Safety
    /// As above.
    unsafe fn weights(&self, weight: Option<&Growing<'_>>) -> Result<Factor> {
        let Softmax { cuda, width, classes, linear, budget, .. } = *self.softmax;
        let Buffers { x, x_factor, hidden, hidden_factor, d_hidden, .. } = *self.buffers;
        let (dtype, tail) = (self.softmax.dtype(), self.softmax.projection.is_some());
        // SAFETY: the gradient was checked to have the weights' sizes (`Softmax::run`), and the
        // buffers have the chunk's n rows, initialised by the launches before.
        unsafe {
            let Buffers { logits, logits_factor, .. } = *self.buffers;
            let slopes = cuda.factor(logits, logits_factor, [self.n, classes], dtype)?;
            if let Some(weight) = weight {
                let (rows, memory) = if tail { (hidden, hidden_factor) } else { (x, x_factor) };
                let rows = cuda.factor(rows, memory, [self.n, width], dtype)?;
                let (c, add) = weight.target(self.first);
                let sizes = [classes, width, self.n];
                cuda.multiply([slopes.transposed(), rows], c, (sizes, add), SUM)?;
            }
            if !tail {
                return Ok(slopes);
            }
            cuda.through(slopes, linear.weight, d_hidden, [self.n, width, classes], budget)?;
            self.kept(d_hidden)?;
            self.hidden_slopes()
        }
    }

    /// The gradient of the hidden rows, as products take it.
    ///
    /// # Safety
    /// As above.
    unsafe fn hidden_slopes(&self) -> Result<Factor> {
        let Buffers { d_hidden, d_hidden_factor, .. } = *self.buffers;
        let sizes = [self.n, self.softmax.width];
        // SAFETY: both buffers have the chunk's n rows of `width`, and the first was written by the
        // product before.
        unsafe { self.softmax.cuda.factor(d_hidden, d_hidden_factor, sizes, self.softmax.dtype()) }
    }

    /// Adds to the gradient of the projection.
    ///
    /// # Safety
    /// As above.
    unsafe fn projection(&self, slopes: Factor, projection: &Growing<'_>) -> Result<()> {
        let Softmax { cuda, features, width, .. } = *self.softmax;
        let Buffers { x, x_factor, .. } = *self.buffers;
        let (c, add) = projection.target(self.first);
        // SAFETY: the gradient was checked to have the projection's sizes (`Softmax::run`), and the
        // buffers have the chunk's n rows, initialised by the launches before.
        unsafe {
            let x = cuda.factor(x, x_factor, [self.n, features], self.softmax.dtype())?;
            let sizes = ([width, features, self.n], add);
            cuda.multiply([slopes.transposed(), x], c, sizes, SUM)
        }
    }

    /// The gradient of the rows of the input: written by the head, added to by clusters.
    ///
    /// # Safety
    /// As above.
    unsafe fn input(&self, slopes: Factor, d_x: Option<Panel>) -> Result<()> {
        let Softmax { cuda, linear, features, width, classes, budget, .. } = *self.softmax;
        let Some(sum) = d_x else { return Ok(()) };
        let part = self.buffers.d_x;
        // SAFETY: the sum has a row a row of the input, which the places name (`Softmax::run`);
        // weights and buffers are of these sizes.
        unsafe {
            let Some(projection) = self.softmax.projection else {
                let (c, sizes) = (self.of_rows(sum), [self.n, features, classes]);
                return cuda.through(slopes, linear.weight, c, sizes, budget);
            };
            cuda.through(slopes, projection, part, [self.n, features, width], budget)?;
            let panels = [part, sum];
            cuda.panel(Batch::PanelScatterAdd, panels, [self.n, features], self.places(), false)
        }
    }
}
