//! How vectors go over a tile: over one element of several rows, or over several elements of one row.

use crate::cpu::row::tile::lane::{Ahead, Lane, ROWS, pitch};
use crate::cpu::simd::{MAX_LANES, Simd, load_lanes};

/// Runs `$body` with `$walk` bound to the way over a tile of `$lie`.
macro_rules! each_walk {
    ($lie:expr, $walk:ident => $body:expr) => {
        match $lie {
            Lie::Beside => {
                let $walk = Beside;
                $body
            }
            Lie::Along => {
                let $walk = Along;
                $body
            }
        }
    };
}
pub(crate) use each_walk;

/// A way over a tile, as seen from inside a loop. A strip is what one accumulator sees: as many rows as a
/// vector has lanes, or one row.
pub(super) trait Walk: Copy {
    /// Whether a strip is one row.
    const ALONG: bool;
    /// Whether the rows are in the tile.
    const IN_TILE: bool = true;

    fn strips<S: Simd>(self) -> usize;

    /// Vectors of a strip.
    fn steps<S: Simd>(self, len: usize) -> usize;

    /// The lane that a vector is in, and where it begins there.
    fn place<S: Simd>(self, len: usize, strip: usize, step: usize) -> (usize, usize);

    /// Where a vector of the next tile comes from.
    fn ahead<S: Simd>(self, of: Ahead, strip: usize, step: usize) -> *const u8;

    /// Asks for a vector of the next tile.
    #[inline(always)]
    fn ask_ahead<S: Simd>(self, s: S, of: Ahead, strip: usize, step: usize) {
        s.prefetch(self.ahead::<S>(of, strip, step));
    }

    /// A vector of the rows: of those in the tile, or of those that this way was made for.
    #[inline(always)]
    fn load<S: Simd>(
        self,
        s: S,
        tile: &[Lane<f32>],
        len: usize,
        strip: usize,
        step: usize,
    ) -> S::V {
        load(s, tile, self.place::<S>(len, strip, step))
    }

    /// Puts a vector of what the rows come to where it belongs.
    #[inline(always)]
    fn put<S: Simd>(
        self,
        s: S,
        tile: &mut [Lane<f32>],
        len: usize,
        (strip, step): (usize, usize),
        v: S::V,
    ) {
        store(s, tile, self.place::<S>(len, strip, step), v);
    }

    /// A number of each row, as a strip needs it.
    fn number<S: Simd>(self, s: S, strip: usize, of: &Lane<f32>) -> S::V;

    /// The columns of a strip's first vector.
    fn first_columns<S: Simd>(self, s: S) -> S::V;

    /// The weights of a vector's columns, 1 without any; 0 of what fills up.
    fn weights<S: Simd>(self, s: S, len: usize, step: usize, weights: Option<&[f32]>) -> S::V;
}

#[inline(always)]
pub(super) fn load<S: Simd>(s: S, x: &[Lane<f32>], (lane, at): (usize, usize)) -> S::V {
    x[lane].load(s, at)
}

#[inline(always)]
pub(super) fn store<S: Simd>(s: S, x: &mut [Lane<f32>], (lane, at): (usize, usize), v: S::V) {
    x[lane].store(s, at, v);
}

#[derive(Clone, Copy)]
pub(super) struct Beside;

impl Walk for Beside {
    const ALONG: bool = false;

    #[inline(always)]
    fn strips<S: Simd>(self) -> usize {
        ROWS / S::LANES
    }
    #[inline(always)]
    fn steps<S: Simd>(self, len: usize) -> usize {
        len
    }
    #[inline(always)]
    fn place<S: Simd>(self, _: usize, strip: usize, step: usize) -> (usize, usize) {
        (step, strip * S::LANES)
    }
    #[inline(always)]
    fn ahead<S: Simd>(self, of: Ahead, strip: usize, step: usize) -> *const u8 {
        of.base.wrapping_add(strip * S::LANES * of.row + step * of.column)
    }
    #[inline(always)]
    fn number<S: Simd>(self, s: S, strip: usize, of: &Lane<f32>) -> S::V {
        of.load(s, strip * S::LANES)
    }
    #[inline(always)]
    fn first_columns<S: Simd>(self, s: S) -> S::V {
        s.splat(0.0)
    }
    #[inline(always)]
    fn weights<S: Simd>(self, s: S, _: usize, step: usize, weights: Option<&[f32]>) -> S::V {
        s.splat(weights.map_or(1.0, |weights| weights[step]))
    }
}

#[derive(Clone, Copy)]
pub(super) struct Along;

impl Walk for Along {
    const ALONG: bool = true;

    #[inline(always)]
    fn strips<S: Simd>(self) -> usize {
        ROWS
    }
    #[inline(always)]
    fn steps<S: Simd>(self, len: usize) -> usize {
        len.div_ceil(S::LANES)
    }
    #[inline(always)]
    fn place<S: Simd>(self, len: usize, strip: usize, step: usize) -> (usize, usize) {
        let at = step * S::LANES;
        (strip * pitch(len) + at / MAX_LANES, at % MAX_LANES)
    }
    #[inline(always)]
    fn ahead<S: Simd>(self, of: Ahead, strip: usize, step: usize) -> *const u8 {
        of.base.wrapping_add(strip * of.row + step * S::LANES * of.column)
    }
    #[inline(always)]
    fn number<S: Simd>(self, s: S, strip: usize, of: &Lane<f32>) -> S::V {
        s.splat(of.0[strip])
    }
    #[inline(always)]
    fn first_columns<S: Simd>(self, s: S) -> S::V {
        COLUMNS.load(s, 0)
    }
    #[inline(always)]
    fn weights<S: Simd>(self, s: S, len: usize, step: usize, weights: Option<&[f32]>) -> S::V {
        let first = step * S::LANES;
        let n = S::LANES.min(len - first);
        let weights = weights.map_or(&ONES.0[..n], |weights| &weights[first..first + n]);
        // SAFETY: the slice has n elements.
        unsafe { load_lanes(s, weights.as_ptr(), n, 0.0) }
    }
}

static ONES: Lane<f32> = Lane::of(1.0);
static COLUMNS: Lane<f32> =
    Lane([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0]);

/// What each strip has come to, until it is a number a row.
pub(super) struct Folds([Lane<f32>; ROWS]);

impl Folds {
    #[inline(always)]
    pub(super) const fn new() -> Folds {
        Folds([Lane::of(0.0); ROWS])
    }

    #[inline(always)]
    pub(super) fn put<S: Simd>(&mut self, s: S, strip: usize, v: S::V) {
        self.0[strip].store(s, 0, v);
    }

    #[inline(always)]
    pub(super) fn get<S: Simd>(&self, s: S, strip: usize) -> S::V {
        self.0[strip].load(s, 0)
    }

    /// Each row's number: a strip's lanes, or their sum, or the largest of them, in a fixed order.
    #[inline(always)]
    pub(super) fn rows<S: Simd, W: Walk>(&self, s: S, _: W, largest: bool, to: &mut Lane<f32>) {
        for first in (0..ROWS).step_by(S::LANES) {
            if !W::ALONG {
                to.store(s, first, self.0[first / S::LANES].load(s, 0));
                continue;
            }
            let mut square = [s.splat(0.0); MAX_LANES];
            for (v, strip) in square.iter_mut().zip(&self.0[first..first + S::LANES]) {
                *v = strip.load(s, 0);
            }
            s.transpose(&mut square);
            let mut half = S::LANES / 2;
            while half > 0 {
                for i in 0..half {
                    let (a, b) = (square[i], square[i + half]);
                    square[i] = if largest { s.max(a, b) } else { s.add(a, b) };
                }
                half /= 2;
            }
            to.store(s, first, square[0]);
        }
    }
}
