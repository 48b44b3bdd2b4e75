//! Rows added up by class on the device, in the same order every time: `kernels/batch/sort.cu` sorts, and
//! `kernels/batch/segment_sum.cu` adds. Two kinds of parts come in one go: `whole` rows as they are, then the
//! `rest`, rows times a factor each.

use crate::base::error::Result;
use crate::code::args;
use crate::code::args::{SegmentArgs, SortArgs};
use crate::code::variants::Batch;
use crate::cuda::driver::product::Panel;
use crate::cuda::matrix::clusters::{Cutter, blocks};
use crate::cuda::schedule::lines::count;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::pool::Block;
use std::ops::Range;

/// Parts that a block sorts (`WL_SORT_TILE`).
const TILE: usize = 2048;
/// Columns and places of a block that adds (`WL_SEGMENT_COLUMNS`, and its warps).
const COLUMNS: usize = 128;
const PLACES: usize = 8;

/// Parts in the order of their classes.
pub(crate) struct Segments<'p> {
    cuda: &'p Cuda,
    keys: u64,
    parts: u64,
    /// Parts that are whole, and the others.
    sizes: [usize; 2],
    _memory: Block<'p>,
}

/// The rows of parts that are not whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rest {
    /// `None`: every element is 1.
    pub(crate) rows: Option<Panel>,
    /// Address of each part's slot (i64); 0: as they stand.
    pub(crate) slots: u64,
    /// The slots whose rows these are.
    pub(crate) of: [usize; 2],
    /// Address of each part's factor (f32); 0: 1.
    pub(crate) factors: u64,
}

/// Where sums are added to.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    /// A row a class.
    pub(crate) rows: Panel,
    pub(crate) columns: usize,
    pub(crate) classes: Range<usize>,
}

impl<'p> Segments<'p> {
    /// Sorts parts by class: `(address of their classes (i64, below 0: none), how many)`, whole parts
    /// first.
    ///
    /// # Safety
    /// The addresses have so many classes, all below `classes`.
    pub(crate) unsafe fn sort(
        cuda: &'p Cuda,
        [first, second]: [(u64, usize); 2],
        classes: usize,
    ) -> Result<Segments<'p>> {
        let n = first.1 + second.1;
        let tiles = n.div_ceil(TILE);
        let bytes = 4 * Cutter::bytes(n, 8) + Cutter::bytes(256 * tiles, 4);
        let memory = cuda.pool.take("workspace", bytes)?;
        let mut cut = Cutter(memory.address());
        let [mut here, mut there] = [[(); 2]; 2].map(|both| both.map(|()| cut.take(n, 8)));
        let mut args = SortArgs {
            first: first.0,
            second: second.0,
            to_keys: here[0],
            to_parts: here[1],
            counts: cut.take(256 * tiles, 4),
            n: count("rows", n)?,
            split: count("rows", first.1)?,
            classes: count("classes", classes)?,
            tiles: tiles as i64,
            ..SortArgs::default()
        };
        if n > 0 {
            // SAFETY: the caller's contract; the memory is as long as parts and tiles need.
            unsafe {
                cuda.launch_batch(Batch::SortKeys, blocks(n), args::bytes(&args))?;
                // `classes` itself stands for none.
                for shift in (0..usize::BITS - classes.leading_zeros()).step_by(8) {
                    [args.keys, args.parts] = here;
                    [args.to_keys, args.to_parts] = there;
                    args.shift = shift;
                    let bytes = args::bytes(&args);
                    cuda.launch_batch(Batch::SortCount, tiles as u32, bytes)?;
                    cuda.launch_batch(Batch::SortScan, 1, bytes)?;
                    cuda.launch_batch(Batch::SortScatter, tiles as u32, bytes)?;
                    std::mem::swap(&mut here, &mut there);
                }
            }
        }
        let sizes = [first.1, second.1];
        Ok(Segments { cuda, keys: here[0], parts: here[1], sizes, _memory: memory })
    }

    /// Adds to the rows of a table's classes those of their parts.
    ///
    /// # Safety
    /// The panels have a row for each part that is asked for, and the table one for each class; its
    /// memory is initialised.
    pub(crate) unsafe fn add(&self, whole: Option<Panel>, rest: Rest, table: &Table) -> Result<()> {
        let [split, n] = [self.sizes[0], self.sizes[0] + self.sizes[1]];
        let stretches = table.columns.div_ceil(COLUMNS);
        if n == 0 || stretches == 0 {
            return Ok(());
        }
        let mut args = SegmentArgs {
            keys: self.keys,
            parts: self.parts,
            slots: rest.slots,
            factors: rest.factors,
            to: table.rows.address,
            n: count("rows", n)?,
            split: count("rows", split)?,
            from: count("rows", rest.of[0])?,
            to_slot: count("rows", rest.of[1])?,
            begin: count("classes", table.classes.start)?,
            end: count("classes", table.classes.end)?,
            columns: count("columns", table.columns)?,
            to_stride: table.rows.stride as i64,
            to_kind: args::kind(table.rows.dtype),
            ..SegmentArgs::default()
        };
        if let Some(whole) = whole {
            (args.whole, args.whole_stride) = (whole.address, whole.stride as i64);
            args.whole_kind = args::kind(whole.dtype);
        }
        if let Some(rows) = rest.rows {
            (args.rest, args.rest_stride) = (rows.address, rows.stride as i64);
            args.rest_kind = args::kind(rows.dtype);
        }
        let blocks = n.div_ceil(PLACES).saturating_mul(stretches);
        let blocks = u32::try_from(blocks).ok().filter(|&blocks| blocks <= i32::MAX as u32);
        let blocks = blocks.ok_or_else(|| crate::base::error::Error::Value {
            argument: "rows",
            expected: "as many as a launch has blocks for".into(),
            got: n.to_string(),
        })?;
        // SAFETY: a panel has a row for each part, the table one for each class, and all are
        // initialised: the caller's promise; keys and parts are as many as were sorted.
        unsafe { self.cuda.launch_batch(Batch::SegmentSums, blocks, args::bytes(&args)) }
    }
}
