//! What products of bf16 matrices are made of: their factors, and how those are packed.

use crate::cpu::matrix::product::Panel;
use crate::cpu::threads::SyncPtr;
use half::bf16;

/// Rows, or columns, of a packed panel.
pub(super) const SIDE: usize = 16;
/// Terms of a step.
pub(super) const STEP: usize = 32;
/// 32-bit words of a packed step: 1 KiB, a tile of AMX's.
pub(super) const WORDS: usize = SIDE * STEP / 2;
/// Terms that are summed from zero, before they are added to an element.
pub(crate) const DEPTH: usize = 512;
/// In how many bf16 numbers an element of an f32 factor is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parts {
    /// Rounded to the nearest; exact where it was bf16.
    One,
    /// That and what is left, rounded: 16 bits.
    Two,
}

impl Parts {
    pub(super) const fn count(self) -> usize {
        match self {
            Parts::One => 1,
            Parts::Two => 2,
        }
    }
}

/// A matrix that is multiplied: rows or columns next to one another.
#[derive(Clone, Copy)]
pub(crate) enum Factor {
    Bf16(Panel<bf16>),
    F32(Panel, Parts),
}

impl Factor {
    pub(super) fn parts(self) -> Parts {
        match self {
            Factor::Bf16(_) => Parts::One,
            Factor::F32(_, parts) => parts,
        }
    }

    /// The factor from an element on.
    ///
    /// # Safety
    /// The element is one of the matrix, or one past it.
    pub(super) unsafe fn at(self, row: usize, column: usize) -> Factor {
        // SAFETY: the element is one of the matrix or one past it: the caller's promise.
        unsafe {
            match self {
                Factor::Bf16(panel) => Factor::Bf16(panel.at(row, column)),
                Factor::F32(panel, parts) => Factor::F32(panel.at(row, column), parts),
            }
        }
    }
}

/// A packed factor: panels of 16 rows (of the left one) or columns (of the right one), each of so many steps
/// of 32 terms, each of as many KiB as it has parts.
#[derive(Clone, Copy)]
pub(crate) struct Packed {
    data: SyncPtr<u32>,
    pub(super) steps: usize,
    pub(super) parts: Parts,
}

/// f32 elements of memory in which a factor of so many rows or columns and terms is packed.
pub(crate) fn packed_len(side: usize, k: usize, parts: Parts) -> usize {
    // A line of the cache more, to begin at the beginning of one.
    side.div_ceil(SIDE) * k.div_ceil(STEP) * WORDS * parts.count() + SIDE
}

impl Packed {
    /// For a factor of so many rows or columns and terms, which is to be filled.
    pub(crate) fn new(parts: Parts, [side, k]: [usize; 2], memory: &mut [f32]) -> Packed {
        assert!(memory.len() >= packed_len(side, k, parts), "memory for a packed factor");
        let skip = memory.as_ptr().align_offset(4 * SIDE).min(SIDE);
        let data = SyncPtr(memory[skip..].as_mut_ptr().cast());
        Packed { data, steps: k.div_ceil(STEP), parts }
    }

    /// The panel that begins with a row or column, from a step on.
    ///
    /// # Safety
    /// It is a multiple of 16, and it and the step are of the factor.
    pub(super) unsafe fn panel(self, side: usize, step: usize) -> *const u32 {
        let at = (side / SIDE * self.steps + step) * WORDS * self.parts.count();
        // SAFETY: panels lie one after another, and this one is of the factor, says the caller.
        unsafe { self.data.get().add(at).cast_const() }
    }

    /// The factor from a row or column on, which is a multiple of 16.
    ///
    /// # Safety
    /// It is one of the factor, or one past it.
    pub(crate) unsafe fn from(self, side: usize) -> Packed {
        assert!(side.is_multiple_of(SIDE), "panels are of {SIDE} rows");
        // SAFETY: a panel of the factor, or one past it: the caller's promise.
        let data = unsafe { self.panel(side, 0) };
        Packed { data: SyncPtr(data.cast_mut()), ..self }
    }

    /// Where it begins.
    pub(super) fn begin(self) -> *mut u32 {
        self.data.get()
    }
}
