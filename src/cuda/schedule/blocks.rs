//! Rows on the host (of elements that each stand alone, one each), gone through block by block: while kernels work on one block, the next is on
//! its way to the device and the one before on its way back.
//!
//! Between two meetings of the stream with the copy queues (`Driver::meet`) lies a *step*:
//!
//! ```text
//! step      −1       0        1        2       …      n
//! to        block 0  block 1  block 2  block 3
//! kernels            block 0  block 1  block 2        (n − 1: last)
//! from                        block 0  block 1 …      block n − 1
//! ```
//!
//! What happens in one step is on blocks that differ, in memory that differs: a tensor that is
//! only sent or only received needs two blocks of device memory, one that is overwritten three. So
//! the device holds a few blocks, however large the batch. Plan and alignment are those of the
//! whole batch, and with them every bit of the results.

use crate::base::error::Result;
use crate::base::host::{HostMut, HostRef};
use crate::code::args::{PartArgument, SumArgs};
use crate::code::variants::{Data, Loss};
use crate::cuda::schedule::operands::{
    At, From, Operands, Places, READ, ReadRows, To, WRITTEN, WriteRows,
};
use crate::cuda::schedule::place::Place;
use crate::cuda::schedule::rows::{Lie, Work};
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Output;
use crate::cuda::stream::staging::{Carrier, HostRows, Shore, chunks};
use std::ops::Range;

/// What is read on the host, and where.
type Source<'r> = (HostRef<'r>, HostRows);

/// A call's way through its rows.
pub(crate) struct Passage<'r, 'a, 'p> {
    cuda: &'p Cuda,
    rows: usize,
    /// Rows of a block.
    block: usize,
    sources: [Option<Source<'r>>; READ],
    read: [Option<Place<'p>>; READ],
    /// What is written on the host.
    targets: Targets<'r, 'a>,
    written: [Option<Place<'p>>; WRITTEN],
    in_place: bool,
}

/// Outputs on the host.
struct Targets<'r, 'a>([Option<(&'r mut HostMut<'a>, HostRows)>; WRITTEN]);

impl Shore for Targets<'_, '_> {
    fn rows(&mut self, output: usize) -> Option<(&mut [u8], HostRows)> {
        self.0[output].as_mut().map(|(host, rows)| (host.bytes_mut(), *rows))
    }
}

/// An operand that is sent: one that is read, or the one that is overwritten.
#[derive(Debug, Clone, Copy)]
enum Sent {
    Read(usize),
    Overwritten,
}

impl<'r, 'a, 'p> Passage<'r, 'a, 'p> {
    pub(crate) fn new(
        cuda: &'p Cuda,
        operands: &'r mut Operands<'_, 'a, 'p>,
    ) -> Result<Passage<'r, 'a, 'p>>
    where
        'p: 'r,
    {
        let block = operands.at_once(cuda.driver.chunk());
        let Operands { rows, in_place, as_they_lie, read: inputs, written: outputs, .. } = operands;
        let (rows, in_place, as_they_lie) = (*rows, *in_place, *as_they_lie);
        let blocks = rows.div_ceil(block);

        let (mut sources, mut read) = ([None; READ], [const { None }; READ]);
        for (i, input) in inputs.iter().enumerate() {
            let Some(ReadRows { lines, dtype, place }) = input else { continue };
            read[i] = Some(match place {
                From::Device(input) => {
                    Place::resident(cuda, (lines, *dtype), input.address, true, as_they_lie)?
                }
                From::Host(host, host_rows) => {
                    sources[i] = Some((*host, *host_rows));
                    Place::ring(cuda, (lines, *dtype), block, 2.min(blocks))?
                }
            });
        }
        let (mut targets, mut written) = ([const { None }; WRITTEN], [const { None }; WRITTEN]);
        for (i, output) in outputs.iter_mut().enumerate() {
            let Some(WriteRows { lines, dtype, place }) = output else { continue };
            written[i] = Some(match place {
                To::Device(output) => {
                    let read = in_place && i == 0;
                    Place::resident(cuda, (lines, *dtype), output.address, read, as_they_lie)?
                }
                To::Host(host, host_rows) => {
                    targets[i] = Some((host, *host_rows));
                    let ring = if in_place && i == 0 { 3 } else { 2 };
                    Place::ring(cuda, (lines, *dtype), block, ring.min(blocks))?
                }
            });
        }
        let targets = Targets(targets);
        Ok(Passage { cuda, rows, block, sources, read, targets, written, in_place })
    }

    fn on_host(&self) -> bool {
        self.targets.0.iter().any(Option::is_some) || self.sources.iter().any(Option::is_some)
    }

    /// Where the operands' rows lie in block `k`, which begins with row `first`.
    fn places(&self, k: usize, first: usize) -> Places {
        let at = |place: &Option<Place<'_>>| {
            place.as_ref().map_or(At::default(), |place| place.lie(k, first))
        };
        Places { read: self.read.each_ref().map(at), written: self.written.each_ref().map(at) }
    }

    /// What is sent from the host.
    fn host(&self, sent: Sent) -> Option<(&[u8], HostRows)> {
        match sent {
            Sent::Read(i) => self.sources[i].map(|(host, rows)| (host.bytes(), rows)),
            Sent::Overwritten => {
                let target = self.targets.0[0].as_ref().filter(|_| self.in_place);
                target.map(|(host, rows)| (host.as_ref().bytes(), *rows))
            }
        }
    }

    fn place(&self, sent: Sent) -> Option<&Place<'p>> {
        match sent {
            Sent::Read(i) => self.read[i].as_ref(),
            Sent::Overwritten => self.written[0].as_ref(),
        }
    }

    fn sent() -> impl Iterator<Item = Sent> {
        (0..READ).map(Sent::Read).chain([Sent::Overwritten])
    }

    /// Rows of block `k`.
    fn block(&self, k: usize) -> Range<usize> {
        k * self.block..self.rows.min((k + 1) * self.block)
    }

    /// Has `launch` put the kernels for rows on the stream: for all at once where they lie on the
    /// device, else block after block; on return, the last block is on the host.
    ///
    /// # Safety
    /// What `launch` puts on the stream uses the operands' rows that it is given, and no others.
    pub(crate) unsafe fn run(
        &mut self,
        launch: &mut dyn FnMut(&Places, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        if !self.on_host() {
            return launch(&self.places(0, 0), 0..self.rows);
        }
        // SAFETY: the launches keep to the rows that they are given: the caller's promise.
        let done = unsafe { self.steps(launch) };
        // Even after an error: no block of memory is given back under a copy that is under way.
        self.cuda.driver.meet().and(done)
    }

    /// # Safety
    /// As for [`Passage::run`].
    unsafe fn steps(
        &mut self,
        launch: &mut dyn FnMut(&Places, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let cuda = self.cuda;
        let driver = &*cuda.driver;
        let written = self.targets.0.iter().flatten().map(|(_, rows)| rows.bytes()).sum();
        let read = Self::sent().filter_map(|sent| self.host(sent));
        let read = read.map(|(_, rows)| rows.bytes()).sum();
        let mut carrier = cuda.staging.carrier([read, written])?;
        let blocks = self.rows.div_ceil(self.block);
        let existing = |k: usize| (k < blocks).then_some(k);

        driver.meet()?;
        // SAFETY: the ring's blocks are this call's, and block 0 is used by nothing yet.
        unsafe { self.exchange(&mut carrier, existing(0), None)? };
        if self.targets.0.iter().any(Option::is_some) {
            // What kernels may find wrong is known now, before anything is written.
            cuda.check_call()?;
        }
        for k in 0..=blocks {
            driver.meet()?;
            if k < blocks {
                let rows = self.block(k);
                // The block was sent in the step before.
                launch(&self.places(k, rows.start), rows)?;
            }
            // SAFETY: this step's kernels work on block k; the ring is so long that blocks k + 1
            // and k − 1 are neither it nor each other.
            unsafe { self.exchange(&mut carrier, existing(k + 1), k.checked_sub(1))? };
        }
        carrier.land(&mut self.targets)
    }

    /// Sends one block and receives another, chunk by chunk in turn.
    ///
    /// # Safety
    /// Between the last meeting and the next nothing else uses their memory, and what writes the
    /// block that is received is on the stream.
    unsafe fn exchange(
        &mut self,
        carrier: &mut Carrier<'_>,
        to: Option<usize>,
        from: Option<usize>,
    ) -> Result<()> {
        let chunk = self.cuda.driver.chunk();
        // Chunks of a block, each with its address on the device.
        let cut = |place: &Place<'_>, k: usize| {
            let (rows, row) = (self.block(k), place.stride.0);
            let (base, begin) = (place.at(k, rows.start), rows.start * row);
            let ranges = chunks(begin..rows.end * row, chunk);
            ranges.map(move |range| (base + (range.start - begin) as u64, range))
        };
        let mut sends = Vec::new();
        for sent in Self::sent() {
            if let (Some(k), Some(place), Some(_)) = (to, self.place(sent), self.host(sent)) {
                sends.extend(cut(place, k).map(|chunk| (sent, chunk)));
            }
        }
        let mut fetches = Vec::new();
        for (i, place) in self.written.iter().enumerate() {
            if let (Some(k), Some(place), Some(_)) = (from, place, &self.targets.0[i]) {
                fetches.extend(cut(place, k).map(|chunk| (i, chunk)));
            }
        }
        for i in 0..sends.len().max(fetches.len()) {
            if let Some((sent, (address, range))) = sends.get(i) {
                let Some((host, rows)) = self.host(*sent) else { continue };
                // SAFETY: nothing else uses the block that is sent between two meetings: the
                // caller's promise.
                unsafe { carrier.send(*address, host, rows, range.clone())? };
            }
            if let Some((output, (address, range))) = fetches.get(i) {
                // SAFETY: what writes the block that is received is on the stream, and nothing
                // else uses it between two meetings: the caller's promise.
                unsafe {
                    carrier.fetch(*address, *output, range.clone(), &mut self.targets)?;
                }
            }
        }
        Ok(())
    }
}

impl Cuda {
    /// Goes through rows, block by block where a tensor of them lies on the host: `prepare` is told how
    /// many come at once, and gives what puts the kernels for some of them on the stream. Gives back the outputs that [`Cuda::read_back`] is
    /// still to bring to the host.
    ///
    /// Errors that kernels find are found before, by the census: nothing is written on the host if
    /// there is one.
    ///
    /// # Safety
    /// As for [`Passage::run`].
    pub(crate) unsafe fn by_blocks<'a, 'p, L>(
        &'p self,
        mut operands: Operands<'_, 'a, 'p>,
        prepare: impl FnOnce(usize) -> Result<L>,
    ) -> Result<[Option<Output<'a, 'p>>; WRITTEN]>
    where
        L: FnMut(&Places, Range<usize>) -> Result<()>,
    {
        let mut written = [const { None }; WRITTEN];
        if operands.rows > 0 {
            let mut passage = Passage::new(self, &mut operands)?;
            let mut launch = prepare(passage.block)?;
            // SAFETY: launches keep to the rows that they are given: the caller's promise.
            unsafe { passage.run(&mut launch)? };
            written = passage.written.map(|place| place.and_then(|place| place.rows));
        }
        let mut outputs = [const { None }; WRITTEN];
        for ((to, output), rows) in outputs.iter_mut().zip(operands.written).zip(written) {
            let Some(WriteRows { lines, place: To::Device(output), .. }) = output else {
                continue;
            };
            if let Some(rows) = rows {
                self.settle(rows, &output, &lines)?;
            }
            *to = Some(output);
        }
        Ok(outputs)
    }

    /// As [`Cuda::by_blocks`], by the schedules of rows. `args` is filled but for where rows lie; what losses
    /// its schedule says are to be added up are, in the launch that writes them where rows lie on the device.
    ///
    /// # Safety
    /// As for [`Cuda::go`]; the operands have the rows and classes of `args`.
    pub(crate) unsafe fn go_through<'a, 'p, A: PartArgument>(
        &'p self,
        kernels: (Loss, Data, Work),
        mut args: A,
        tensors: RowTensors<'_, 'a, 'p>,
    ) -> Result<[Option<Output<'a, 'p>>; WRITTEN]> {
        let mut operands = tensors.operands(args.rows().count as usize);
        let in_place = operands.in_place;
        let lie = self.lie(kernels, &mut args, &operands);
        operands.as_they_lie = lie == Lie::SideBySide;
        // What comes block by block is added up when all of it is there, and so is nothing.
        let apart = operands.on_host() || operands.rows == 0;
        let sum = if apart { std::mem::take(&mut args.schedule().sum) } else { SumArgs::default() };
        let prepare = |at_once: usize| {
            let planned = self.planned(kernels, args.rows(), lie, at_once)?;
            Ok(move |places: &Places, part: Range<usize>| {
                let args = placed(args, places, part, in_place);
                // SAFETY: every address is 0 or as long as the arguments say, and the operands have
                // these rows and classes: the caller's promise; a block was sent before.
                unsafe { planned.launch(args) }
            })
        };
        // SAFETY: a part's arguments name the rows of that part alone.
        let outputs = unsafe { self.by_blocks(operands, prepare)? };
        if sum.tickets != 0 {
            self.add_up(sum)?;
        }
        Ok(outputs)
    }
}

/// The arguments for some of their rows, with the operands of [`RowTensors`] where those lie.
pub(crate) fn placed<A: PartArgument>(
    args: A,
    places: &Places,
    part: Range<usize>,
    in_place: bool,
) -> A {
    let mut args = args.part(part.start, part.len());
    let [x, upstream, beside, ..] = places.read;
    let [y, grad_beside, ..] = places.written;
    let x = if in_place { y } else { x };
    let rows = args.rows();
    (rows.x, rows.x_stride, rows.y, rows.y_stride) = (x.address, x.stride, y.address, y.stride);
    (rows.side_by_side, rows.x_step, rows.y_step) = (x.side_by_side, x.step, y.step);
    rows.beside_step =
        [upstream, beside, grad_beside].map(|at| at.step).into_iter().max().unwrap_or(0);
    if upstream.address != 0 {
        let to = args.upstream();
        (to.values, to.stride) = (upstream.address, upstream.stride);
    }
    if let Some(to) = args.beside() {
        (to.values, to.stride) = (beside.address, beside.stride);
        (to.gradient, to.gradient_stride) = (grad_beside.address, grad_beside.stride);
    }
    args
}

/// The tensors that a schedule of rows goes through.
#[derive(Debug, Default)]
pub(crate) struct RowTensors<'r, 'a, 'p> {
    /// `None`: the rows that are overwritten, which were named as read.
    pub(crate) x: Option<&'r ReadRows<'p>>,
    /// An upstream gradient of an element for each of theirs.
    pub(crate) upstream: Option<&'r ReadRows<'p>>,
    /// Rows as long beside them, a teacher's or of probabilities.
    pub(crate) beside: Option<&'r ReadRows<'p>>,
    pub(crate) y: Option<WriteRows<'a, 'p>>,
    pub(crate) grad_beside: Option<WriteRows<'a, 'p>>,
}

impl<'r, 'a, 'p> RowTensors<'r, 'a, 'p> {
    /// Of so many rows.
    pub(crate) fn operands(self, rows: usize) -> Operands<'r, 'a, 'p> {
        let RowTensors { x, upstream, beside, y, grad_beside } = self;
        Operands {
            rows,
            grain: 1,
            read: [x, upstream, beside, None, None],
            written: [y, grad_beside, None, None],
            in_place: x.is_none(),
            as_they_lie: false,
        }
    }
}
