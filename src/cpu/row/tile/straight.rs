//! Log-softmax of rows that lie in one piece each, read and written where they lie: no tile is filled, and none
//! is brought back. What is added up, and in which order, is as in a tile.

use crate::cpu::row::logit::Transform;
use crate::cpu::row::tile::lane::{Ahead, Lane, Lie, ROWS};
use crate::cpu::row::tile::rows::{Tile, TileSums};
use crate::cpu::row::tile::walk::{Along, Walk};
use crate::cpu::simd::{Kernel, Lanes, Level, Simd, load_lanes, store_lanes};

/// Rows of a tensor: the first one's address, and how many elements on the next one is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strip<P> {
    pub(crate) first: P,
    pub(crate) stride: usize,
}

/// At most as many rows as a tile has.
#[derive(Debug)]
pub(crate) struct Straight<T> {
    pub(crate) level: Level,
    pub(crate) rows: usize,
    /// Elements of a row.
    pub(crate) len: usize,
    pub(crate) x: Strip<*const T>,
    /// Upstream gradients, where the rows' gradient is asked for.
    pub(crate) a: Option<Strip<*const T>>,
    pub(crate) y: Strip<*mut T>,
    /// Whether results pass the caches, for which they lie in one piece, all of them.
    pub(crate) past: bool,
}

impl<T: Lanes> Straight<T> {
    /// Writes log-probabilities, or the gradient. `tile` is room for exponentials of a gradient, `results` for
    /// what passes the caches.
    ///
    /// # Safety
    /// Each strip has `rows` rows, 1 at least, of `len` elements; nobody else touches those of `y`, which
    /// overlap no others.
    pub(crate) unsafe fn log_softmax(&self, tile: &mut [Lane<f32>], results: &mut [Lane<f32>]) {
        let Straight { level, rows, len, x, a, .. } = *self;
        let y = match self.past {
            true => {
                assert!(size_of_val(results) >= rows * len * size_of::<T>());
                Strip { first: results.as_mut_ptr().cast(), stride: len }
            }
            false => self.y,
        };
        let way = Way { rows, x, y, beside: a, pad: f32::NEG_INFINITY };
        let (row, column) = (x.stride * size_of::<T>(), size_of::<T>());
        let base = x.first.wrapping_add(ROWS * x.stride).cast();
        let ahead = Ahead { base, row, column };
        let (transform, lie) = (Transform::IDENTITY, Lie::Along);
        let (class, smoothing, weights) = (None, false, None);
        let mut tile =
            Tile { level, transform, lie, len, x: tile, ahead, class, smoothing, weights };
        let mut sums = TileSums::EMPTY;
        tile.sum_of(way, a.is_none(), &mut sums);
        match a {
            None => tile.log_probabilities_of(way, &sums),
            Some(x) => tile.log_softmax_gradient_of(way, Way { x, pad: 0.0, ..way }, &sums),
        }
        if self.past {
            let (from, to) = (y.first.cast_const().cast(), self.y.first.cast());
            level.run(Past { from, to, bytes: rows * len * size_of::<T>() });
        }
    }
}

/// The way over such rows: vectors come from `x`, and go to `y`.
#[derive(Clone, Copy)]
struct Way<T> {
    rows: usize,
    x: Strip<*const T>,
    y: Strip<*mut T>,
    /// What is read beside them.
    beside: Option<Strip<*const T>>,
    /// What fills rows up to whole vectors.
    pad: f32,
}

impl<T: Lanes> Walk for Way<T> {
    const ALONG: bool = true;
    const IN_TILE: bool = false;

    #[inline(always)]
    fn strips<S: Simd>(self) -> usize {
        Along.strips::<S>()
    }
    #[inline(always)]
    fn steps<S: Simd>(self, len: usize) -> usize {
        Along.steps::<S>(len)
    }
    #[inline(always)]
    fn place<S: Simd>(self, len: usize, strip: usize, step: usize) -> (usize, usize) {
        Along.place::<S>(len, strip, step)
    }
    #[inline(always)]
    fn ahead<S: Simd>(self, of: Ahead, strip: usize, step: usize) -> *const u8 {
        Along.ahead::<S>(of, strip, step)
    }
    #[inline(always)]
    fn ask_ahead<S: Simd>(self, s: S, of: Ahead, strip: usize, step: usize) {
        s.prefetch_second(self.ahead::<S>(of, strip, step));
        if let Some(Strip { first, stride }) = self.beside {
            s.prefetch_second(first.wrapping_add((ROWS + strip) * stride + step * S::LANES));
        }
    }
    /// Of a row that there is not, the last one's.
    #[inline(always)]
    fn load<S: Simd>(self, s: S, _: &[Lane<f32>], len: usize, strip: usize, step: usize) -> S::V {
        let (row, at) = (strip.min(self.rows - 1), step * S::LANES);
        let n = S::LANES.min(len - at);
        // SAFETY: the row exists, and has n elements from there on: whoever makes a way vouches for it.
        unsafe { load_lanes(s, self.x.first.add(row * self.x.stride + at), n, self.pad) }
    }
    #[inline(always)]
    fn put<S: Simd>(
        self,
        s: S,
        _: &mut [Lane<f32>],
        len: usize,
        (strip, step): (usize, usize),
        v: S::V,
    ) {
        if strip < self.rows {
            let at = step * S::LANES;
            let n = S::LANES.min(len - at);
            // SAFETY: as in `load`, and the row is this call's to write.
            unsafe { store_lanes(s, self.y.first.add(strip * self.y.stride + at), n, v) };
        }
    }
    #[inline(always)]
    fn number<S: Simd>(self, s: S, strip: usize, of: &Lane<f32>) -> S::V {
        Along.number(s, strip, of)
    }
    #[inline(always)]
    fn first_columns<S: Simd>(self, s: S) -> S::V {
        Along.first_columns(s)
    }
    #[inline(always)]
    fn weights<S: Simd>(self, s: S, len: usize, step: usize, weights: Option<&[f32]>) -> S::V {
        Along.weights(s, len, step, weights)
    }
}

/// Copies bytes past the caches, but for the ends of what is not whole vectors.
struct Past {
    from: *const u8,
    to: *mut u8,
    bytes: usize,
}

impl Kernel for Past {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Past { from, to, bytes } = self;
        let vector = S::LANES * size_of::<f32>();
        let head = to.align_offset(vector).min(bytes);
        let mut at = head;
        // SAFETY: whoever makes a `Past` vouches for the bytes on both sides; `to` plus `head` and whole
        // vectors is aligned to a vector.
        unsafe {
            std::ptr::copy_nonoverlapping(from, to, head);
            while at + vector <= bytes {
                s.stream(to.add(at).cast(), s.load(from.add(at).cast()));
                at += vector;
            }
            std::ptr::copy_nonoverlapping(from.add(at), to.add(at), bytes - at);
        }
    }
}
