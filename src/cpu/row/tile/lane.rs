//! Numbers of sixteen rows, and how they lie in a tile.

use crate::cpu::simd::{MAX_LANES, Simd};

/// Rows of a tile.
pub(crate) const ROWS: usize = MAX_LANES;
/// Elements of the longest row that is worked on in a tile.
pub(crate) const SHORT: usize = 256;

/// A number of each row: one element, or something that a row comes to.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Lane<T>(pub(crate) [T; ROWS]);

impl<T: Copy> Lane<T> {
    pub(crate) const fn of(value: T) -> Lane<T> {
        Lane([value; ROWS])
    }
}

impl Lane<f32> {
    /// The sum of all, in a fixed order.
    pub(crate) fn sum(&self) -> f64 {
        let mut parts = [0.0; 4];
        for four in self.0.chunks(parts.len()) {
            for (part, x) in parts.iter_mut().zip(four) {
                *part += f64::from(*x);
            }
        }
        (parts[0] + parts[1]) + (parts[2] + parts[3])
    }

    #[inline(always)]
    pub(crate) fn load<S: Simd>(&self, s: S, at: usize) -> S::V {
        assert!(at + S::LANES <= ROWS);
        // SAFETY: a vector from `at` on lies within the rows, as was asserted.
        unsafe { s.load(self.0.as_ptr().add(at)) }
    }

    #[inline(always)]
    pub(crate) fn store<S: Simd>(&mut self, s: S, at: usize, v: S::V) {
        assert!(at + S::LANES <= ROWS);
        // SAFETY: a vector from `at` on lies within the rows, as was asserted.
        unsafe { s.store(self.0.as_mut_ptr().add(at), v) }
    }
}

/// How the rows of a tile lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// An element of all rows after another.
    Beside,
    /// A row after another, each filled up to whole [`Lane`]s.
    Along,
}

impl Lie {
    /// Lanes of memory that rows of `len` elements take.
    pub(crate) fn lanes(self, len: usize) -> usize {
        match self {
            Lie::Beside => len,
            Lie::Along => ROWS * pitch(len),
        }
    }

    /// Where an element of a row stands: a lane, and the place in it.
    #[inline(always)]
    pub(crate) fn element(self, len: usize, row: usize, c: usize) -> (usize, usize) {
        match self {
            Lie::Beside => (c, row),
            Lie::Along => (row * pitch(len) + c / MAX_LANES, c % MAX_LANES),
        }
    }
}

/// Lanes of a row that lies along.
#[inline(always)]
pub(crate) fn pitch(len: usize) -> usize {
    len.div_ceil(MAX_LANES)
}

/// Memory that the next tile is made of: what this tile's exponentials ask for meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    pub(crate) base: *const u8,
    /// Bytes from an element to the next row's, and to the next column's.
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl Ahead {
    /// What is at hand anyway.
    pub(crate) fn nothing(tile: &[Lane<f32>]) -> Ahead {
        Ahead { base: tile.as_ptr().cast(), row: 0, column: 0 }
    }
}
