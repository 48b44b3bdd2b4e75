//! Some slots of a softmax: hidden rows and losses.

use super::operands::{Buffers, Softmax};
use super::rows::Rows;
use super::tiles::{Products, Tiles};
use super::wide::{Pass, Wide};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::variants::Batch;
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::products::Places;
use crate::cuda::schedule::rows::{Work, data};

/// What makes logits, with memory for as many rows as the longest chunk.
pub(super) enum Maker<'p> {
    Stored,
    Narrow(Tiles<'p>),
    Wide(Box<Wide<'p>>),
}

/// Some slots, whose logits are there at once, or would be.
pub(super) struct Part<'s, 'p> {
    pub(super) softmax: &'s Softmax<'p>,
    pub(super) from: usize,
    pub(super) n: usize,
    pub(super) first: bool,
    /// As [`Rows::bias`].
    pub(super) bias: u64,
    pub(super) buffers: &'s Buffers<'p>,
}

impl<'p> Part<'_, 'p> {
    /// Which rows of the batch the slots hold.
    pub(super) fn places(&self) -> Places {
        let (slots, from) = (self.softmax.slots, 8 * self.from as u64);
        let rows = if slots.rows == 0 { 0 } else { slots.rows + from };
        Places { rows, marks: slots.marks + from }
    }

    /// A panel of all rows, from where the slots' rows begin.
    pub(super) fn of_rows(&self, panel: Panel) -> Panel {
        match self.softmax.slots.rows {
            0 => panel.starting_at(self.from),
            _ => panel,
        }
    }

    /// Losses of the slots, added to those of their rows. Of wide tiles, what products back go on with; of stored
    /// logits and with a backward pass their gradient is left in their place.
    ///
    /// # Safety
    /// As for [`Softmax::run`], here and below.
    pub(super) unsafe fn forward(&self, by: &Maker<'p>, back: bool) -> Result<Option<Pass<'p>>> {
        // SAFETY: as the caller says.
        unsafe {
            let mut pass = None;
            match by {
                // Rows that count are read where they are.
                Maker::Wide(wide) if self.softmax.projection.is_none() => {
                    pass = Some(wide.forward(self.rows(back).args(), self.own_rows())?);
                }
                Maker::Wide(wide) => {
                    self.hidden()?;
                    pass = Some(wide.forward(self.rows(back).args(), self.buffers.hidden)?);
                }
                Maker::Narrow(tiles) => {
                    self.hidden()?;
                    tiles.forward(&self.products(back))?;
                }
                Maker::Stored => {
                    self.hidden()?;
                    self.cross_entropy(back)?;
                }
            }
            self.losses()?;
            Ok(pass)
        }
    }

    /// The rows of the input, where the slots are all of them, one after another.
    pub(super) fn own_rows(&self) -> Panel {
        self.of_rows(self.softmax.input)
    }

    /// The rows' input, and what the projection makes of it.
    ///
    /// # Safety
    /// As above.
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
    pub(super) unsafe fn kept(&self, rows: Panel) -> Result<()> {
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

    /// The same where there are no logits, of few features.
    pub(super) fn products(&self, back: bool) -> Products {
        Products {
            rows: self.rows(back).args(),
            hidden: self.buffers.hidden,
            weight: self.softmax.linear.weight,
            width: self.softmax.width,
            count: self.softmax.slots.count,
            from: self.from,
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
}
