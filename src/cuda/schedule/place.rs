//! Where an operand's rows lie on the device.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::cuda::schedule::lines::{Lines, Rows, SideBySide};
use crate::cuda::schedule::operands::At;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::pool::Block;

/// What allocations are aligned to: a row in a block lies as it would lie in the whole tensor.
const ALIGNMENT: usize = 256;

/// An operand's rows on the device: all of them, or a few blocks of memory that blocks of rows
/// take in turn.
pub(crate) struct Place<'p> {
    /// Bytes from a row to the next, and elements.
    pub(crate) stride: (usize, usize),
    whole: u64,
    ring: Vec<Block<'p>>,
    pub(crate) side_by_side: Option<SideBySide>,
    /// On the device: the rows, those of a workspace in place of the tensor's where they are gathered.
    pub(crate) rows: Option<Rows<'p>>,
}

impl<'p> Place<'p> {
    /// Rows of a tensor on the device; `read`: what they hold counts.
    pub(crate) fn resident(
        cuda: &'p Cuda,
        (lines, dtype): (&Lines, DType),
        address: u64,
        read: bool,
        as_they_lie: bool,
    ) -> Result<Place<'p>> {
        if let Some(lie) = lines.side_by_side().filter(|_| as_they_lie) {
            let (stride, ring) = ((0, lie.stride as usize), Vec::new());
            return Ok(Place { stride, whole: address, ring, side_by_side: Some(lie), rows: None });
        }
        let rows = cuda.rows(address, dtype, lines, read)?;
        Ok(Place {
            stride: (rows.stride * dtype.size(), rows.stride),
            whole: rows.address,
            ring: Vec::new(),
            side_by_side: None,
            rows: Some(rows),
        })
    }

    /// So many blocks of memory, for as many rows each.
    pub(crate) fn ring(
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
            side_by_side: None,
            rows: None,
        })
    }

    /// Whether rows come to memory of its own.
    pub(crate) fn rings(&self) -> bool {
        !self.ring.is_empty()
    }

    /// The same of all rows from that one on, for kernels.
    pub(crate) fn lie(&self, k: usize, first: usize) -> At {
        At {
            address: self.at(k, first),
            stride: self.stride.1 as i64,
            side_by_side: self.side_by_side.map_or(0, |lie| lie.lines),
            step: self.side_by_side.map_or(0, |lie| lie.step),
        }
    }

    /// Where row `first` lies, the first of block `k`.
    pub(crate) fn at(&self, k: usize, first: usize) -> u64 {
        let bytes = first * self.stride.0;
        match self.ring.len() {
            0 => self.whole + bytes as u64,
            n => self.ring[k % n].address() + (bytes % ALIGNMENT) as u64,
        }
    }
}
