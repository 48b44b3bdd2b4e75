//! Right factors of products, each by what multiplies it fastest: bf16 where it lies by tiles of pairs
//! (`bf16/`), all else in f32 (`product.rs`).

use crate::base::error::Result;
use crate::base::host::HostRef;
use crate::cpu::matrix::bf16::{self, Factor, Parts, Unit};
use crate::cpu::matrix::convert;
use crate::cpu::matrix::product::{Matrix, PIECE, Panel, product};
use crate::cpu::processor::Cpu;
use crate::cpu::threads::SyncPtr;
use std::ops::Range;

/// A right factor, with what multiplies it.
#[derive(Clone, Copy)]
pub(crate) enum Right {
    F32(Panel),
    Bf16(Unit, Panel<half::bf16>),
}

impl Right {
    pub(crate) fn transposed(self) -> Right {
        match self {
            Right::F32(panel) => Right::F32(panel.transposed()),
            Right::Bf16(unit, panel) => Right::Bf16(unit, panel.transposed()),
        }
    }

    /// The factor from an element on.
    ///
    /// # Safety
    /// The element is one of the panel, or one past it.
    pub(crate) unsafe fn at(self, row: usize, column: usize) -> Right {
        // SAFETY: the element is one of the panel or one past it: the caller's promise.
        unsafe {
            match self {
                Right::F32(panel) => Right::F32(panel.at(row, column)),
                Right::Bf16(unit, panel) => Right::Bf16(unit, panel.at(row, column)),
            }
        }
    }
}

/// `c = a·b`, or `c += a·b`, with c of m × n elements and a of m × k, which is multiplied in so many parts
/// where b is bf16.
///
/// # Safety
/// The panels have those elements; rows of `c` are next to one another, and its elements neither those of
/// `a` and `b` nor touched by anybody else.
pub(crate) unsafe fn times(
    add: bool,
    c: Panel,
    (a, parts, b): (Panel, Parts, Right),
    sizes: [usize; 3],
) {
    // SAFETY: the caller's contract is that of either product.
    unsafe {
        match b {
            Right::F32(b) => product(add, c, [a, b], sizes),
            Right::Bf16(unit, b) => bf16::product(unit, add, c, (Factor::F32(a, parts), b), sizes),
        }
    }
}

impl Matrix<'_> {
    /// As a right factor where it lies, if that is faster than to widen it.
    fn narrow(&self) -> Option<Right> {
        match self.data {
            HostRef::BF16(data) => {
                Unit::faster(self.level).map(|unit| Right::Bf16(unit, Panel::of(data, self.stride)))
            }
            _ => None,
        }
    }

    /// Elements of memory that [`Matrix::right`] needs for so many rows.
    pub(crate) fn right_scratch(&self, rows: usize) -> usize {
        if self.narrow().is_some() { 0 } else { self.scratch(rows) }
    }

    /// Some rows as a right factor: where they lie, or widened into `scratch`.
    pub(crate) fn right(&self, rows: Range<usize>, scratch: &mut [f32]) -> Right {
        match self.narrow() {
            // SAFETY: the rows are the matrix's, or none after its last.
            Some(right) => unsafe { right.at(rows.start, 0) },
            None => Right::F32(self.panel(rows, scratch)),
        }
    }

    /// As [`Matrix::right`] of all rows, by all threads.
    pub(crate) fn all_right(&self, cpu: &Cpu, scratch: &mut [f32]) -> Right {
        self.narrow().unwrap_or_else(|| Right::F32(self.all(cpu, scratch)))
    }

    /// Rows of this matrix in f32, as bf16 again: nothing where the matrix is not, or no product is faster
    /// for it.
    pub(crate) fn narrowed(&self, cpu: &Cpu, wide: &[f32]) -> Result<Option<Narrow>> {
        let (HostRef::BF16(_), Some(unit)) = (self.data, Unit::faster(self.level)) else {
            return Ok(None);
        };
        let mut data = Vec::new();
        let bytes = 2 * wide.len();
        (data.try_reserve_exact(wide.len()))
            .map_err(|_| crate::base::error::Error::no_memory("rows in bf16", bytes))?;
        data.resize(wide.len(), half::bf16::ZERO);
        let out = SyncPtr(data.as_mut_ptr());
        cpu.share(wide.len().div_ceil(PIECE), 1, &|task| {
            let of = task * PIECE..((task + 1) * PIECE).min(wide.len());
            // SAFETY: a piece of this task alone.
            let to = unsafe { std::slice::from_raw_parts_mut(out.get().add(of.start), of.len()) };
            convert::round(self.level, &wide[of], to, false);
        });
        Ok(Some(Narrow { unit, data }))
    }
}

/// Rows in bf16 that are in f32 too, as a right factor.
pub(crate) struct Narrow {
    unit: Unit,
    data: Vec<half::bf16>,
}

impl Narrow {
    /// The rows from an element on, so many elements apart.
    pub(crate) fn from(&self, at: usize, stride: usize) -> Right {
        Right::Bf16(self.unit, Panel::of(self.data.get(at..).unwrap_or(&[]), stride))
    }
}
