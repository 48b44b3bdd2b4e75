//! The loss over a chunk's logits, in place where there is a backward pass; beside probabilities where targets are such.

use super::chunks::{Chunks, Part};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::shape::Shape;
use crate::code::args::PartArgument;
use crate::code::variants::Batch;
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::products;
use crate::cuda::schedule::blocks::placed;
use crate::cuda::schedule::lines::Lines;
use crate::cuda::schedule::operands::{At, Places, along};
use crate::cuda::schedule::place::Place;
use crate::cuda::schedule::rows::Planned;

impl Chunks<'_, '_> {
    /// The lines of so many rows of a panel, one for each position.
    fn lines(&self, n: usize, panel: Panel) -> Lines {
        let sizes = [n, self.classes / self.positions.max(1), self.positions];
        Lines::new(&Shape::new(&sizes).unwrap_or(Shape::SCALAR), panel.stride, along(1))
    }

    /// Whether lines lie side by side: they have several positions, and more than one class.
    pub(super) fn side_by_side(&self) -> bool {
        self.lines(1, self.logits).side_by_side().is_some()
    }

    /// # Safety
    /// The call's shapes were checked, what `args` names is as long as they say, and outputs are borrowed
    /// exclusively; the part's logits are on the stream, and the plan is for as many rows.
    pub(super) unsafe fn loss<A: PartArgument>(
        &self,
        part: Part,
        planned: &Planned<'_>,
        args: A,
        back: bool,
    ) -> Result<()> {
        let (cuda, sizes) = (self.cuda, [part.n, self.classes]);
        let places = products::Places::default();
        // SAFETY: probabilities and their gradient have the chunk's rows, and so have the buffers; what the
        // arguments name is as long as rows and classes say.
        unsafe {
            let of = self.probabilities;
            let of = of.map_or([None; 2], |of| [Some(of.values), of.gradient]);
            let [values, gradient] = of.map(|panel| panel.map(|p| p.starting_at(part.from)));
            let [wide_values, wide_gradient] = self.wide;
            if let (Some(from), Some(to)) = (values, wide_values) {
                cuda.panel(Batch::PanelRound, [from, to], sizes, places, false)?;
            }
            let beside = [wide_values.or(values), wide_gradient.or(gradient)];
            self.rows(part, planned, args, (beside, back))?;
            if let (Some(from), Some(to)) = (wide_gradient, gradient) {
                cuda.panel(Batch::PanelRound, [from, to], sizes, places, false)?;
            }
            // The gradient of class indices has the temperature in its upstream one.
            let divides = back && self.probabilities.is_some();
            if divides { self.numbers.divide(self.logits, part.from, sizes) } else { Ok(()) }
        }
    }

    /// The row kernels, over rows of logits or lines that lie side by side in them.
    ///
    /// # Safety
    /// As above.
    unsafe fn rows<A: PartArgument>(
        &self,
        part: Part,
        planned: &Planned<'_>,
        args: A,
        ([values, gradient], back): ([Option<Panel>; 2], bool),
    ) -> Result<()> {
        let losses = part.from * self.positions..(part.from + part.n) * self.positions;
        let lines = |panel: Panel| self.lines(part.n, panel);
        let place = |panel: Panel, read: bool| {
            let (lines, dtype) = (lines(panel), DType::F32);
            if !lines.gathered() || planned.side_by_side() {
                return Place::resident(self.cuda, (&lines, dtype), panel.address, read, true);
            }
            // Each begins as far from a pack's border as it would among all of the batch.
            let rows = Place::ring(self.cuda, (&lines, dtype), losses.len(), 1)?;
            if read {
                self.cuda.turn([panel.address, rows.at(0, losses.start)], dtype, &lines, false)?;
            }
            Ok(rows)
        };
        let lie = |place: &Place<'_>| match place.rings() {
            true => place.lie(0, losses.start),
            false => place.lie(0, 0),
        };
        let z = place(self.logits, true)?;
        let values = values.map(|panel| place(panel, true)).transpose()?;
        let gradient = gradient.map(|panel| Ok((place(panel, false)?, panel))).transpose()?;
        let mut places = Places::default();
        let of_logits = if back { &mut places.written[0] } else { &mut places.read[0] };
        *of_logits = lie(&z);
        places.read[2] = values.as_ref().map_or(At::default(), lie);
        places.written[1] = gradient.as_ref().map_or(At::default(), |(place, _)| lie(place));
        // SAFETY: what the arguments name is as long as they say: the caller's promise; operands lie where places say.
        unsafe { planned.launch(placed(args, &places, losses.clone(), back))? };
        for (place, panel) in back.then_some((z, self.logits)).into_iter().chain(gradient) {
            if place.rings() {
                let way = [place.at(0, losses.start), panel.address];
                self.cuda.turn(way, panel.dtype, &lines(panel), true)?;
            }
        }
        Ok(())
    }
}
