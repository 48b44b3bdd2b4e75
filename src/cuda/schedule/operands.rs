//! The tensors that a schedule goes through row by row: on the device as they lie or gathered, on
//! the host block by block (`blocks.rs`) or, where their lines are not rows, as a whole.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::host::{HostMut, HostRef};
use crate::base::shape::Shape;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cuda::driver::elsewhere;
use crate::cuda::schedule::lines::{Lines, SideBySide, begin_with_a_pack};
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::{Input, Output};
use crate::cuda::stream::staging::HostRows;

/// Lines of a tensor, as rows that a schedule reads.
#[derive(Debug)]
pub(crate) struct ReadRows<'p> {
    pub(crate) lines: Lines,
    pub(crate) dtype: DType,
    pub(crate) place: From<'p>,
}

#[derive(Debug)]
pub(crate) enum From<'p> {
    Device(Input<'p>),
    Host(HostRef<'p>, HostRows),
}

/// Lines of a tensor, as rows that a schedule writes.
#[derive(Debug)]
pub(crate) struct WriteRows<'a, 'p> {
    pub(crate) lines: Lines,
    pub(crate) dtype: DType,
    pub(crate) place: To<'a, 'p>,
}

#[derive(Debug)]
pub(crate) enum To<'a, 'p> {
    Device(Output<'a, 'p>),
    Host(HostMut<'a>, HostRows),
}

/// Most tensors that a call reads, and writes, row by row.
pub(crate) const READ: usize = 5;
pub(crate) const WRITTEN: usize = 4;

/// The tensors that a schedule goes through row by row, in an order of the call's own.
#[derive(Debug)]
pub(crate) struct Operands<'r, 'a, 'p> {
    /// Rows that each of them has.
    pub(crate) rows: usize,
    /// Blocks have a multiple of so many rows, but for the last.
    pub(crate) grain: usize,
    pub(crate) read: [Option<&'r ReadRows<'p>>; READ],
    pub(crate) written: [Option<WriteRows<'a, 'p>>; WRITTEN],
    /// The first that is written is read before, and was named so.
    pub(crate) in_place: bool,
    /// Rows side by side stay as they lie; else they are gathered, and brought back.
    pub(crate) as_they_lie: bool,
}

/// Chunks of a block: so many that what a step costs besides its copies (a launch and a meeting,
/// some 20 µs) is small beside the 0.3 ms that 16 MiB take at 50 GB/s. Predicted.
const BLOCK_CHUNKS: usize = 4;

impl Operands<'_, '_, '_> {
    /// Whether each row that a schedule reads first begins with a pack, wherever blocks of them come to lie.
    pub(crate) fn begin_with_a_pack(&self) -> bool {
        let (lines, dtype, address) = match (&self.written[0], self.read[0]) {
            (Some(y), _) if self.in_place => {
                let address = match &y.place {
                    To::Device(output) => Some(output.address),
                    To::Host(..) => None,
                };
                (&y.lines, y.dtype, address)
            }
            (_, Some(x)) => {
                let address = match &x.place {
                    From::Device(input) => Some(input.address),
                    From::Host(..) => None,
                };
                (&x.lines, x.dtype, address)
            }
            _ => return false,
        };
        // Blocks of rows from the host lie as they would in an allocation of their own, without padding, and
        // so do rows that are gathered.
        let address = address.filter(|_| !lines.gathered());
        let at = address.map_or((0, lines.len), |address| (address, lines.stride));
        begin_with_a_pack(at, self.rows, dtype.size())
    }

    /// Whether all of them lie on the device with as many rows side by side, and at what distance the elements
    /// of what lies beside the logits do.
    pub(crate) fn side_by_side(&self) -> bool {
        let [y, grad_beside, ..] = &self.written;
        let [x, upstream, beside, ..] = self.read;
        let beside = [upstream, beside].map(|rows| rows.map(|rows| &rows.lines));
        let beside = [beside[0], beside[1], grad_beside.as_ref().map(|rows| &rows.lines)];
        let of_x = x.map(|x| &x.lines).or(y.as_ref().map(|y| &y.lines));
        let Some(of_x) = of_x.and_then(Lines::side_by_side) else { return false };
        let beside = || beside.into_iter().flatten().map(Lines::side_by_side);
        let as_many = |lines: Option<SideBySide>| lines.is_some_and(|l| l.lines == of_x.lines);
        let step = beside().flatten().next().map(|lines| lines.step);
        !self.on_host()
            && y.as_ref().is_none_or(|y| as_many(y.lines.side_by_side()))
            && beside().all(|lines| as_many(lines) && lines.map(|l| l.step) == step)
    }

    /// Whether rows come block by block.
    pub(crate) fn on_host(&self) -> bool {
        let read = self.read.iter().flatten().any(|x| matches!(x.place, From::Host(..)));
        read || self.written.iter().flatten().any(|y| matches!(y.place, To::Host(..)))
    }

    /// Rows of a block, given the bytes of a chunk; all of them where nothing lies on the host.
    pub(crate) fn at_once(&self, chunk: usize) -> usize {
        let sent = self.read.iter().flatten().filter_map(|x| match &x.place {
            From::Host(..) => Some(x.lines.len * x.dtype.size()),
            From::Device(..) => None,
        });
        let fetched = self.written.iter().flatten().filter_map(|y| match &y.place {
            To::Host(..) => Some(y.lines.len * y.dtype.size()),
            To::Device(..) => None,
        });
        match sent.chain(fetched).max() {
            Some(longest) => {
                let grains = BLOCK_CHUNKS * chunk / longest.max(1) / self.grain;
                (grains.max(1) * self.grain).min(self.rows.max(1))
            }
            None => self.rows,
        }
    }
}

/// Where rows of an operand lie on the device; zeros where there is no such operand.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct At {
    pub(crate) address: u64,
    /// Elements between rows, or between groups of them that lie side by side.
    pub(crate) stride: i64,
    /// Rows of such a group, and elements between those of a row; 0: a row lies in one piece.
    pub(crate) side_by_side: i64,
    pub(crate) step: i64,
}

/// The same of all operands.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Places {
    pub(crate) read: [At; READ],
    pub(crate) written: [At; WRITTEN],
}

/// The dimension of classes, along which a row's logits lie.
pub(crate) fn along(class_dim: usize) -> impl Fn(usize) -> bool {
    move |d| d == class_dim
}

/// Lines of a host tensor of this shape, if they are rows as they lie, but for padding.
fn by_blocks(shape: &Shape, along: impl Fn(usize) -> bool) -> Option<Lines> {
    let lines = Lines::new(shape, shape.iter().skip(1).product(), along);
    lines.packed().then_some(lines)
}

impl Cuda {
    /// Lines of a tensor to read, along the dimensions that `along` names. Those that lie on the
    /// host as rows are sent only when [`Cuda::go_through`] comes to them.
    pub(crate) fn read_rows<'p>(
        &'p self,
        argument: &'static str,
        tensor: TensorRef<'p>,
        along: impl Fn(usize) -> bool,
    ) -> Result<ReadRows<'p>> {
        let (shape, dtype) = (tensor.shape(), tensor.dtype());
        if let (Some(host), Some(lines)) = (tensor.host_data(), by_blocks(&shape, &along)) {
            let rows = HostRows::new(&shape, tensor.row_stride(), dtype.size());
            return Ok(ReadRows { lines, dtype, place: From::Host(host, rows) });
        }
        let input = self.input(argument, tensor)?;
        let lines = Lines::new(&input.shape, input.row_stride, along);
        Ok(ReadRows { lines, dtype, place: From::Device(input) })
    }

    /// Lines of a tensor to write; `read` where their contents are read as well.
    pub(crate) fn write_rows<'a, 'p: 'a>(
        &'p self,
        argument: &'static str,
        tensor: TensorMut<'a>,
        read: bool,
        along: impl Fn(usize) -> bool,
    ) -> Result<WriteRows<'a, 'p>> {
        let (shape, dtype) = (tensor.shape(), tensor.dtype());
        let on_host = tensor.as_ref().host_data().is_some();
        if let (true, Some(lines)) = (on_host, by_blocks(&shape, &along)) {
            self.to_host.set(true);
            let rows = HostRows::new(&shape, tensor.row_stride(), dtype.size());
            let host = tensor.into_host_data().ok_or(elsewhere(argument))?;
            return Ok(WriteRows { lines, dtype, place: To::Host(host, rows) });
        }
        let output = self.output(argument, tensor, read)?;
        let lines = Lines::new(&output.shape, output.row_stride, along);
        Ok(WriteRows { lines, dtype, place: To::Device(output) })
    }
}
