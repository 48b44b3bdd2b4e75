//! Some slots of a softmax: gradients of its weights and bias, of its projection, and of the input's rows.

use super::operands::{Buffers, Softmax};
use super::part::{Maker, Part};
use super::wide::{Pass, Wide};
use crate::base::error::Result;
use crate::code::variants::Batch;
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::accumulator::{Growing, Sum};
use crate::cuda::matrix::factors::{Factor, SUM};
use crate::cuda::matrix::products::Places;
use crate::cuda::matrix::slab_products::To;

/// Where chunks' gradients go.
pub(super) struct Going<'p> {
    pub(super) weight: Option<Growing<'p>>,
    pub(super) projection: Option<Growing<'p>>,
    /// The bias's sums, f32.
    pub(super) sums: Option<Panel>,
    /// As a softmax's gradients have it.
    pub(super) d_x: Option<Panel>,
}

impl<'p> Part<'_, 'p> {
    /// All gradients; `pass` is what the forward pass has left.
    ///
    /// # Safety
    /// As for [`Softmax::run`], here and below.
    pub(super) unsafe fn back(
        &self,
        by: &Maker<'p>,
        pass: Option<Pass<'p>>,
        to: &Going<'p>,
    ) -> Result<()> {
        // SAFETY: as the caller says.
        unsafe {
            let slopes = match (by, &pass) {
                (Maker::Wide(wide), Some(pass)) => {
                    self.wide_products(wide, pass, to)?;
                    if self.softmax.projection.is_none() {
                        return Ok(());
                    }
                    self.hidden_slopes()?
                }
                (Maker::Narrow(tiles), _) => {
                    let weight = to.weight.as_ref().map(|weight| weight.target(self.first));
                    tiles.back(&self.products(true), self.buffers.d_hidden, weight)?;
                    self.hidden_slopes()?
                }
                _ => {
                    let slopes = self.weights(to.weight.as_ref())?;
                    self.sums(to.sums)?;
                    slopes
                }
            };
            if let Some(projection) = &to.projection {
                self.projection(slopes, projection)?;
            }
            self.input(slopes, to.d_x)
        }
    }

    /// Adds to the gradients of weights and bias, a slab of classes at a time, and makes that of the hidden rows, of
    /// which those of the input go where they belong.
    ///
    /// # Safety
    /// As above.
    unsafe fn wide_products(&self, wide: &Wide<'p>, pass: &Pass<'p>, to: &Going<'p>) -> Result<()> {
        let Softmax { cuda, width, .. } = *self.softmax;
        let (dtype, tail) = (self.softmax.dtype(), self.softmax.projection.is_some());
        let Buffers { x, x_factor, hidden, hidden_factor, d_hidden, .. } = *self.buffers;
        let sizes = [self.n, width];
        // SAFETY: gradients were checked to have the sizes of what they belong to (`Softmax::run`), and the buffers
        // have the chunk's n rows.
        unsafe {
            let weight = match &to.weight {
                Some(weight) => {
                    // Of a cluster the slots that hold rows come first as it is.
                    let rows = if tail {
                        cuda.factor(hidden, hidden_factor, sizes, dtype)?
                    } else {
                        let (panels, places) = ([self.own_rows(), x], pass.slots().places());
                        cuda.panel(Batch::PanelGather, panels, sizes, places, false)?;
                        cuda.factor(x, x_factor, sizes, dtype)?
                    };
                    let (to, add) = weight.target(self.first);
                    Some((rows, Sum { to, add }))
                }
                None => None,
            };
            let sums = to.sums.map(|to| Sum { to, add: !self.first });
            let hidden = (tail || to.d_x.is_some()).then_some(d_hidden);
            wide.back(pass, &To { hidden, weight, sums })?;
            match (tail, to.d_x) {
                (true, _) => self.kept(d_hidden),
                (false, Some(d_x)) => {
                    let panels = [d_hidden, self.of_rows(d_x)];
                    cuda.panel(Batch::PanelRound, panels, sizes, pass.slots().places(), false)
                }
                (false, None) => Ok(()),
            }
        }
    }

    /// Adds the columns of the logits' gradient to a bias's.
    ///
    /// # Safety
    /// As above.
    unsafe fn sums(&self, to: Option<Panel>) -> Result<()> {
        let Some(sums) = to else { return Ok(()) };
        let (panels, sizes) = ([self.buffers.logits, sums], [self.n, self.softmax.classes]);
        let (cuda, places) = (self.softmax.cuda, Places::default());
        // SAFETY: the buffer has the chunk's n rows, whose gradient is there, and the sums a number a class.
        unsafe { cuda.panel(Batch::PanelColumnSums, panels, sizes, places, !self.first) }
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
