//! The k largest logits of a row, in the order of ranks: the larger before the smaller, NaN before every
//! number, of equals the lower column first.

use crate::cpu::row::cuts::Segments;
use crate::cpu::row::hole::Hole;
use crate::cpu::row::ranks::is_ahead;
use crate::cpu::row::work::Row;
use crate::cpu::simd::{Kernel, Lanes, Level, Simd, load_lanes};
use crate::cpu::threads::SyncPtr;
use crate::spec::cross_entropy::tokens::MOST_TOP;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The first k of what was offered, in order.
#[derive(Debug, Clone)]
pub(crate) struct Top {
    k: usize,
    values: Vec<f32>,
    columns: Vec<usize>,
}

impl Top {
    fn new(k: usize) -> Top {
        Top { k, values: Vec::with_capacity(k), columns: Vec::with_capacity(k) }
    }

    /// The logits, with their columns.
    pub(crate) fn each(&self) -> impl Iterator<Item = (f32, usize)> + '_ {
        self.values.iter().copied().zip(self.columns.iter().copied())
    }

    /// The k-th, where there are so many.
    fn last(&self) -> Option<f32> {
        (self.values.len() == self.k).then(|| self.values.last().copied()).flatten()
    }

    pub(crate) fn offer(&mut self, value: f32, column: usize) {
        let behind = |i: usize| !is_ahead((value, column), (self.values[i], self.columns[i]));
        let at = (0..self.values.len()).rev().find(|&i| behind(i)).map_or(0, |i| i + 1);
        if at == self.k {
            return;
        }
        self.values.truncate(self.k - 1);
        self.columns.truncate(self.k - 1);
        self.values.insert(at, value);
        self.columns.insert(at, column);
    }
}

/// What at least k elements of a row are known to be at least, by whoever has met so many.
struct Floor(AtomicU32);

impl Floor {
    const NONE: u32 = 0;

    /// Bits of a number in its order, all above [`Floor::NONE`].
    fn raise(&self, value: f32) {
        if value.is_nan() {
            return;
        }
        let bits = value.to_bits();
        let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        self.0.fetch_max(ordered, Ordering::Relaxed);
    }

    fn get(&self) -> Option<f32> {
        match self.0.load(Ordering::Relaxed) {
            Floor::NONE => None,
            ordered if ordered >> 31 == 1 => Some(f32::from_bits(ordered & !(1 << 31))),
            ordered => Some(f32::from_bits(!ordered)),
        }
    }
}

/// The k largest logits of a row with a target, which is among those that are looked at.
///
/// # Safety
/// The row's `len` elements are readable at `x`, and nobody writes to them.
#[inline(never)]
pub(crate) unsafe fn top_of<T: Lanes>(row: &Row<T>, hole: &Hole, k: usize) -> Top {
    let segments = Segments::new(row.len, Some(hole.column));
    let (level, x, gathering) = (row.level, SyncPtr(row.x.cast_mut()), Gathering::new(k));
    segments.each(row.spread, |_, columns| {
        // SAFETY: the columns lie inside the row, which is only read: the caller's promise.
        unsafe { gathering.offer(level, x.get().add(columns.start).cast_const(), columns) };
    });
    let mut top = gathering.top.into_inner().unwrap_or_else(PoisonError::into_inner);
    top.offer(hole.logit, hole.column);
    top
}

/// The k largest logits of a row whose stretches come in any order, from any thread.
pub(crate) struct Gathering {
    floor: Floor,
    top: Mutex<Top>,
}

impl Gathering {
    /// Bytes of one, at most.
    pub(crate) const BYTES: usize =
        size_of::<Gathering>() + MOST_TOP * (size_of::<f32>() + size_of::<usize>());

    pub(crate) fn new(k: usize) -> Gathering {
        Gathering { floor: Floor(AtomicU32::new(Floor::NONE)), top: Mutex::new(Top::new(k)) }
    }

    /// Offers a stretch; `x` is the first of its columns.
    ///
    /// # Safety
    /// As many elements as there are columns are readable at `x`.
    pub(crate) unsafe fn offer<T: Lanes>(&self, level: Level, x: *const T, columns: Range<usize>) {
        let mut own = Top::new(self.found().k);
        // SAFETY: the caller's promise.
        unsafe { take(level, x, columns, &self.floor, &mut own) };
        if own.values.is_empty() {
            return;
        }
        let mut top = self.found();
        own.each().for_each(|(value, column)| top.offer(value, column));
        top.last().inspect(|&last| self.floor.raise(last));
    }

    /// What was offered so far, as nobody who has it held it up.
    pub(crate) fn found(&self) -> MutexGuard<'_, Top> {
        self.top.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Offers the columns of a stretch; `x` is the first of them.
///
/// # Safety
/// As many elements as there are columns are readable at `x`.
unsafe fn take<T: Lanes>(
    level: Level,
    x: *const T,
    columns: Range<usize>,
    floor: &Floor,
    top: &mut Top,
) {
    let (len, mut done) = (columns.len(), 0);
    while done < len {
        // Of equals with what others have met, this column may be the lower; nothing is below -inf.
        let floor_below = floor.get().map(f32::next_down).filter(|floor| floor.is_finite());
        let bound = match (top.last(), floor_below) {
            (Some(last), Some(floor)) => Some(last.max(floor)),
            (last, floor) => last.or(floor),
        };
        // SAFETY: `done` is below `len`, as many elements as are readable at `x`: the caller's promise.
        let rest = unsafe { x.add(done) };
        let found = match bound {
            Some(bound) => level.run(Above { x: rest, len: len - done, bound }),
            None => 0,
        };
        let first = done + found;
        done = len.min(first + CHUNK);
        for i in first.min(len)..done {
            // SAFETY: `i` is below `len`, as many elements as are readable at `x`: the caller's promise.
            let value = unsafe { x.add(i).read() }.to_f32();
            if bound.is_none_or(|bound| value > bound || value.is_nan()) {
                top.offer(value, columns.start + i);
            }
        }
        top.last().inspect(|&last| floor.raise(last));
    }
}

/// Elements that are looked at one by one, once one of them is of interest.
const CHUNK: usize = 64;

/// How many elements there are before the first chunk with a NaN, or with one above the bound.
struct Above<T> {
    x: *const T,
    len: usize,
    bound: f32,
}

impl<T: Lanes> Kernel for Above<T> {
    type Out = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        let Above { x, len, bound } = self;
        let (zero, one, bound) = (s.splat(0.0), s.splat(1.0), s.splat(bound));
        let mut i = 0;
        while i < len {
            let mut any = zero;
            let mut at = i;
            while at < len.min(i + CHUNK) {
                let n = S::LANES.min(len - at);
                // SAFETY: whoever makes an `Above` vouches for `len` elements at `x`.
                let v = unsafe { load_lanes(s, x.add(at), n, f32::NEG_INFINITY) };
                any = s.max(any, s.select_lt(bound, v, one, zero));
                any = s.max(any, s.select_eq(v, v, zero, one));
                at += S::LANES;
            }
            if s.reduce_max(any) > 0.0 {
                return i;
            }
            i += CHUNK;
        }
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::threads::Spread;

    /// Every length about the vectors' widths and a row's blocks, every level, alone and shared, against a
    /// sort.
    #[test]
    fn the_first_k_are_those_of_a_sort_at_every_level() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let pool = [0.0, -0.0, 1.0, 2.0, -3.5, inf, -inf, nan, 2.0, 1.0, 1e-40];
        let mut seed = 7u64;
        for level in Level::available() {
            for len in (1..40).chain([63, 64, 65, 129, 2047, 2048, 2049, 5000]) {
                for round in 0..6 {
                    let x: Vec<f32> = (0..len)
                        .map(|_| {
                            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
                            match round {
                                0 => (seed >> 40) as f32,
                                1 => -((seed >> 50) as f32),
                                _ => pool[(seed >> 33) as usize % [5, 7, 8, 11][round - 2]],
                            }
                        })
                        .collect();
                    let t = (seed >> 40) as usize % len;
                    let logit = x[t];
                    let hole =
                        Hole { column: t, logit, reference: 0.0, z: 0.0, slope: 1.0, weight: 0.0 };
                    let mut order: Vec<usize> = (0..len).collect();
                    order.sort_by(|&a, &b| {
                        is_ahead((x[b], b), (x[a], a)).cmp(&is_ahead((x[a], a), (x[b], b)))
                    });
                    for k in [1, 5, MOST_TOP] {
                        let k = k.min(len);
                        for spread in [Spread::Alone, Spread::Shared] {
                            // SAFETY: the row is `x`.
                            let top = unsafe { top_of(&Row::plain(level, spread, &x), &hole, k) };
                            let got: Vec<usize> = top.each().map(|(_, column)| column).collect();
                            assert_eq!(got, order[..k], "{x:?} {k} {}", level.name());
                        }
                    }
                }
            }
        }
    }
}
