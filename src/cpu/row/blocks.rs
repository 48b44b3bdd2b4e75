//! Rows of one block each, some in one entry into the vector loops: both sides of their targets are summed, the
//! exponentials kept as f32, where the logits were or apart, and made a gradient.
//!
//! Each visit goes over all rows before the next one begins. What a row waits for, that a vector's lanes
//! come to one number, the processor then does beside other rows.

use crate::cpu::row::cuts::Around;
use crate::cpu::row::logit::{Linear, Logit};
use crate::cpu::row::narrow::{self, PowerOf, Rescale, ends};
use crate::cpu::row::partial::Partial;
use crate::cpu::row::softmax;
use crate::cpu::simd::{Kernel, Lanes, Level, Simd, Unit, power_of_two};

/// Most rows.
pub(crate) const MOST: usize = 8;

/// A row, and its target's column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<X, Y> {
    pub(crate) x: *const X,
    /// Where exponentials are kept: of f32 the row itself.
    pub(crate) kept: *mut f32,
    pub(crate) out: *mut Y,
    pub(crate) target: usize,
    /// The target's logit.
    pub(crate) logit: f32,
}

impl<X, Y> Block<X, Y> {
    pub(crate) const NONE: Block<X, Y> = Block {
        x: std::ptr::null(),
        kept: std::ptr::null_mut(),
        out: std::ptr::null_mut(),
        target: 0,
        logit: 0.0,
    };
}

/// What a row is on both sides of its target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sides {
    pub(crate) parts: [Partial; 2],
    /// What makes kept exponentials relative to the largest of the row, the target included, where they all are
    /// relative to one number; without it each side's are to its own largest.
    pub(crate) relative: Option<f64>,
}

/// Sums rows of f32, whose exponentials replace the logits; a side with +∞ is left as it is.
///
/// # Safety
/// There are [`MOST`] rows at most, each of `len` elements at `kept`, the target among them, and nobody else
/// touches them.
pub(crate) unsafe fn sum_in_place<X, Y>(
    level: Level,
    linear: Linear,
    (rows, len): (&[Block<X, Y>], usize),
    sides: &mut [Option<Sides>],
) {
    match linear {
        Linear::Plain(logit) => level.run(SumInPlace { rows, len, logit, sides }),
        Linear::Scaled(logit) => level.run(SumInPlace { rows, len, logit, sides }),
    }
}

struct SumInPlace<'r, X, Y, L> {
    rows: &'r [Block<X, Y>],
    len: usize,
    logit: L,
    sides: &'r mut [Option<Sides>],
}

impl<X, Y, L: Logit> Kernel for SumInPlace<'_, X, Y, L> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SumInPlace { rows, len, logit, sides } = self;
        // The next rows, in whose maxima nothing is computed meanwhile.
        let ahead = rows.len() * len * size_of::<f32>();
        let mut maxima = [[0.0; 2]; MOST];
        for (row, maxima) in rows.iter().zip(&mut maxima) {
            let [left, right] = row.stretches(len, logit, ahead);
            *maxima = [left.maximum(s), right.maximum(s)];
        }
        for ((row, maxima), sides) in rows.iter().zip(maxima).zip(sides) {
            let mut parts = [Partial::EMPTY; 2];
            let stretches = row.stretches(len, logit, ahead);
            for ((stretch, max), part) in stretches.into_iter().zip(maxima).zip(&mut parts) {
                *part = stretch.relative_to(s, max);
            }
            *sides = Some(Sides { parts, relative: None });
        }
    }
}

impl<X, Y> Block<X, Y> {
    /// What is left and right of the target, of a row of `len` f32.
    #[inline(always)]
    fn stretches<L: Logit>(
        &self,
        len: usize,
        logit: L,
        ahead: usize,
    ) -> [softmax::Accumulate<f32, L, true, false>; 2] {
        let [(left, before), (right, after)] = (Around { len, target: self.target }).sides();
        let (left, right) = (self.kept.wrapping_add(left), self.kept.wrapping_add(right));
        [
            softmax::Accumulate { x: left, len: before, logit, ahead },
            softmax::Accumulate { x: right, len: after, logit, ahead },
        ]
    }
}

/// Sums rows of 16 bits; none of a row with a NaN or +∞, or one side far below the other, or where f32 has not
/// the digits.
///
/// # Safety
/// There are [`MOST`] rows at most, each of `len` elements of 16 bits at `x`, the target among them, with room
/// for as many f32 at `kept`.
pub(crate) unsafe fn sum_apart<X: Lanes, Y>(
    level: Level,
    linear: Linear,
    (rows, len): (&[Block<X, Y>], usize),
    sides: &mut [Option<Sides>],
) {
    level.run(SumApart { rows, len, scale: linear.scale(), sides });
}

struct SumApart<'r, X, Y> {
    rows: &'r [Block<X, Y>],
    len: usize,
    scale: f32,
    sides: &'r mut [Option<Sides>],
}

impl<X: Lanes, Y> Kernel for SumApart<'_, X, Y> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SumApart { rows, len, scale, sides } = self;
        let mut found = [None; MOST];
        for (row, found) in rows.iter().zip(&mut found) {
            // SAFETY: whoever makes a `SumApart` vouches for the rows.
            *found = unsafe { row.ends(len) };
        }
        for ((row, found), sides) in rows.iter().zip(found).zip(sides) {
            *sides = None;
            if let Some(ends) = found {
                // SAFETY: whoever makes a `SumApart` vouches for the rows and their room.
                *sides = unsafe { row.sum(s, len, scale, ends) };
            }
        }
    }
}

impl<X: Lanes, Y> Block<X, Y> {
    /// Each side's largest, and the least of both; none with a NaN.
    ///
    /// # Safety
    /// `len` elements of 16 bits are readable at `x`, the target among them.
    #[inline(always)]
    unsafe fn ends(&self, len: usize) -> Option<([f32; 2], f32)> {
        let (mut maxima, mut lowest) = ([f32::NEG_INFINITY; 2], f32::INFINITY);
        let around = Around { len, target: self.target };
        for ((at, len), largest) in around.sides().into_iter().zip(&mut maxima) {
            if len > 0 {
                // SAFETY: the side lies inside the row, for which the caller vouches.
                let [most, least] = unsafe { ends(self.x.add(at), len) }?;
                (*largest, lowest) = (most, lowest.min(least));
            }
        }
        Some((maxima, lowest))
    }

    /// # Safety
    /// As for [`sum_apart`], of this row, whose ends these are.
    #[inline(always)]
    unsafe fn sum<S: Simd>(
        &self,
        s: S,
        len: usize,
        scale: f32,
        (maxima, lowest): ([f32; 2], f32),
    ) -> Option<Sides> {
        let largest = maxima[0].max(maxima[1]);
        let unit = Unit::new(scale, largest)?;
        let any = !unit.spans(lowest, largest);
        let mut sums = [0.0; 2];
        let around = Around { len, target: self.target };
        for ((at, len), sum) in around.sides().into_iter().zip(&mut sums) {
            // SAFETY: the side lies inside the row and its room, for which the caller vouches.
            let (x, kept) = unsafe { (self.x.add(at), self.kept.add(at)) };
            *sum = match any {
                true => narrow::Accumulate::<X, true, true> { x, kept, len, unit }.run(s),
                false => narrow::Accumulate::<X, true, false> { x, kept, len, unit }.run(s),
            };
        }
        let top = largest.max(self.logit);
        let top_unit = Unit::new(scale, top)?;
        // No closure: it would not be compiled for the instruction set.
        let [a, b] = maxima;
        let powers = [PowerOf { unit, x: a }.run(s), PowerOf { unit, x: b }.run(s)];
        let own = f64::from(PowerOf { unit: top_unit, x: top }.run(s));
        let relative = Some(power_of_two(unit.exponent() - top_unit.exponent()) / own);
        let left = part(unit, (a, largest), powers[0], sums[0])?;
        let right = part(unit, (b, largest), powers[1], sums[1])?;
        Some(Sides { parts: [left, right], relative })
    }
}

/// A side's sum relative to its own largest, as if it were alone; none where that is far below the row's.
fn part(unit: Unit, (max, largest): (f32, f32), power: f32, sum: f32) -> Option<Partial> {
    if max == f32::NEG_INFINITY {
        return Some(Partial::EMPTY);
    }
    let sum = (f64::from(sum) / f64::from(power)) as f32;
    let exponent = unit.exponent();
    let part = Partial { max, sum, others: sum - 1.0, moment: 0.0, exponent };
    unit.reaches(max, largest).then_some(part)
}

/// Kept exponentials become `factor·e` in `out`, but for the target, with a factor for each side.
///
/// # Safety
/// `len` f32 are readable at each row's `kept` and as many elements writable at its `out`, the target among
/// them.
pub(crate) unsafe fn rescale<X, Y: Lanes>(
    level: Level,
    (rows, len): (&[Block<X, Y>], usize),
    factors: &[[f32; 2]],
) {
    level.run(RescaleBlocks { rows, len, factors });
}

struct RescaleBlocks<'r, X, Y> {
    rows: &'r [Block<X, Y>],
    len: usize,
    factors: &'r [[f32; 2]],
}

impl<X, Y: Lanes> Kernel for RescaleBlocks<'_, X, Y> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let RescaleBlocks { rows, len, factors } = self;
        for (&Block { kept, out, target, .. }, factors) in rows.iter().zip(factors) {
            for ((at, len), &factor) in (Around { len, target }).sides().into_iter().zip(factors) {
                // SAFETY: whoever makes a `RescaleBlocks` vouches for the row and the target, so that both
                // sides lie inside.
                let (kept, out) = unsafe { (kept.add(at).cast_const(), out.add(at)) };
                Rescale { kept, out, len, factor, smooth: 0.0 }.run(s);
            }
        }
    }
}
