//! Products of bf16 matrices with f32 sums, by the instructions that multiply pairs: AMX's tiles,
//! or AVX512-BF16. Where a processor has neither, callers widen and go by `product.rs`.
//!
//! **Factors.** The right one is bf16; the left one is bf16 or f32. An f32 factor is rounded to bf16 or,
//! usually, taken apart into two bf16 parts whose sum has 16 bits: both meet the right factor while it is
//! in registers, so that a gradient of logits loses 2⁻¹⁷ of an element and not 2⁻⁹.
//!
//! **Order of sums.** The bits of an element depend on its row of the left factor, its column of the
//! right one and the number k of terms alone: never on the other rows and columns, its place in a tile,
//! or threads. k is cut every [`DEPTH`] terms; each cut is summed from zero, by steps of 32 terms of which
//! the last is filled up with zeros, and is added to the element in order. The two instruction sets
//! differ in the order within a step, and so in bits.
//!
//! **Arithmetic.** Products of two bf16 numbers are exact in f32. Sums are rounded to nearest even after
//! each term; subnormal factors count as 0, and subnormal sums become 0, whatever the thread's rounding
//! mode: an element may be off by 2⁻¹²⁶ a term, times the other factor. NaN and infinities go through, but of
//! an infinity in the right factor two parts of opposite signs make NaN where one product were infinite.
// Where no unit is known, nothing is packed or multiplied here.
#![cfg_attr(not(target_arch = "x86_64"), allow(unused))]

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bare;
mod form;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod transpose;

use crate::cpu::matrix::bf16::form::STEP;
pub(crate) use crate::cpu::matrix::bf16::form::{DEPTH, Factor, Packed, Parts, packed_len};
use crate::cpu::matrix::product::Panel;
use crate::cpu::matrix::scratch::with_scratch;
use crate::cpu::simd::Level;
use half::bf16;

/// Rows and columns that are packed at once: with [`DEPTH`] terms half a MiB each, the left of two parts.
const ROWS: usize = 256;
const COLUMNS: usize = 512;

/// The instructions that a product is made of: each variant holds the proof that they are there.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512Bf16),
    #[cfg(target_arch = "x86_64")]
    Amx(amx::Amx),
}

impl Unit {
    /// What makes products of which an f32 factor is taken in two parts faster than products in f32 are, on a
    /// device of the best level: AVX512-BF16 alone does not.
    pub(crate) fn faster(level: Level) -> Option<Unit> {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) => {
                avx512::Avx512Bf16::detect().and_then(amx::Amx::detect).map(Unit::Amx)
            }
            _ => None,
        }
    }

    /// All that this machine has, the best last.
    pub(crate) fn available() -> Vec<Unit> {
        #[allow(unused_mut)]
        let mut units = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if let Some(avx512) = avx512::Avx512Bf16::detect() {
            units.push(Unit::Avx512(avx512));
            units.extend(amx::Amx::detect(avx512).map(Unit::Amx));
        }
        units
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Unit::Avx512(_) => "AVX512-BF16",
            #[cfg(target_arch = "x86_64")]
            Unit::Amx(_) => "AMX",
        }
    }
}

impl Packed {
    /// The left factor `a`, of m rows and k columns.
    ///
    /// # Safety
    /// It has those elements.
    pub(crate) unsafe fn left(
        unit: Unit,
        a: Factor,
        [m, k]: [usize; 2],
        memory: &mut [f32],
    ) -> Packed {
        let packed = Packed::new(a.parts(), [m, k], memory);
        // SAFETY: the factor has m rows of k elements, says the caller; `new` has seen to the memory.
        unsafe { packed.fill(unit, a, [m, k], true) };
        packed
    }

    /// The right factor `b`, of k rows and n columns.
    ///
    /// # Safety
    /// It has those elements.
    pub(crate) unsafe fn right(
        unit: Unit,
        b: Panel<bf16>,
        [k, n]: [usize; 2],
        memory: &mut [f32],
    ) -> Packed {
        let packed = Packed::new(Parts::One, [n, k], memory);
        // SAFETY: the factor has k rows of n elements, says the caller; `new` has seen to the memory.
        unsafe { packed.fill(unit, Factor::Bf16(b.transposed()), [n, k], false) };
        packed
    }

    /// Packs rows of `x`, as columns of a right factor unless `left`.
    ///
    /// # Safety
    /// `x` has `side` rows of k elements, and the memory is that of as many, which nobody else uses.
    pub(crate) unsafe fn fill(self, unit: Unit, x: Factor, [side, k]: [usize; 2], left: bool) {
        match unit {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the units hold the proof that AVX512-BF16 is there; the rest is the caller's promise.
            Unit::Avx512(_) | Unit::Amx(_) => unsafe {
                pack::panels(self.begin(), x, [side, k], left);
            },
        }
    }
}

/// `c = a·b`, or `c += a·b`, with c of m × n elements whose rows are next to one another and k terms each.
///
/// The bits of an element depend on its row of `a`, its column of `b`, and k alone (see the module).
///
/// # Safety
/// The panels have those elements, the factors were packed with k and so many rows or columns at least;
/// those of `c` are touched by nobody else.
pub(crate) unsafe fn multiply(
    unit: Unit,
    add: bool,
    c: Panel,
    [a, b]: [Packed; 2],
    [m, n, k]: [usize; 3],
) {
    assert!(c.columns == 1 && a.steps == k.div_ceil(STEP) && b.steps == a.steps);
    // SAFETY: the panels have those elements and nobody else touches those of `c`: the caller's promise.
    unsafe {
        if k == 0 && !add {
            (0..m).for_each(|i| c.row(i, n).fill(0.0));
        }
        for from in (0..a.steps).step_by(DEPTH / STEP) {
            let steps = (a.steps - from).min(DEPTH / STEP);
            let add = add || from > 0;
            match unit {
                #[cfg(target_arch = "x86_64")]
                Unit::Avx512(simd) => simd.multiply(add, c, [a, b], [m, n], from..from + steps),
                #[cfg(target_arch = "x86_64")]
                Unit::Amx(amx) => amx.multiply(add, c, [a, b], [m, n], from..from + steps),
            }
        }
    }
}

/// As [`multiply`], of factors as they lie, packed a block at a time in the thread's memory.
///
/// # Safety
/// The panels have those elements; those of `c` are neither those of `a` and `b` nor touched by
/// anybody else.
pub(crate) unsafe fn product(
    unit: Unit,
    add: bool,
    c: Panel,
    (a, b): (Factor, Panel<bf16>),
    [m, n, k]: [usize; 3],
) {
    let depth = k.min(DEPTH);
    let sizes =
        [packed_len(m.min(ROWS), depth, a.parts()), packed_len(n.min(COLUMNS), depth, Parts::One)];
    with_scratch(sizes, |[left, right]| {
        // No terms are one block of none, which writes zeros.
        for from in (0..k.max(1)).step_by(DEPTH) {
            let depth = (k - from).min(DEPTH);
            let mut packed = None;
            for column in (0..n).step_by(COLUMNS) {
                let columns = (n - column).min(COLUMNS);
                // SAFETY: terms and columns of `b`, which has k and n: the caller's promise.
                let right =
                    unsafe { Packed::right(unit, b.at(from, column), [depth, columns], right) };
                for row in (0..m).step_by(ROWS) {
                    let rows = (m - row).min(ROWS);
                    // SAFETY: rows, columns and terms of the panels, which have m, n and k; nobody else
                    // touches those of `c`: the caller's promise.
                    unsafe {
                        // Of a single block of rows the packed form serves all columns.
                        let left = match packed {
                            Some(left) if m <= ROWS => left,
                            _ => Packed::left(unit, a.at(row, from), [rows, depth], left),
                        };
                        packed = Some(left);
                        let c = c.at(row, column);
                        multiply(unit, add || from > 0, c, [left, right], [rows, columns, depth]);
                    }
                }
            }
        }
    });
}
