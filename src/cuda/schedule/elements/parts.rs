//! Elementwise losses by parts, as their tensors come from the host block by block.
//!
//! The sums of threads wait in memory from part to part, and the thread that has an element takes up
//! the sum that the element is added to where there is one part: so any cut gives the bits of the
//! whole. Parts end where tiles of an only line do, or lines, or anywhere where each thread has an
//! element. The ends of a line are added with its first tile, but those behind the last pack come
//! with the last part: they are sent before, once more, for the sum alone.

use crate::base::error::Result;
use crate::code::args::ElementwiseArgs;
use crate::code::element_plan::{PassPlan, Walk};
use crate::code::variants::{Data, ELEMENT_THREADS};
use crate::cuda::schedule::elements::{Named, NamedInput, NamedOutput, address};
use crate::cuda::schedule::operands::{
    From, Operands, Places, READ, ReadRows, To, WRITTEN, WriteRows,
};
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Output;
use crate::cuda::stream::pool::Block;
use crate::cuda::stream::staging::HostRows;
use crate::spec::elementwise::{Operand, Space};
use std::ops::Range;

/// The order of what is written: the gradient that may stand in its input's place comes first.
const WRITES: [Operand; WRITTEN] =
    [Operand::GradInput, Operand::GradTarget, Operand::Loss, Operand::GradThird];
/// Bytes of an operand's elements behind the last pack, and room around them.
const TAIL: usize = 32;

/// The tensors that come and go block by block: of the whole shape, an element a row.
#[derive(Debug, Default)]
pub(crate) struct Streams<'r, 'a, 'p> {
    read: [Option<&'r ReadRows<'p>>; READ],
    written: [Option<WriteRows<'a, 'p>>; WRITTEN],
    /// The input becomes its gradient.
    in_place: bool,
}

impl<'r, 'a, 'p> Streams<'r, 'a, 'p> {
    pub(crate) fn reads(&mut self, operand: Operand, tensor: Option<&'r NamedInput<'p>>) {
        if let Some(Named::Blocks(rows)) = tensor {
            self.read[operand as usize] = Some(rows);
        }
    }

    /// Gives back what does not go block by block.
    pub(crate) fn writes(
        &mut self,
        operand: Operand,
        tensor: Option<NamedOutput<'a, 'p>>,
        in_place: bool,
    ) -> Option<Output<'a, 'p>> {
        match tensor? {
            Named::Whole(output) => Some(output),
            Named::Blocks(rows) => {
                self.in_place |= in_place;
                self.written[WRITES.iter().position(|&o| o == operand)?] = Some(rows);
                None
            }
        }
    }

    pub(crate) fn written(&self, operand: Operand) -> bool {
        self.written.iter().zip(WRITES).any(|(rows, o)| rows.is_some() && o == operand)
    }
}

/// Where elements are cut, and who goes through them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// Elements of the smallest part, and units: tiles, or elements.
    elements: usize,
    units: usize,
    /// All elements, and all units.
    count: usize,
    all: usize,
    /// Warps, or threads, that have units in turn; and threads.
    step: usize,
    threads: usize,
    /// Elements behind the last pack of an only line.
    tail: usize,
}

impl Cut {
    /// `aligned`: the first element of the lead begins a pack.
    pub(crate) fn new(space: &Space, plan: &PassPlan, data: Data, aligned: bool) -> Cut {
        let strided = Cut::strided(space.count(), plan.blocks);
        let Walk::Lines { tile, tiles, units: all, .. } = plan.walk else { return strided };
        let step = strided.threads / 32;
        let only = space.count() == space.inner();
        let (elements, units) = match (only, aligned) {
            (true, true) => (tile * data.lanes(), 1),
            (true, false) => (strided.count, all),
            (false, _) => (space.inner(), tiles),
        };
        let tail = if only && aligned { strided.count % data.lanes() } else { 0 };
        Cut { elements, units, all, step, tail, ..strided }
    }

    /// An element a thread.
    pub(crate) fn strided(count: usize, blocks: u32) -> Cut {
        let threads = blocks as usize * ELEMENT_THREADS as usize;
        Cut { elements: 1, units: 1, count, all: count, step: threads, threads, tail: 0 }
    }

    /// The unit that begins where a part does, or all of them at the end.
    fn unit(&self, element: usize) -> usize {
        if element == self.count { self.all } else { element / self.elements * self.units }
    }
}

/// A pass by parts.
struct Parts<'c, L> {
    cut: Cut,
    args: ElementwiseArgs,
    /// Bytes of an element of what comes and goes.
    read: [usize; READ],
    written: [usize; WRITTEN],
    in_place: bool,
    /// The sums of threads between two parts.
    sums: Block<'c>,
    tail: Option<Tail<'c>>,
    launch: L,
}

/// Elements behind the last pack, on the device.
struct Tail<'c> {
    _block: Block<'c>,
    /// Where each operand's element 0 would lie.
    read: [Option<u64>; READ],
}

impl<L: Fn(&ElementwiseArgs) -> Result<()>> Parts<'_, L> {
    /// Puts the launches for a part on the stream.
    fn put(&self, places: &Places, part: Range<usize>) -> Result<()> {
        let mut args = self.args;
        // A block lies on the device as in the whole, so all of it is reckoned from element 0.
        let begin = |at: u64, size: usize| at.wrapping_sub((part.start * size) as u64);
        for ((operand, at), size) in WRITES.into_iter().zip(places.written).zip(self.written) {
            if at.address != 0 {
                *address(&mut args, operand) = begin(at.address, size);
            }
        }
        for ((operand, at), size) in Operand::READ.into_iter().zip(places.read).zip(self.read) {
            if at.address != 0 {
                *address(&mut args, operand) = begin(at.address, size);
            }
        }
        if self.in_place {
            args.x = args.grad_x;
        }
        if part.len() == self.cut.count {
            return (self.launch)(&args);
        }
        let (mut first, end) = (self.cut.unit(part.start), self.cut.unit(part.end));
        let last = part.end == self.cut.count;
        if self.cut.tail == 0 {
            self.units(args, first..end, first > 0)?;
        } else {
            let packs = ElementwiseArgs { ends: -1, ..args };
            if let (0, Some(tail)) = (first, &self.tail) {
                self.units(packs, 0..1, false)?;
                self.units(self.sum_of(tail), 0..1, true)?;
                first = 1;
            }
            self.units(packs, first..end, first > 0)?;
            if last && WRITES.iter().any(|&o| *address(&mut args, o) != 0) {
                // The ends alone, whose sum is where it belongs.
                let ends = ElementwiseArgs { part: 0, partials: 0, ..args };
                self.units(ends, 0..1, false)?;
            }
        }
        match last && args.partials != 0 {
            // No elements: every thread takes up its sum, and blocks add theirs.
            true => {
                let before = self.sums.address();
                (self.launch)(&ElementwiseArgs { before, units: 0, count: 0, ..args })
            }
            false => Ok(()),
        }
    }

    /// Launches for some units; `resumes` where sums are there.
    fn units(&self, mut args: ElementwiseArgs, units: Range<usize>, resumes: bool) -> Result<()> {
        args.first = units.start as i64;
        (args.units, args.count) = (units.len() as i64, units.len() as i64);
        if args.partials != 0 {
            let Cut { step, threads, .. } = self.cut;
            args.turn = (units.start % step * (threads / step)) as i64;
            args.after = self.sums.address();
            args.before = if resumes { args.after } else { 0 };
        }
        (self.launch)(&args)
    }

    /// What adds the losses of the elements behind the last pack, and nothing else.
    fn sum_of(&self, tail: &Tail<'_>) -> ElementwiseArgs {
        let mut args = ElementwiseArgs { part: 0, ..self.args };
        for (operand, at) in Operand::READ.into_iter().zip(tail.read) {
            if let Some(at) = at {
                *address(&mut args, operand) = at;
            }
        }
        for operand in WRITES {
            *address(&mut args, operand) = 0;
        }
        args
    }
}

impl Cuda {
    /// Has `launch` go through all elements: at once, or part by part as blocks of what comes from
    /// the host are there. `args` is filled but for where those lie; a thread has `sums` numbers.
    ///
    /// # Safety
    /// What `launch` puts on the stream uses the elements that its arguments name: those of `first`
    /// up to `units`, or `count`, as `round` and `cut` share them out.
    pub(crate) unsafe fn by_parts<'a, 'p>(
        &'p self,
        (args, sums): (ElementwiseArgs, usize),
        cut: Cut,
        streams: Streams<'_, 'a, 'p>,
        launch: impl Fn(&ElementwiseArgs) -> Result<()>,
    ) -> Result<()> {
        let Streams { read, written, in_place } = streams;
        let size = |rows: &&ReadRows<'_>| rows.dtype.size();
        let sizes = read.each_ref().map(|r| r.as_ref().map_or(0, size));
        let written_sizes = written.each_ref().map(|w| w.as_ref().map_or(0, |w| w.dtype.size()));
        let mut operands = Operands {
            rows: cut.count,
            grain: cut.elements,
            read,
            written,
            in_place,
            as_they_lie: false,
        };
        let summed = args.partials != 0 && operands.at_once(self.driver.chunk()) < cut.count;
        let bytes = if summed { cut.threads * sums * size_of::<f64>() } else { 0 };
        let parts = Parts {
            cut,
            args,
            read: sizes,
            written: written_sizes,
            in_place,
            sums: self.pool.take("workspace", bytes)?,
            tail: match summed && cut.tail > 0 {
                true => Some(self.tail(&cut, &mut operands)?),
                false => None,
            },
            launch,
        };
        let prepare = |_| Ok(|places: &Places, part: Range<usize>| parts.put(places, part));
        // SAFETY: `launch` keeps to the elements that it is given (the caller's promise), and `put`
        // names those of a part alone: units that begin and end where the part does.
        unsafe { self.by_blocks(operands, prepare)? };
        Ok(())
    }

    /// Sends the elements behind the last pack.
    fn tail(&self, cut: &Cut, operands: &mut Operands<'_, '_, '_>) -> Result<Tail<'_>> {
        let block = self.pool.take("workspace", READ * TAIL)?;
        let mut read = [None; READ];
        let mut send = |i: usize, bytes: &[u8], rows: HostRows, size: usize| {
            let (to, all) = (block.address() + (i * TAIL) as u64, rows.bytes());
            let begin = all - cut.tail * size;
            read[i] = Some(to.wrapping_sub(begin as u64));
            // SAFETY: the block is this call's, and as long.
            unsafe { self.staging.send_part(to, bytes, rows, begin..all) }
        };
        for (i, rows) in operands.read.iter().enumerate() {
            if let Some(ReadRows { dtype, place: From::Host(host, rows), .. }) = rows {
                send(i, host.bytes(), *rows, dtype.size())?;
            }
        }
        if let (true, [Some(WriteRows { dtype, place: To::Host(host, rows), .. }), ..]) =
            (operands.in_place, &mut operands.written)
        {
            send(Operand::Input as usize, host.as_ref().bytes(), *rows, dtype.size())?;
        }
        Ok(Tail { _block: block, read })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::shape::{MAX_RANK, Shape};
    use crate::code::card::Card;
    use crate::spec::elementwise::{OPERANDS, Strides};

    fn cut(sizes: &[usize], input: &[usize], aligned: bool) -> Cut {
        let mut strides: Strides = [[0; MAX_RANK]; OPERANDS];
        strides[Operand::Input as usize][..input.len()].copy_from_slice(input);
        let space = Space::new(&Shape::new(sizes).unwrap(), &strides);
        let plan = PassPlan::new(&space, |_| false, Data::F32, &Card::h100());
        Cut::new(&space, &plan, Data::F32, aligned)
    }

    #[test]
    fn parts_end_where_tiles_lines_or_elements_do() {
        // 40 tiles of 64 packs are 10240 elements; two elements more have a tile of their own.
        let line = cut(&[10_242], &[1], true);
        assert_eq!((line.elements, line.units, line.all, line.tail), (256, 1, 41, 2));
        assert_eq!([0, 256, 5120, 10_240, 10_242].map(|e| line.unit(e)), [0, 1, 20, 40, 41]);
        assert_eq!(line.threads, line.step * 32);
        // A tile that begins inside of a pack ends where no part can.
        let shifted = cut(&[10_242], &[1], false);
        assert_eq!((shifted.elements, shifted.unit(10_242), shifted.tail), (10_242, 41, 0));
        for aligned in [true, false] {
            let lines = cut(&[7, 1003], &[1004, 1], aligned);
            assert_eq!((lines.elements, lines.units, lines.all, lines.tail), (1003, 4, 28, 0));
            assert_eq!([0, 1003, 6018, 7021].map(|e| lines.unit(e)), [0, 4, 24, 28]);
        }
        let strided = cut(&[100, 10], &[12, 1], true);
        assert_eq!((strided.elements, strided.all, strided.tail), (1, 1000, 0));
        assert_eq!((strided.unit(123), strided.step), (123, strided.threads));
    }
}
