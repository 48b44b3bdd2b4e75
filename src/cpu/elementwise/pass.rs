//! The loop of every elementwise loss: over tiles that lie in a row, whatever the loss.

use crate::cpu::simd::{Kernel, Lanes, Level, MAX_LANES, Pieces, Simd, load_lanes, store_lanes};
use crate::spec::elementwise::{Formula, Options};

/// Elements of a tile: what a thread brings together stays in its L1 cache. A tile's sum is f32
/// (four vectors of partial sums a piece), tiles are added in f64.
pub(crate) const TILE: usize = 1024;

/// What is known of one element (of a vector of them).
#[derive(Clone, Copy)]
pub(crate) struct Element<V> {
    pub(crate) x: V,
    pub(crate) y: V,
    /// v, the element's weight.
    pub(crate) weight: V,
    /// r, a third number an element: a weight of positive targets, a variance.
    pub(crate) third: V,
}

/// A loss of one element over vectors: its file says what it computes.
pub(crate) trait ElementLoss: Copy + Send + Sync {
    /// x of lanes beyond the end.
    const PAD: f32 = 0.0;
    /// Whether it has a slope to r.
    const SLOPED: bool = false;
    /// Whether lanes beyond the end have to be made 0, as they are not by themselves.
    const MASKED: bool = false;
    /// y of lanes beyond the end: the value of both is 0.
    const PAD_TARGET: f32 = 0.0;

    /// Of the options of its row.
    fn new(options: Options) -> Self;
    /// v·ℓ.
    fn value<S: Simd>(self, s: S, e: Element<S::V>) -> S::V;
    /// factor·∂ℓ/∂x, where the factor holds v.
    fn grad_x<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V;
    /// factor·∂ℓ/∂y.
    fn grad_y<S: Simd>(self, s: S, e: Element<S::V>, factor: S::V) -> S::V;
    /// factor·∂ℓ/∂r, of a loss that has the slope.
    #[inline(always)]
    fn grad_third<S: Simd>(self, _: S, _: Element<S::V>, factor: S::V) -> S::V {
        factor
    }
}

/// One tile. What is null is 1 where it would be read, and not computed where it would be written.
#[derive(Clone, Copy)]
pub(crate) struct Pass<T> {
    /// Whether values are computed: those that `value` takes, and their sum.
    pub(crate) wanted: bool,
    pub(crate) x: *const T,
    pub(crate) y: *const T,
    pub(crate) weight: *const f32,
    pub(crate) third: *const f32,
    pub(crate) upstream: *const f32,
    /// Multiplies every weight.
    pub(crate) weight_scale: f32,
    /// Multiplies every gradient.
    pub(crate) scale: f32,
    pub(crate) value: *mut f32,
    pub(crate) grad_x: *mut T,
    pub(crate) grad_y: *mut T,
    pub(crate) grad_third: *mut T,
    pub(crate) len: usize,
}

/// A tile, with its loss.
struct Loop<L, T> {
    loss: L,
    pass: Pass<T>,
}

/// Does a tile of the loss that a formula names; returns Σ v·ℓ, or 0 if no value is wanted. The
/// formula is asked for a tile and not for a call: so all that is around a tile is compiled once, and
/// not once a loss.
///
/// # Safety
/// As for [`run`].
pub(crate) type OfTile<T> = unsafe fn(Level, Formula, Pass<T>) -> f64;

/// What does the tiles of a call: those whose elements are read where they lie, and those that were
/// brought together as f32.
#[derive(Clone, Copy)]
pub(crate) struct Losses<T> {
    pub(crate) in_place: OfTile<T>,
    pub(crate) gathered: OfTile<f32>,
}

/// Does a tile; returns Σ v·ℓ, or 0 if no value is wanted.
///
/// # Safety
/// `len` elements exist at every pointer that is not null; what is written is either x, element by
/// element, or apart from what is read.
pub(crate) unsafe fn run<L: ElementLoss, T: Lanes>(level: Level, loss: L, pass: Pass<T>) -> f64 {
    level.run(Loop { loss, pass })
}

impl<L: ElementLoss, T: Lanes> Loop<L, T> {
    /// Elements `i..i + n`; returns v·ℓ of each, 0 in lanes beyond.
    ///
    /// # Safety
    /// They exist at every pointer that is not null; n ≤ LANES.
    #[inline(always)]
    unsafe fn step<S: Simd>(&self, s: S, i: usize, n: usize) -> S::V {
        let p = &self.pass;
        // SAFETY: elements `i..i + n` exist at every pointer that is not null, and n ≤ LANES: `run`
        // cuts its `len` elements so.
        unsafe {
            let one = s.splat(1.0);
            let weight = match p.weight.is_null() {
                true => one,
                false => s.mul(load_lanes(s, p.weight.add(i), n, 0.0), s.splat(p.weight_scale)),
            };
            let third = match p.third.is_null() {
                true => one,
                false => load_lanes(s, p.third.add(i), n, 0.0),
            };
            let e = Element {
                x: load_lanes(s, p.x.add(i), n, L::PAD),
                y: load_lanes(s, p.y.add(i), n, L::PAD_TARGET),
                weight,
                third,
            };
            let mut factor = s.splat(p.scale);
            if !p.upstream.is_null() {
                factor = s.mul(factor, load_lanes(s, p.upstream.add(i), n, 0.0));
            }
            if !p.weight.is_null() {
                factor = s.mul(factor, weight);
            }
            // Side by side, so that what a value and a slope are both made of is made once.
            let none = s.splat(0.0);
            let (mut value, slope) = match (p.wanted, !p.grad_x.is_null()) {
                (true, true) => (self.loss.value(s, e), self.loss.grad_x(s, e, factor)),
                (true, false) => (self.loss.value(s, e), none),
                (false, true) => (none, self.loss.grad_x(s, e, factor)),
                (false, false) => (none, none),
            };
            if L::MASKED && n < S::LANES {
                let mut lanes = [0.0f32; MAX_LANES];
                store_lanes(s, lanes.as_mut_ptr(), n, value);
                value = load_lanes(s, lanes.as_ptr(), n, 0.0);
            }
            if p.wanted && !p.value.is_null() {
                store_lanes(s, p.value.add(i), n, value);
            }
            if !p.grad_x.is_null() {
                store_lanes(s, p.grad_x.add(i), n, slope);
            }
            if !p.grad_y.is_null() {
                store_lanes(s, p.grad_y.add(i), n, self.loss.grad_y(s, e, factor));
            }
            if L::SLOPED && !p.grad_third.is_null() {
                store_lanes(s, p.grad_third.add(i), n, self.loss.grad_third(s, e, factor));
            }
            value
        }
    }
}

/// As many values as a tile has, each f32, add up to an f32: a power of two.
const SHARE: f32 = 1.0 / TILE as f32;

impl<L: ElementLoss, T: Lanes> Kernel for Loop<L, T> {
    /// Σ v·ℓ.
    type Out = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let mut total = s.splat(0.0);
        // The same, in case that the sum leaves f32 on its way to a mean that does not.
        let (mut total_shares, share) = (s.splat(0.0), s.splat(SHARE));
        for piece in Pieces::of::<S>(self.pass.len, 4) {
            let (mut sums, mut shares) = ([s.splat(0.0); 4], s.splat(0.0));
            let mut i = piece.start;
            // SAFETY: `run`, which alone makes one, has its caller vouch for `len` elements at its
            // pointers, and that what is written is x, element by element, or apart from what is read.
            unsafe {
                while i + 4 * S::LANES <= piece.end {
                    for (k, sum) in sums.iter_mut().enumerate() {
                        let value = self.step(s, i + k * S::LANES, S::LANES);
                        *sum = s.add(*sum, value);
                        shares = s.fma(value, share, shares);
                    }
                    i += 4 * S::LANES;
                }
                while i < piece.end {
                    let n = S::LANES.min(piece.end - i);
                    let value = self.step(s, i, n);
                    sums[0] = s.add(sums[0], value);
                    shares = s.fma(value, share, shares);
                    i += n;
                }
            }
            total = s.add(total, s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])));
            total_shares = s.add(total_shares, shares);
        }
        let sum = s.reduce_add(total);
        match sum.is_finite() {
            true => f64::from(sum),
            false => f64::from(s.reduce_add(total_shares)) / f64::from(SHARE),
        }
    }
}
