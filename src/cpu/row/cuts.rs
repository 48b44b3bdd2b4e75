//! How a row is cut, who works on the pieces, and what they leave. A block is 8 KiB of f32, so that it
//! stays in a 32 KiB L1 cache between passes; that of a shard is that of its whole row.

use crate::cpu::threads::{Spread, SyncPtr, share};
use crate::spec::row_state::{MAX_BLOCKS, block};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Most segments of a row: the target cuts one block in two.
const MAX_SEGMENTS: usize = MAX_BLOCKS + 1;

/// How a row of `len` elements is cut: blocks of equal size, one of them cut at the hole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segments {
    len: usize,
    block: usize,
    hole: Option<usize>,
}

impl Segments {
    pub(crate) fn new(len: usize, hole: Option<usize>) -> Segments {
        Segments::of_blocks(len, block(len), hole)
    }

    /// A shard of a row that as a whole has `len.div_ceil(block)` blocks at most.
    pub(crate) fn of_blocks(len: usize, block: usize, hole: Option<usize>) -> Segments {
        assert!(len.div_ceil(block) <= MAX_BLOCKS, "more blocks than a row has");
        Segments { len, block, hole }
    }

    /// The segment that lies right of the hole.
    pub(crate) fn after_hole(&self) -> Option<usize> {
        self.hole.map(|hole| hole / self.block + 1)
    }

    pub(crate) fn count(&self) -> usize {
        self.len.div_ceil(self.block) + usize::from(self.hole.is_some())
    }

    pub(crate) fn range(&self, i: usize) -> Range<usize> {
        let block = |b: usize| b * self.block..((b + 1) * self.block).min(self.len);
        match self.hole {
            Some(hole) => match i.cmp(&(hole / self.block)) {
                std::cmp::Ordering::Less => block(i),
                std::cmp::Ordering::Equal => block(i).start..hole,
                std::cmp::Ordering::Greater if i == hole / self.block + 1 => {
                    hole + 1..block(i - 1).end
                }
                std::cmp::Ordering::Greater => block(i - 1),
            },
            None => block(i),
        }
    }

    /// Calls `work(segment, columns)` once for each segment, in no order that matters.
    pub(crate) fn each(&self, spread: Spread, work: impl Fn(usize, Range<usize>) + Sync) {
        match spread {
            Spread::Alone => (0..self.count()).for_each(|i| work(i, self.range(i))),
            Spread::Shared => share(self.count(), 4, &|i| work(i, self.range(i))),
        }
    }

    /// As [`Segments::each`], from the last segment to the first where one thread does it all:
    /// the end of a row that was just read is what a cache still holds.
    pub(crate) fn each_reversed(&self, spread: Spread, work: impl Fn(usize, Range<usize>) + Sync) {
        match spread {
            Spread::Alone => (0..self.count()).rev().for_each(|i| work(i, self.range(i))),
            Spread::Shared => self.each(spread, work),
        }
    }
}

/// Both sides of a target in a row of one block.
#[derive(Clone, Copy)]
pub(crate) struct Around {
    pub(crate) len: usize,
    pub(crate) target: usize,
}

impl Around {
    /// First element and length of each side.
    #[inline(always)]
    pub(crate) fn sides(self) -> [(usize, usize); 2] {
        [(0, self.target), (self.target + 1, self.len - self.target - 1)]
    }
}

/// One value a segment, written by whoever works on that segment; not initialised before, since
/// clearing them would cost a short row more than its own work.
pub(crate) struct Slots<T>([MaybeUninit<T>; MAX_SEGMENTS]);

impl<T: Copy + Send> Slots<T> {
    /// Calls `work` once for each segment and keeps what it returns.
    pub(crate) fn fill(
        &mut self,
        segments: &Segments,
        spread: Spread,
        work: impl Fn(usize, Range<usize>) -> T + Sync,
    ) -> &[T] {
        let slots = SyncPtr(self.0.as_mut_ptr());
        segments.each(spread, |i, columns| {
            let value = work(i, columns);
            // SAFETY: a segment's number is below MAX_SEGMENTS, and each comes once.
            unsafe { slots.get().add(i).write(MaybeUninit::new(value)) };
        });
        // SAFETY: every segment has written its slot.
        unsafe { self.filled(segments) }
    }

    /// # Safety
    /// [`Slots::fill`] has returned for these segments.
    pub(crate) unsafe fn filled(&self, segments: &Segments) -> &[T] {
        let slots = &self.0[..segments.count()];
        // SAFETY: the slots are written, and MaybeUninit<T> is laid out as T.
        unsafe { std::slice::from_raw_parts(slots.as_ptr().cast(), slots.len()) }
    }

    pub(crate) const fn new() -> Self {
        Slots([const { MaybeUninit::uninit() }; MAX_SEGMENTS])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_every_column_but_the_hole_once() {
        for len in [0usize, 1, 2, 63, 2047, 2048, 2049, 4096, 5000, 3_000_000] {
            for hole in [None, Some(0), Some(len / 2), Some(2047), Some(2048), len.checked_sub(1)] {
                if hole.is_some_and(|h| h >= len) {
                    continue;
                }
                let segments = Segments::new(len, hole);
                assert!(segments.count() <= MAX_SEGMENTS);
                let columns = (0..segments.count()).flat_map(|i| segments.range(i));
                assert!(columns.eq((0..len).filter(|&c| Some(c) != hole)), "{len} {hole:?}");
            }
        }
    }
}
