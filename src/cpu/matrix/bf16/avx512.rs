//! Products by AVX512-BF16: a broadcast pair of a row's terms times sixteen columns' pairs.

use crate::cpu::matrix::bf16::form::{Packed, Parts, SIDE, WORDS};
use crate::cpu::matrix::product::Panel;
use std::arch::x86_64::*;
use std::ops::Range;

/// Exists only where the processor has AVX512-BF16, F, BW, VL and DQ: made by [`Avx512Bf16::detect`] alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512Bf16(());

/// Rows whose sums are in registers at once, with those of twice as many columns as a panel has.
const HALF: usize = SIDE / 2;

impl Avx512Bf16 {
    pub(super) fn detect() -> Option<Avx512Bf16> {
        let found = is_x86_feature_detected!("avx512bf16")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        found.then_some(Avx512Bf16(()))
    }

    /// The products over some steps.
    ///
    /// # Safety
    /// As for [`super::multiply`]; the steps are the factors'.
    pub(super) unsafe fn multiply(
        self,
        add: bool,
        c: Panel,
        [a, b]: [Packed; 2],
        [m, n]: [usize; 2],
        steps: Range<usize>,
    ) {
        for column in (0..n).step_by(2 * SIDE) {
            let columns = (n - column).min(2 * SIDE);
            for row in (0..m).step_by(HALF) {
                let rows = (m - row).min(HALF);
                // SAFETY: panels of the factors, the steps theirs; rows and columns of `c`; a single panel
                // stands for its missing neighbour, whose sums nobody stores. The processor has the
                // instructions, as `self` exists.
                unsafe {
                    let within = row % SIDE * SIDE;
                    let left = a.panel(row - row % SIDE, steps.start).add(within);
                    let right = b.panel(column, steps.start);
                    let next = match columns > SIDE {
                        true => b.panel(column + SIDE, steps.start),
                        false => right,
                    };
                    let sums = match a.parts {
                        Parts::One => tile::<1>(left, [right, next], steps.len()),
                        Parts::Two => tile::<2>(left, [right, next], steps.len()),
                    };
                    store(c.at(row, column).data.get(), c.rows, &sums, [rows, columns], add);
                }
            }
        }
    }
}

/// The sums of 8 rows and 32 columns.
///
/// # Safety
/// `left` is followed by as many steps of so many parts, each of `right` by as many; the processor has
/// AVX512-BF16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile<const PARTS: usize>(
    left: *const u32,
    right: [*const u32; 2],
    steps: usize,
) -> [[__m512; 2]; HALF] {
    let mut sums = [[_mm512_setzero_ps(); 2]; HALF];
    for step in 0..steps {
        for part in 0..PARTS {
            for pair in 0..SIDE {
                // SAFETY: a pair of terms of a step that the caller vouches for: a line of either right
                // panel, and a word of each of the left one's lines.
                unsafe {
                    let line = |panel: *const u32| {
                        pairs(_mm512_loadu_si512(panel.add(step * WORDS + pair * SIDE).cast()))
                    };
                    let right = [line(right[0]), line(right[1])];
                    let left = left.add((step * PARTS + part) * WORDS + pair);
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let terms = pairs(_mm512_set1_epi32(*left.add(row * SIDE).cast()));
                        sums[0] = _mm512_dpbf16_ps(sums[0], terms, right[0]);
                        sums[1] = _mm512_dpbf16_ps(sums[1], terms, right[1]);
                    }
                }
            }
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(words: __m512i) -> __m512bh {
    // SAFETY: both types are 64 bytes of which any bits are a value.
    unsafe { std::mem::transmute(words) }
}

/// Writes, or adds, the sums of some rows and columns.
///
/// # Safety
/// `c` has them, `stride` elements apart.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store(
    c: *mut f32,
    stride: usize,
    sums: &[[__m512; 2]; HALF],
    [rows, columns]: [usize; 2],
    add: bool,
) {
    let lanes = |len: usize| 1u32.wrapping_shl(len.min(SIDE) as u32).wrapping_sub(1) as u16;
    for (row, sums) in sums.iter().enumerate().take(rows) {
        for (half, &sum) in sums.iter().enumerate() {
            let mask = lanes(columns.saturating_sub(half * SIDE));
            let at = c.wrapping_add(row * stride + half * SIDE);
            // SAFETY: lanes beyond the columns are neither loaded nor stored.
            unsafe {
                let sum = match add {
                    true => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, at), sum),
                    false => sum,
                };
                _mm512_mask_storeu_ps(at, mask, sum);
            }
        }
    }
}
