//! Rows that count before the others, of a batch that goes through products a chunk at a time: what is past them takes
//! none. Row kernels then know slots alone: what they read of a row has been put there, and what they write goes back.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::code::args;
use crate::code::args::{CrossEntropyArgs, LabelArgs};
use crate::cuda::loss::linear_cross_entropy::rows::{RowNumbers, Written};
use crate::cuda::matrix::products::Workspace;
use crate::cuda::matrix::wide_tiles::Slots;
use crate::cuda::stream::Cuda;

/// Bytes that a row's results are in on their way, but for its likeliest classes, and pieces of memory in all.
pub(super) const BYTES: usize = 2 * 8 + 3 * 4 + 2 * 8;
pub(super) const PIECES: usize = 9 + 3;

/// What a call writes of each row, in the order of slots.
pub(super) struct BySlot<'p> {
    /// Rows that count.
    pub(super) count: usize,
    results: Vec<Written>,
    _memory: Workspace<'p>,
}

impl<'p> BySlot<'p> {
    /// Has the arguments name slots. Waits for how many rows count, but takes them all for that while the stream is
    /// captured.
    ///
    /// # Safety
    /// The slots are those of n rows, whose arguments these are.
    pub(super) unsafe fn new(
        cuda: &'p Cuda,
        (slots, n): (&Slots<'p>, usize),
        args: &mut CrossEntropyArgs,
    ) -> Result<BySlot<'p>> {
        let kind = args::kind(DType::I64);
        args.target = LabelArgs { values: slots.marks, ignore_index: -1, kind, pad: 0 };
        let (mut results, mut memory) = (Vec::new(), Workspace::new(cuda, n));
        for (address, bytes, names_class) in args.written() {
            if *address == 0 {
                continue;
            }
            let words = bytes / size_of::<u32>();
            let from = memory.packed(words, DType::U32)?.address;
            let missing = if names_class { u32::MAX } else { 0 };
            results.push(Written { from, to: std::mem::replace(address, from), words, missing });
        }
        // SAFETY: the slots are those of n rows: the caller's promise.
        let count = unsafe { slots.counted(cuda, n)? };
        Ok(BySlot { count, results, _memory: memory })
    }

    /// Puts results where their rows are.
    ///
    /// # Safety
    /// Those of all slots that count are on the stream; where they go is borrowed exclusively.
    pub(super) unsafe fn put_back(&self, numbers: &RowNumbers<'p>) -> Result<()> {
        for written in &self.results {
            // SAFETY: both have as many words a row, and slots that do not count are not read: the caller's promise
            // for the others.
            unsafe { numbers.put_back(written)? };
        }
        Ok(())
    }
}
