//! How a target stands among the classes: what beats it, and what beats all.
//!
//! The order is that of the logits as given; NaN is larger than every number, and of equals the
//! lower column beats the higher. The target cuts its row in two, so that a stretch lies on one
//! side of it as a whole: equals beat the target on the left and never on the right.

use crate::base::error::{Error, Result};
use crate::base::host::Element as _;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::cpu::processor::{Cpu, host_data, host_i64};
use crate::cpu::row::hole::Hole;
use crate::cpu::row::places::Places;
use crate::cpu::simd::{Kernel, Lanes, Level, MAX_LANES, Simd, load_lanes};
use crate::cpu::threads::SyncPtr;
use std::ops::Range;

/// The best class of a stretch or a row, and how many of its classes beat the target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) beats: u64,
    pub(crate) best: f32,
    pub(crate) column: usize,
}

impl Standing {
    /// Of no class.
    pub(crate) const NONE: Standing =
        Standing { beats: 0, best: f32::NEG_INFINITY, column: usize::MAX };

    pub(crate) fn merge(&mut self, other: &Standing) {
        self.beats += other.beats;
        if is_ahead((other.best, other.column), (self.best, self.column)) {
            (self.best, self.column) = (other.best, other.column);
        }
    }
}

/// Whether a logit with its column beats another.
pub(crate) fn is_ahead((value, column): (f32, usize), (other, at): (f32, usize)) -> bool {
    match value == other || (value.is_nan() && other.is_nan()) {
        true => column < at,
        false => value > other || value.is_nan(),
    }
}

/// The standing of columns on one side of the target; `x` is the first of them.
///
/// # Safety
/// As many elements as there are columns are readable at `x`.
pub(crate) unsafe fn standing<T: Lanes>(
    level: Level,
    x: *const T,
    columns: Range<usize>,
    target: &Hole,
) -> Standing {
    let len = columns.len();
    if len == 0 {
        return Standing::NONE;
    }
    let key = target.logit;
    let left = columns.start < target.column;
    let tally = match left {
        true => level.run(Count::<T, true> { x, len, key }),
        false => level.run(Count::<T, false> { x, len, key }),
    };
    let beats = match (left, key.is_nan()) {
        (true, true) => tally.nans,
        (true, false) => len as u64 - tally.beaten,
        (false, true) => 0,
        (false, false) => tally.beaten + tally.nans,
    };
    let (mut best, mut at) = (tally.best, tally.at);
    if tally.nans > 0 {
        // SAFETY: `len` is how many columns there are, and as many elements are readable at `x`:
        // the caller's promise.
        let nan = (0..len).find(|&i| unsafe { x.add(i).read() }.to_f32().is_nan());
        (best, at) = (f32::NAN, nan.unwrap_or(at));
    }
    Standing { beats, best, column: columns.start + at }
}

/// What one visit to a stretch finds.
struct Tally {
    /// On the left of the target the elements below it, on the right those above.
    beaten: u64,
    nans: u64,
    /// The largest number, and its first place.
    best: f32,
    at: usize,
}

struct Count<T, const LEFT: bool> {
    x: *const T,
    len: usize,
    key: f32,
}

impl<T: Lanes, const LEFT: bool> Kernel for Count<T, LEFT> {
    type Out = Tally;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Tally {
        let Count { x, len, key } = self;
        let (zero, one, key) = (s.splat(0.0), s.splat(1.0), s.splat(key));
        // Counts and numbers of vectors are whole floats: a stretch has fewer than 2^24 of each.
        // Two of each, so that a vector need not wait for the one before.
        let (mut beaten, mut nans) = ([zero; 2], [zero; 2]);
        let (mut best, mut first) = ([s.splat(f32::NEG_INFINITY); 2], [zero; 2]);
        let mut number = [zero, one];
        let two = s.splat(2.0);
        let mut i = 0;
        while i < len {
            for k in 0..2 {
                let at = (i + k * S::LANES).min(len);
                let lanes = S::LANES.min(len - at);
                // SAFETY: whoever makes a `Count` vouches for `len` elements at `x`.
                let v = unsafe { load_lanes(s, x.add(at), lanes, f32::NEG_INFINITY) };
                let (a, b) = if LEFT { (v, key) } else { (key, v) };
                beaten[k] = s.add(beaten[k], s.select_lt(a, b, one, zero));
                nans[k] = s.add(nans[k], s.select_eq(v, v, zero, one));
                first[k] = s.select_lt(best[k], v, number[k], first[k]);
                best[k] = s.select_lt(best[k], v, v, best[k]);
                number[k] = s.add(number[k], two);
            }
            i += 2 * S::LANES;
        }
        let padding = i - len;
        let mut tally = Tally {
            beaten: s.reduce_add(s.add(beaten[0], beaten[1])) as u64,
            nans: s.reduce_add(s.add(nans[0], nans[1])) as u64,
            best: f32::NEG_INFINITY,
            at: 0,
        };
        // −∞ beyond the end is below every key but −∞ and NaN.
        if LEFT && self.key > f32::NEG_INFINITY {
            tally.beaten -= padding as u64;
        }
        for k in 0..2 {
            let (mut values, mut numbers) = ([0.0; MAX_LANES], [0.0; MAX_LANES]);
            // SAFETY: both hold the most lanes that a vector has.
            unsafe {
                s.store(values.as_mut_ptr(), best[k]);
                s.store(numbers.as_mut_ptr(), first[k]);
            }
            for lane in 0..S::LANES {
                let at = numbers[lane] as usize * S::LANES + lane;
                let (value, equal) = (values[lane], values[lane] == tally.best);
                if value > tally.best || (equal && at < tally.at) {
                    (tally.best, tally.at) = (value, at);
                }
            }
        }
        tally
    }
}

/// Where argmax and rank go; null where nobody asked.
#[derive(Clone, Copy)]
pub(crate) struct RankResults {
    argmax: SyncPtr<i64>,
    rank: SyncPtr<i64>,
    places: Places,
}

impl RankResults {
    /// Nobody asked for any.
    pub(crate) const NONE: RankResults = RankResults {
        argmax: SyncPtr(std::ptr::null_mut()),
        rank: SyncPtr(std::ptr::null_mut()),
        places: Places::ALL,
    };

    /// The same for rows that have these places among those of the whole.
    pub(crate) fn at(self, places: Places) -> RankResults {
        RankResults { places, ..self }
    }

    pub(crate) fn new(
        argmax: Option<TensorMut<'_>>,
        rank: Option<TensorMut<'_>>,
    ) -> Result<RankResults> {
        let pointer = |tensor: Option<TensorMut<'_>>, argument| match tensor {
            None => Ok(SyncPtr(std::ptr::null_mut())),
            Some(tensor) => Ok(SyncPtr(host_i64(tensor, argument)?.as_mut_ptr())),
        };
        let (argmax, rank) = (pointer(argmax, "argmax")?, pointer(rank, "rank")?);
        Ok(RankResults { argmax, rank, places: Places::ALL })
    }

    pub(crate) fn wanted(&self) -> bool {
        !self.argmax.get().is_null() || !self.rank.get().is_null()
    }

    /// Writes one row's; `None` for an ignored one.
    ///
    /// # Safety
    /// Each pointer is null or good for an element a row; nobody else writes this row's.
    pub(crate) unsafe fn put(&self, row: usize, standing: Option<&Standing>) {
        let row = self.places.row(row);
        let values = [
            (self.argmax, standing.map_or(-1, |s| s.column as i64)),
            (self.rank, standing.map_or(-1, |s| s.beats as i64)),
        ];
        for (out, value) in values {
            if !out.get().is_null() {
                // SAFETY: a pointer that is not null has an element a row, and this row's is
                // written by this call alone: the caller's promise.
                unsafe { out.get().add(row).write(value) };
            }
        }
    }
}

impl Cpu {
    /// How many ranks are not negative and below each limit.
    pub(crate) fn count_ranks(
        &self,
        rank: TensorRef<'_>,
        limits: &[i64],
        counts: &mut [i64],
    ) -> Result<()> {
        let (data, rows) = (host_data(rank, "rank")?, rank.elements());
        let Some(ranks) = i64::from_host(data) else {
            let (expected, got) = ("host i64", "other");
            return Err(Error::Place { argument: "rank", expected, got });
        };
        for (count, limit) in counts.iter_mut().zip(limits) {
            *count = ranks[..rows].iter().filter(|r| (0..*limit).contains(*r)).count() as i64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every length about the vectors' widths, every level, against a plain count.
    #[test]
    fn standings_are_those_of_a_plain_count_at_every_level() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let pool = [0.0, -0.0, 1.0, 2.0, -3.5, inf, -inf, nan, 2.0, 1.0, 1e-40];
        let beats = |a: f32, i: usize, b: f32, j: usize| {
            (a.is_nan() && !b.is_nan())
                || a > b
                || ((a == b || (a.is_nan() && b.is_nan())) && i < j)
        };
        let mut seed = 1u64;
        for level in Level::available() {
            for len in 1..70 {
                for round in 0..8 {
                    let x: Vec<f32> = (0..len)
                        .map(|_| {
                            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
                            // Some rounds without NaN or infinities.
                            pool[(seed >> 33) as usize % [5, 5, 7, 7, 8, 8, 11, 11][round]]
                        })
                        .collect();
                    let t = (seed >> 40) as usize % len;
                    let hole = Hole {
                        column: t,
                        logit: x[t],
                        reference: 0.0,
                        z: 0.0,
                        slope: 1.0,
                        weight: 0.0,
                    };
                    let mut got = Standing { beats: 0, best: x[t], column: t };
                    // SAFETY: the columns are those of `x`.
                    unsafe {
                        got.merge(&standing(level, x.as_ptr(), 0..t, &hole));
                        got.merge(&standing(level, x[t..].as_ptr().add(1), t + 1..len, &hole));
                    }
                    let rank = (0..len).filter(|&i| beats(x[i], i, x[t], t)).count();
                    let argmax = (0..len).find(|&j| (0..len).all(|i| !beats(x[i], i, x[j], j)));
                    assert_eq!(got.beats, rank as u64, "{x:?} {t} {}", level.name());
                    assert_eq!(Some(got.column), argmax, "{x:?} {t} {}", level.name());
                }
            }
        }
    }
}
