//! Rows of one block each, in place on f32: both sides of the targets of some rows in one entry into the vector
//! loops.

use crate::cpu::row::cuts::Around;
use crate::cpu::row::gradient::Rescale;
use crate::cpu::row::logit::{Linear, Logit};
use crate::cpu::row::partial::Partial;
use crate::cpu::row::softmax::Accumulate;
use crate::cpu::simd::{Kernel, Level, Simd};

/// A row, and its target's column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub(crate) x: *mut f32,
    pub(crate) target: usize,
}

/// What both sides of each row sum to, whose exponentials replace the logits, relative to the side's own
/// maximum. A side with +∞ is left as it is.
///
/// # Safety
/// Each row has `len` elements, the target among them, and nobody else touches it.
pub(crate) unsafe fn sum_and_keep(
    level: Level,
    linear: Linear,
    (rows, len): (&[Block], usize),
    parts: &mut [[Partial; 2]],
) {
    match linear {
        Linear::Plain(logit) => level.run(SumBlocks { rows, len, logit, parts }),
        Linear::Scaled(logit) => level.run(SumBlocks { rows, len, logit, parts }),
    }
}

struct SumBlocks<'r, L> {
    rows: &'r [Block],
    len: usize,
    logit: L,
    parts: &'r mut [[Partial; 2]],
}

impl<L: Logit> Kernel for SumBlocks<'_, L> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SumBlocks { rows, len, logit, parts } = self;
        // The next rows, in whose maxima nothing is computed meanwhile.
        let of = (len, rows.len() * len * size_of::<f32>());
        // All maxima first: they wait for one another's lanes, but not for other rows'.
        for (row, parts) in rows.iter().zip(&mut *parts) {
            let [left, right] = row.sides(of, logit);
            (parts[0].max, parts[1].max) = (left.maximum(s), right.maximum(s));
        }
        for (row, parts) in rows.iter().zip(parts) {
            for (side, part) in row.sides(of, logit).into_iter().zip(parts) {
                *part = side.relative_to(s, part.max);
            }
        }
    }
}

impl Block {
    /// What is left and right of the target, of a row of `len` elements.
    #[inline(always)]
    fn sides<L: Logit>(
        self,
        (len, ahead): (usize, usize),
        logit: L,
    ) -> [Accumulate<f32, L, true, false>; 2] {
        let Block { x, target } = self;
        let [(left, before), (right, after)] = (Around { len, target }).sides();
        let (left, right) = (x.wrapping_add(left), x.wrapping_add(right));
        [
            Accumulate { x: left, len: before, logit, ahead },
            Accumulate { x: right, len: after, logit, ahead },
        ]
    }
}

/// Kept exponentials become `factor·e`, with a factor for each side.
///
/// # Safety
/// As for [`sum_and_keep`].
pub(crate) unsafe fn rescale(level: Level, (rows, len): (&[Block], usize), factors: &[[f32; 2]]) {
    level.run(RescaleBlocks { rows, len, factors });
}

struct RescaleBlocks<'r> {
    rows: &'r [Block],
    len: usize,
    factors: &'r [[f32; 2]],
}

impl Kernel for RescaleBlocks<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let RescaleBlocks { rows, len, factors } = self;
        for (&Block { x, target }, factors) in rows.iter().zip(factors) {
            for ((at, len), &factor) in (Around { len, target }).sides().into_iter().zip(factors) {
                // SAFETY: whoever makes a `RescaleBlocks` vouches for the row and the target, so that both
                // sides lie inside.
                let x = unsafe { x.add(at) };
                Rescale { x, len, factor, smooth: 0.0, weights: std::ptr::null() }.run(s);
            }
        }
    }
}
