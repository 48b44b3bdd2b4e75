//! Lines of a tensor as rows that a schedule can go through: where they are contiguous and evenly
//! spaced as they lie, else gathered into a workspace and scattered back.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::lines;
use crate::base::shape::Shape;
use crate::code::args;
use crate::code::args::{MAX_DIMS, PermuteArgs, RowOperands};
use crate::code::variants::{Batch, PACK_BYTES, Variant};
use crate::cuda::driver::{Launch, Turn};
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::{Input, Output};
use crate::cuda::stream::pool::Block;

/// Rows of elements at a distance from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lines {
    pub(crate) count: usize,
    pub(crate) len: usize,
    /// Elements between lines.
    pub(crate) stride: usize,
    /// Sizes and strides in the order of the lines, where they do not lie like that.
    permuted: Option<[(i64, i64); MAX_DIMS]>,
}

/// Groups of lines that lie side by side, element by element: of an image its pixels, along whose classes the
/// lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SideBySide {
    /// Of a group.
    pub(crate) lines: i64,
    /// Elements between groups, and between those of a line, which kernels count in 32 bits.
    pub(crate) stride: i64,
    pub(crate) step: i64,
}

impl Lines {
    /// Lines along the dimensions that `along` names; dimension 0 has stride `row_stride`, the
    /// others are contiguous.
    pub(crate) fn new(shape: &Shape, row_stride: usize, along: impl Fn(usize) -> bool) -> Lines {
        let lines = lines::Lines::new(shape, row_stride, along);
        let (count, len) = (lines.count(), lines.len());
        if let Some(stride) = lines.stride() {
            return Lines { count, len, stride, permuted: None };
        }
        let (kept, along) = (lines.kept.pairs(), lines.along.pairs());
        let mut dims = [(1, 0); MAX_DIMS];
        let all = kept.len() + along.len();
        for (slot, &(size, stride)) in
            dims[MAX_DIMS - all..].iter_mut().zip(kept.iter().chain(along))
        {
            *slot = (size as i64, stride as i64);
        }
        Lines { count, len, stride: len, permuted: Some(dims) }
    }
}

impl Lines {
    /// How they lie where neighbours lie side by side.
    pub(crate) fn side_by_side(&self) -> Option<SideBySide> {
        let [outer @ .., (lines, 1), (_, step)] = self.permuted? else { return None };
        let mut outer = outer.iter().filter(|&&(size, _)| size != 1);
        let stride = outer.next().map_or(0, |&(_, stride)| stride);
        let counted = i32::try_from(step).is_ok();
        let one = outer.next().is_none() && lines > 1 && counted;
        one.then_some(SideBySide { lines, stride, step })
    }

    /// Whether rows of a workspace stand for them.
    pub(crate) fn gathered(&self) -> bool {
        self.permuted.is_some()
    }

    /// Whether they are rows one after another, without padding.
    pub(crate) fn packed(&self) -> bool {
        self.permuted.is_none() && (self.stride == self.len || self.count <= 1)
    }
}

/// Rows in device memory: those of a tensor, or of a workspace in its place.
#[derive(Debug)]
pub(crate) struct Rows<'p> {
    pub(crate) address: u64,
    pub(crate) stride: usize,
    workspace: Option<Block<'p>>,
}

impl Rows<'_> {
    /// As rows that are read.
    pub(crate) fn read(&self) -> RowOperands {
        RowOperands { x: self.address, x_stride: self.stride as i64, ..RowOperands::default() }
    }
}

/// Whether each of so many rows from an address on, at a distance of elements of `size` bytes, begins with a pack.
pub(crate) fn begin_with_a_pack((address, stride): (u64, usize), rows: usize, size: usize) -> bool {
    let even = |bytes: u64| bytes.is_multiple_of(PACK_BYTES as u64);
    even(address) && (rows <= 1 || even(stride as u64 * size as u64))
}

/// Threads of a block of kernels without element types.
const THREADS: usize = crate::code::variants::BATCH_THREADS as usize;
/// Most blocks of a launch whose threads go on to what is left.
pub(crate) const MAX_BLOCKS: usize = 1 << 16;
/// Blocks a multiprocessor is given tiles for: some four at once, four times over. Predicted.
const TILED_BLOCKS: usize = 16;
/// Elements of a tile's side (`WL_TILE`).
const TILE: usize = 32;

impl Cuda {
    /// Rows of a tensor to read.
    pub(crate) fn rows_in<'p>(&'p self, input: &Input<'p>, lines: &Lines) -> Result<Rows<'p>> {
        self.rows(input.address, input.dtype, lines, true)
    }

    /// Rows of a tensor; `read`: what they hold counts.
    pub(crate) fn rows(
        &self,
        address: u64,
        dtype: DType,
        lines: &Lines,
        read: bool,
    ) -> Result<Rows<'_>> {
        let Some(dims) = lines.permuted else {
            return Ok(Rows { address, stride: lines.stride, workspace: None });
        };
        let bytes = lines.count.checked_mul(lines.len).and_then(|n| n.checked_mul(dtype.size()));
        let bytes = bytes.unwrap_or(usize::MAX);
        let block = self.pool.take("workspace", bytes)?;
        if read {
            self.permute(address, block.address(), dtype, lines, dims, false)?;
        }
        Ok(Rows { address: block.address(), stride: lines.len, workspace: Some(block) })
    }

    /// Brings rows that were written to where the tensor has them.
    pub(crate) fn settle(
        &self,
        rows: Rows<'_>,
        output: &Output<'_, '_>,
        lines: &Lines,
    ) -> Result<()> {
        match (&rows.workspace, lines.permuted) {
            (Some(_), Some(dims)) => {
                self.permute(rows.address, output.address, output.dtype, lines, dims, true)
            }
            _ => Ok(()),
        }
    }

    /// Puts lines that are gathered one after another into memory, or from there where they lie.
    pub(crate) fn turn(
        &self,
        [from, to]: [u64; 2],
        dtype: DType,
        lines: &Lines,
        back: bool,
    ) -> Result<()> {
        let Some(dims) = lines.permuted else { return Ok(()) };
        self.permute(from, to, dtype, lines, dims, back)
    }

    fn permute(
        &self,
        from: u64,
        to: u64,
        dtype: DType,
        lines: &Lines,
        dims: [(i64, i64); MAX_DIMS],
        back: bool,
    ) -> Result<()> {
        let elements = lines.count * lines.len;
        let args = PermuteArgs {
            from,
            to,
            elements: elements as i64,
            sizes: dims.map(|d| d.0),
            strides: dims.map(|d| d.1),
            size: dtype.size() as u32,
            back: back.into(),
        };
        let (batch, blocks) = match tiles(dims) {
            Some(tiles) => {
                let multiprocessors = self.driver.card().multiprocessors as usize;
                (Batch::PermuteTiled, tiles.min(TILED_BLOCKS * multiprocessors))
            }
            None => (Batch::Permute, elements.div_ceil(THREADS)),
        };
        let blocks = blocks.clamp(1, MAX_BLOCKS) as u32;
        // SAFETY: the lines are those of the tensor at one end, the workspace holds them all.
        unsafe { self.launch_batch(batch, blocks, args::bytes(&args)) }
    }

    /// Launches a kernel without element types for so many pieces of work, one a thread, which goes on to
    /// what is left; not at all where there is none.
    ///
    /// # Safety
    /// As for [`Cuda::launch_batch`].
    pub(crate) unsafe fn launch_over(&self, batch: Batch, work: usize, args: &[u8]) -> Result<()> {
        let blocks = work.div_ceil(THREADS).min(MAX_BLOCKS) as u32;
        if blocks == 0 {
            return Ok(());
        }
        // SAFETY: `args` is the kernel's own struct, and the memory that it names is as long as it
        // says: the caller's promise.
        unsafe { self.launch_batch(batch, blocks, args) }
    }

    /// Launches a kernel without element types.
    ///
    /// # Safety
    /// As for [`super::driver::Driver::launch`].
    pub(crate) unsafe fn launch_batch(&self, batch: Batch, blocks: u32, args: &[u8]) -> Result<()> {
        let kernel = self.driver.kernel(Variant::Batch(batch))?;
        let threads = crate::code::variants::BATCH_THREADS;
        let turn = if batch == Batch::Census { Turn::Leads } else { Turn::Alone };
        let shared = batch.dynamic_shared();
        let launch = Launch { kernel, blocks, threads, cluster: 1, shared, turn, args };
        // SAFETY: `args` is the kernel's own struct, and the memory that it names is as long as it
        // says: the caller's promise.
        unsafe { self.driver.launch(launch) }
    }
}

/// Tiles of the last two dimensions, where they are lines that are neighbours in the tensor, and
/// the columns of each; `None` for any other order.
fn tiles(dims: [(i64, i64); MAX_DIMS]) -> Option<usize> {
    let [outer @ .., (lines, 1), (columns, _)] = dims else { return None };
    if lines == 1 || columns == 1 {
        return None;
    }
    let matrices: i64 = outer.iter().map(|d| d.0).product();
    let tiles = |n: i64| (n as usize).div_ceil(TILE);
    (matrices as usize).checked_mul(tiles(lines))?.checked_mul(tiles(columns))
}

/// The same number, or an error where a kernel cannot count that far.
pub(crate) fn count(argument: &'static str, n: usize) -> Result<i64> {
    i64::try_from(n).map_err(|_| Error::Value {
        argument,
        expected: "a size below 2^63".into(),
        got: n.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(sizes: &[usize], stride: usize, along: usize) -> Lines {
        Lines::new(&Shape::new(sizes).unwrap(), stride, |d| d == along)
    }

    #[test]
    fn rows_that_lie_one_after_another_are_taken_as_they_are() {
        let plain = |count, len, stride| Lines { count, len, stride, permuted: None };
        assert_eq!(lines(&[5, 7], 7, 1), plain(5, 7, 7));
        assert_eq!(lines(&[5, 7], 9, 1), plain(5, 7, 9));
        assert_eq!(lines(&[2, 3, 7], 21, 2), plain(6, 7, 7));
        assert_eq!(lines(&[7], 1, 0), plain(1, 7, 7));
        assert_eq!(lines(&[], 1, 0), plain(1, 1, 1));
        assert_eq!(lines(&[5, 7, 1], 7, 1), plain(5, 7, 7));
        assert_eq!(lines(&[0, 7], 7, 1), plain(0, 7, 7));
        assert_eq!(lines(&[5, 1], 3, 1), plain(5, 1, 3));
    }

    #[test]
    fn other_lines_are_permuted() {
        let dims = lines(&[2, 7, 3], 21, 1).permuted.unwrap();
        assert_eq!(dims[5..], [(2, 21), (3, 1), (7, 3)]);
        assert!(lines(&[2, 3, 7], 25, 2).permuted.is_some());
    }

    #[test]
    fn lines_that_are_neighbours_are_turned_tile_by_tile() {
        let tiles = |sizes: &[usize], along: usize| {
            let row = sizes[1..].iter().product();
            super::tiles(lines(sizes, row, along).permuted.unwrap())
        };
        assert_eq!(tiles(&[2, 70, 33], 1), Some(2 * 3 * 2));
        assert_eq!(tiles(&[2, 70, 3, 11], 1), Some(2 * 3 * 2));
        assert_eq!(tiles(&[64, 65], 0), Some(2 * 3));
        assert_eq!(tiles(&[2, 3, 5, 7], 2), Some(2 * 3));
        assert_eq!(super::tiles(lines(&[2, 3, 7], 25, 2).permuted.unwrap()), None);
        // Two dimensions along, the outer one too.
        let both = Lines::new(&Shape::new(&[4, 5, 6]).unwrap(), 30, |d| d != 1);
        assert_eq!(super::tiles(both.permuted.unwrap()), None);
    }

    #[test]
    fn pixels_of_images_lie_side_by_side() {
        let of = |sizes: &[usize], stride: usize, along: usize| {
            lines(sizes, stride, along).side_by_side()
        };
        let image = |lines, stride, step| Some(SideBySide { lines, stride, step });
        assert_eq!(of(&[2, 7, 3, 5], 110, 1), image(15, 110, 15));
        assert_eq!(of(&[1, 7, 3, 5], 105, 1), image(15, 0, 15));
        assert_eq!(of(&[7, 30], 32, 0), image(30, 0, 32));
        // In one piece, two dimensions apart, and further apart than kernels count.
        assert_eq!(of(&[5, 7], 7, 1), None);
        assert_eq!(of(&[2, 3, 7, 5], 200, 2), None);
        assert_eq!(of(&[3, 2], 1 << 31, 0), None);
    }
}
