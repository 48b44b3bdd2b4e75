//! Log-softmax of short rows that are read and written where they lie.

use crate::cpu::batch::lines::{Sink, Source, Way, each_chunk};
use crate::cpu::batch::place::PAST_THE_CACHES;
use crate::cpu::batch::tiles::{CHUNK, Memory, ONE_PIECE, short};
use crate::cpu::processor::Cpu;
use crate::cpu::row::tile::{Lie, ROWS, SHORT, Straight, Strip};
use crate::cpu::simd::{Lanes, settle};
use crate::cpu::threads::SyncRef;
use std::ops::Range;

/// The tensors of a call, evenly spaced rows in one piece each, of one type.
pub(super) struct Rows<T> {
    count: usize,
    len: usize,
    x: Strip<*const T>,
    a: Option<Strip<*const T>>,
    y: Strip<*mut T>,
}

impl<T: Lanes> Rows<T> {
    /// Those of lines that are such rows, and short.
    pub(super) fn new<A: Lanes, Y: Lanes>(
        x: &Source<T>,
        a: Option<&Source<A>>,
        y: &Sink<Y>,
    ) -> Option<Rows<T>> {
        let (count, len) = (x.lines.count(), x.lines.len());
        let one_type = Y::DTYPE == T::DTYPE && (a.is_none() || A::DTYPE == T::DTYPE);
        if !one_type || !short(x) || len < ONE_PIECE || count == 0 {
            return None;
        }
        let a = match a {
            Some(a) => Some(Strip { first: a.base.cast(), stride: a.lines.stride()? }),
            None => None,
        };
        let x = Strip { first: x.base, stride: x.lines.stride()? };
        let y = Strip { first: y.base.cast(), stride: y.lines.stride()? };
        Some(Rows { count, len, x, a, y })
    }

    /// Writes their log-probabilities, or with upstream gradients their gradient.
    ///
    /// # Safety
    /// The layouts were those of valid tensors at the bases, equal in count and length; `y` overlaps nothing
    /// else, and nobody else touches it during the call.
    pub(super) unsafe fn log_softmax(self, cpu: &Cpu) {
        let (count, len, level) = (self.count, self.len, cpu.level);
        let bytes = count * len * size_of::<T>();
        let past = bytes >= PAST_THE_CACHES && self.y.stride == len;
        // What a row costs besides its elements is some of them.
        let way = Way::of(cpu, count, len + 16);
        // SAFETY: chunks are disjoint ranges of rows, and rows do not overlap: the caller's promise.
        let rows = unsafe { SyncRef::new(&self) };
        let run = |range: Range<usize>, _: &mut ()| {
            let Rows { x, a, y, .. } = rows.get();
            let (mut tile, mut results) = (Memory::<SHORT>::new(), Memory::<SHORT>::new());
            let tile = tile.of_len(a.map_or(0, |_| Lie::Along.lanes(len)));
            let results = results.of_len(if past { len } else { 0 });
            for first in range.clone().step_by(ROWS) {
                // SAFETY: the row exists in each tensor.
                unsafe {
                    let at = |of: Strip<*const T>| Strip {
                        first: of.first.add(first * of.stride),
                        ..of
                    };
                    let y = Strip { first: y.first.add(first * y.stride), ..*y };
                    let (x, a, rows) = (at(*x), a.map(at), ROWS.min(range.end - first));
                    Straight { level, rows, len, x, a, y, past }.log_softmax(tile, results);
                }
            }
            if past {
                settle();
            }
        };
        each_chunk(cpu, (count, CHUNK), way, run, |(), ()| ());
    }
}
