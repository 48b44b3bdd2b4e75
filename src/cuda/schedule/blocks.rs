//! Rows on the host, gone through block by block: while kernels work on one block, the next is on
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

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::host::{HostMut, HostRef};
use crate::code::args::PartArgument;
use crate::code::variants::{Data, Loss};
use crate::cuda::schedule::lines::{Lines, Rows};
use crate::cuda::schedule::operands::{From, Operands, ReadRows, To, WriteRows};
use crate::cuda::schedule::rows::Work;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Output;
use crate::cuda::stream::pool::Block;
use crate::cuda::stream::staging::{Carrier, HostRows, chunks};
use std::ops::Range;

/// Chunks of a block: so many that what a step costs besides its copies (a launch and a meeting,
/// some 20 µs) is small beside the 0.3 ms that 16 MiB take at 50 GB/s. Predicted.
const BLOCK_CHUNKS: usize = 4;
/// What allocations are aligned to: a row in a block lies as it would lie in the whole tensor.
const ALIGNMENT: usize = 256;

/// An operand's rows on the device: all of them, or a few blocks of memory that blocks of rows
/// take in turn.
struct Place<'p> {
    /// Bytes from a row to the next, and elements.
    stride: (usize, usize),
    whole: u64,
    ring: Vec<Block<'p>>,
}

impl<'p> Place<'p> {
    fn resident(rows: &Rows<'_>, dtype: DType) -> Place<'p> {
        let stride = (rows.stride * dtype.size(), rows.stride);
        Place { stride, whole: rows.address, ring: Vec::new() }
    }

    fn ring(
        cuda: &'p Cuda,
        (lines, dtype): (&Lines, DType),
        block: usize,
        blocks: usize,
    ) -> Result<Place<'p>> {
        let bytes = lines.len * dtype.size();
        let take = |_| cuda.pool.take("workspace", block * bytes + ALIGNMENT);
        Ok(Place {
            stride: (bytes, lines.len),
            whole: 0,
            ring: (0..blocks).map(take).collect::<Result<_>>()?,
        })
    }

    /// Where row `first` lies, the first of block `k`.
    fn at(&self, k: usize, first: usize) -> u64 {
        let bytes = first * self.stride.0;
        match self.ring.len() {
            0 => self.whole + bytes as u64,
            n => self.ring[k % n].address() + (bytes % ALIGNMENT) as u64,
        }
    }
}

/// What a call may have to send.
#[derive(Debug, Clone, Copy)]
enum Source {
    X,
    Upstream,
    /// Rows that are overwritten.
    Y,
}

impl Source {
    const ALL: [Source; 3] = [Source::X, Source::Upstream, Source::Y];
}

/// A call's way through its rows.
pub(crate) struct Passage<'r, 'a, 'p, A> {
    cuda: &'p Cuda,
    args: A,
    rows: usize,
    /// Rows of a block.
    block: usize,
    /// What is read on the host, and where: x and an upstream gradient.
    sources: [Option<(HostRef<'r>, HostRows)>; 2],
    /// What is written on the host.
    target: Option<(&'r mut HostMut<'a>, HostRows)>,
    places: [Option<Place<'p>>; 2],
    y: Option<Place<'p>>,
    in_place: bool,
}

impl<'r, 'a, 'p, A: PartArgument> Passage<'r, 'a, 'p, A> {
    pub(crate) fn new(
        cuda: &'p Cuda,
        mut args: A,
        inputs: [Option<&'r ReadRows<'p>>; 2],
        y: Option<&'r mut WriteRows<'a, 'p>>,
    ) -> Result<Self> {
        let rows = args.rows().count as usize;
        let on_host = inputs.iter().flatten().filter_map(|input| match &input.place {
            From::Host(..) => Some(input.lines.len * input.dtype.size()),
            From::Device { .. } => None,
        });
        let written = y.as_deref().and_then(|y| match &y.place {
            To::Host(..) => Some(y.lines.len * y.dtype.size()),
            To::Device { .. } => None,
        });
        let longest = on_host.chain(written).max().unwrap_or(0).max(1);
        let block = (BLOCK_CHUNKS * cuda.driver.chunk() / longest).clamp(1, rows.max(1));
        let in_place = inputs[0].is_none();

        let (mut sources, mut places) = ([None, None], [None, None]);
        for (i, input) in inputs.into_iter().enumerate() {
            let Some(ReadRows { lines, dtype, place }) = input else { continue };
            places[i] = Some(match place {
                From::Device { rows, .. } => Place::resident(rows, *dtype),
                From::Host(host, host_rows) => {
                    sources[i] = Some((*host, *host_rows));
                    Place::ring(cuda, (lines, *dtype), block, 2.min(rows.div_ceil(block)))?
                }
            });
        }
        let (mut target, mut y_place) = (None, None);
        if let Some(WriteRows { lines, dtype, place }) = y {
            y_place = Some(match place {
                To::Device { rows, .. } => Place::resident(rows, *dtype),
                To::Host(host, host_rows) => {
                    target = Some((host, *host_rows));
                    let blocks = if in_place { 3 } else { 2 };
                    Place::ring(cuda, (lines, *dtype), block, blocks.min(rows.div_ceil(block)))?
                }
            });
        }
        Ok(Passage { cuda, args, rows, block, sources, target, places, y: y_place, in_place })
    }

    pub(crate) fn on_host(&self) -> bool {
        self.target.is_some() || self.sources.iter().any(Option::is_some)
    }

    /// The arguments for rows that all lie on the device.
    pub(crate) fn whole(&self) -> A {
        self.placed(self.args, 0, 0)
    }

    /// `args` with the operands' addresses in block `k`, which begins with row `first`.
    fn placed(&self, mut args: A, k: usize, first: usize) -> A {
        let at = |place: &Place<'_>| (place.at(k, first), place.stride.1 as i64);
        let rows = args.rows();
        if let Some(y) = &self.y {
            (rows.y, rows.y_stride) = at(y);
        }
        match &self.places[0] {
            Some(x) => (rows.x, rows.x_stride) = at(x),
            None => (rows.x, rows.x_stride) = (rows.y, rows.y_stride),
        }
        if let Some(place) = &self.places[1] {
            let upstream = args.upstream();
            (upstream.values, upstream.stride) = at(place);
        }
        args
    }

    /// A source that lies on the host.
    fn host(&self, source: Source) -> Option<(&[u8], HostRows)> {
        match (source, &self.target) {
            (Source::X, _) => self.sources[0].map(|(host, rows)| (host.bytes(), rows)),
            (Source::Upstream, _) => self.sources[1].map(|(host, rows)| (host.bytes(), rows)),
            (Source::Y, Some((host, rows))) if self.in_place => {
                Some((host.as_ref().bytes(), *rows))
            }
            (Source::Y, _) => None,
        }
    }

    fn place(&self, source: Source) -> Option<&Place<'p>> {
        match source {
            Source::X => self.places[0].as_ref(),
            Source::Upstream => self.places[1].as_ref(),
            Source::Y => self.y.as_ref(),
        }
    }

    /// Rows of block `k`.
    fn block(&self, k: usize) -> Range<usize> {
        k * self.block..self.rows.min((k + 1) * self.block)
    }

    /// Block after block; on return, the last is on the host.
    ///
    /// # Safety
    /// As for [`Cuda::go_through`].
    pub(crate) unsafe fn run(&mut self, kernels: (Loss, Data, Work)) -> Result<()> {
        // SAFETY: every address in the arguments is 0 or as long as rows, classes and strides say,
        // and operands have these rows: the caller's promise.
        let done = unsafe { self.steps(kernels) };
        // Even after an error: no block of memory is given back under a copy that is under way.
        self.cuda.driver.meet().and(done)
    }

    /// # Safety
    /// As for [`Cuda::go_through`].
    unsafe fn steps(&mut self, kernels: (Loss, Data, Work)) -> Result<()> {
        let cuda = self.cuda;
        let driver = &*cuda.driver;
        let planned = cuda.planned(kernels, self.args.rows(), self.block)?;
        let written = self.target.as_ref().map_or(0, |(_, rows)| rows.bytes());
        let read = Source::ALL.iter().filter_map(|&source| self.host(source));
        let read = read.map(|(_, rows)| rows.bytes()).sum();
        let mut carrier = cuda.staging.carrier([read, written])?;
        let blocks = self.rows.div_ceil(self.block);
        let existing = |k: usize| (k < blocks).then_some(k);

        driver.meet()?;
        // SAFETY: the ring's blocks are this call's, and block 0 is used by nothing yet.
        unsafe { self.exchange(&mut carrier, existing(0), None)? };
        if self.target.is_some() {
            // What kernels may find wrong is known now, before anything is written.
            cuda.check_call()?;
        }
        for k in 0..=blocks {
            driver.meet()?;
            if k < blocks {
                let rows = self.block(k);
                let args = self.placed(self.args.part(rows.start, rows.len()), k, rows.start);
                // SAFETY: the caller's contract; the block was sent in the step before.
                unsafe { planned.launch(args)? };
            }
            // SAFETY: this step's kernels work on block k; the ring is so long that blocks k + 1
            // and k − 1 are neither it nor each other.
            unsafe { self.exchange(&mut carrier, existing(k + 1), k.checked_sub(1))? };
        }
        if let Some((host, rows)) = &mut self.target {
            carrier.land(host.bytes_mut(), *rows)?;
        }
        Ok(())
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
        for source in Source::ALL {
            if let (Some(k), Some(place), Some(_)) = (to, self.place(source), self.host(source)) {
                sends.extend(cut(place, k).map(|chunk| (source, chunk)));
            }
        }
        let fetches: Vec<_> = match (from, &self.y, &self.target) {
            (Some(k), Some(place), Some(_)) => cut(place, k).collect(),
            _ => Vec::new(),
        };
        for i in 0..sends.len().max(fetches.len()) {
            if let Some((source, (address, range))) = sends.get(i) {
                let Some((host, rows)) = self.host(*source) else { continue };
                // SAFETY: nothing else uses the block that is sent between two meetings: the
                // caller's promise.
                unsafe { carrier.send(*address, host, rows, range.clone())? };
            }
            if let (Some((address, range)), Some((host, rows))) = (fetches.get(i), &mut self.target)
            {
                // SAFETY: what writes the block that is received is on the stream, and nothing
                // else uses it between two meetings: the caller's promise.
                unsafe { carrier.fetch(*address, host.bytes_mut(), *rows, range.clone())? };
            }
        }
        Ok(())
    }
}

impl Cuda {
    /// Goes through all rows, block by block where a tensor of them lies on the host; gives back
    /// the output that [`Cuda::read_back`] is still to bring there.
    ///
    /// `args` is filled but for the operands. Errors that kernels find are found before, by the
    /// census: nothing is written on the host if there is one.
    ///
    /// # Safety
    /// As for [`Cuda::go`]; the operands have the rows and classes of `args`.
    pub(crate) unsafe fn go_through<'a, 'p, A: PartArgument>(
        &'p self,
        kernels: (Loss, Data, Work),
        mut args: A,
        operands: Operands<'_, 'a, 'p>,
    ) -> Result<Option<Output<'a, 'p>>> {
        let Operands { x, upstream, mut y } = operands;
        if args.rows().count > 0 {
            let mut passage = Passage::new(self, args, [x, upstream], y.as_mut())?;
            match passage.on_host() {
                // SAFETY: the caller's contract; every operand has its address.
                false => unsafe { self.go(kernels.0, kernels.1, kernels.2, passage.whole())? },
                // SAFETY: every address is 0 or as long as the arguments say, and operands have
                // these rows and classes: the caller's promise.
                true => unsafe { passage.run(kernels)? },
            }
        }
        let Some(WriteRows { lines, place: To::Device { output, rows }, .. }) = y else {
            return Ok(None);
        };
        self.settle(rows, &output, &lines)?;
        Ok(Some(output))
    }
}
