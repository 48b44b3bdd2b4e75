//! The loops that make a stretch of one row into its gradient.
//!
//! Each is a [`Kernel`] over raw pointers, so that the output may be the input itself: a lane is
//! always read before it is written, and nothing else is assumed of aliasing.

use crate::cpu::row::logit::{Linear, Logit, Transform, each_logit};
use crate::cpu::simd::{
    Kernel, Lanes, Level, Pieces, ScaledExp, Simd, exp, load_lanes, store_lanes,
};

/// Kept exponentials to gradient, in place: `e·factor − smooth·w`.
pub(crate) struct Rescale {
    pub(crate) x: *mut f32,
    pub(crate) len: usize,
    pub(crate) factor: f32,
    pub(crate) smooth: f32,
    /// The stretch's own; null for 1 each.
    pub(crate) weights: *const f32,
}

impl Kernel for Rescale {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Rescale { x, len, factor, smooth, weights } = self;
        let (factor, smooth) = (s.splat(factor), s.splat(-smooth));
        let mut i = 0;
        // SAFETY: whoever makes a `Rescale` vouches for `len` elements at `x` and the weights.
        unsafe {
            if weights.is_null() {
                while i + S::LANES <= len {
                    s.store(x.add(i), s.fma(s.load(x.add(i)), factor, smooth));
                    i += S::LANES;
                }
            }
            while i < len {
                let n = S::LANES.min(len - i);
                let shift = match weights.is_null() {
                    true => smooth,
                    false => s.mul(load_lanes(s, weights.add(i), n, 0.0), smooth),
                };
                let e = load_lanes(s, x.add(i).cast_const(), n, 0.0);
                store_lanes(s, x.add(i), n, s.fma(e, factor, shift));
                i += n;
            }
        }
    }
}

/// What a gradient is made of: `(e^(z − z(reference))·factor − smooth·w)·dz/dx`, where factor and
/// smooth already hold the constant part of dz/dx.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GradientTerms {
    pub(crate) reference: f32,
    pub(crate) factor: f32,
    pub(crate) smooth: f32,
    /// The reference is the row's maximum, and nobody asks for the sum.
    pub(crate) summed: bool,
}

impl GradientTerms {
    /// Whether lanes may be stored in pairs, where a NaN that is not of the logits' making could
    /// be rounded into a number.
    fn numbers(&self) -> bool {
        // Half of the largest: on the way to e^x·factor the factor stands alone, up to √2 times.
        let largest = self.factor.abs().max(self.smooth.abs());
        largest <= f32::MAX / 2.0 && !self.reference.is_nan()
    }
}

/// Logits to gradient; returns Σ e^(z − z(reference)), or 0 where the row is summed already.
/// `weights` are the stretch's own; null for 1 each.
///
/// # Safety
/// `len` elements are readable at `x` (and `weights`, if not null) and writable at `out`, which is
/// `x` or does not overlap it; nobody else touches `out`.
pub(crate) unsafe fn gradient<T: Lanes, U: Lanes>(
    level: Level,
    transform: Transform,
    (x, out): (*const T, *mut U),
    weights: *const f32,
    len: usize,
    terms: GradientTerms,
) -> f32 {
    let pairs = weights.is_null() && T::DTYPE == U::DTYPE && terms.numbers();
    let mut done = 0;
    if let Transform::Linear(linear) = transform
        && pairs
        && terms.summed
    {
        done = len - len % PAIRED;
        match linear {
            Linear::Plain(logit) => level.run(PairedGradient { x, out, len: done, terms, logit }),
            Linear::Scaled(logit) => level.run(PairedGradient { x, out, len: done, terms, logit }),
        }
    }
    // SAFETY: what is left of the stretch.
    let (x, out) = unsafe { (x.add(done), out.add(done)) };
    let len = len - done;
    each_logit!(transform, logit => level.run(Gradient { x, out, weights, len, terms, logit }))
}

/// Two of the longest vectors; what [`PairedGradient`] takes a whole number of.
const PAIRED: usize = 32;

/// The gradient of a row that was just summed, without class weights: most of all calls. Lanes
/// are taken in pairs, in an order of the type's own, and the factor costs nothing.
struct PairedGradient<T, U, L> {
    x: *const T,
    out: *mut U,
    /// A multiple of [`PAIRED`].
    len: usize,
    terms: GradientTerms,
    logit: L,
}

impl<T: Lanes, U: Lanes, L: Logit> Kernel for PairedGradient<T, U, L> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let PairedGradient { x, out, len, terms, logit } = self;
        let reference = s.splat(terms.reference);
        let exp = ScaledExp::new(s, terms.factor, -terms.smooth);
        let mut i = 0;
        while i < len {
            // SAFETY: whoever makes a `PairedGradient` vouches for `len` elements at `x` and
            // `out`, of which 2·LANES, a divisor of PAIRED, are taken at a time.
            unsafe {
                let [a, b] = T::load2(s, x.add(i));
                let a = exp.of(s, logit.distance(s, a, reference).0);
                let b = exp.of(s, logit.distance(s, b, reference).0);
                U::store2(s, out.add(i), [a, b]);
            }
            i += 2 * S::LANES;
        }
    }
}

struct Gradient<T, U, L> {
    x: *const T,
    out: *mut U,
    weights: *const f32,
    len: usize,
    terms: GradientTerms,
    logit: L,
}

impl<T: Lanes, U: Lanes, L: Logit> Kernel for Gradient<T, U, L> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let Gradient { x, out, weights, len, terms, logit } = self;
        let pairs = weights.is_null() && T::DTYPE == U::DTYPE && terms.numbers();
        let (reference, factor) = (s.splat(terms.reference), s.splat(terms.factor));
        let smooth = s.splat(-terms.smooth);
        let mut total = s.splat(0.0);
        for piece in Pieces::of::<S>(len, 1) {
            let mut sum = s.splat(0.0);
            let mut i = piece.start;
            // SAFETY: whoever makes a `Gradient` vouches for `len` elements at `x`, `out` and the
            // weights.
            unsafe {
                while pairs && i + 2 * S::LANES <= piece.end {
                    let mut g = T::load2(s, x.add(i));
                    for z in &mut g {
                        let (d, slope) = logit.distance(s, *z, reference);
                        let e = exp(s, d);
                        sum = s.add(sum, e);
                        *z = s.fma(e, factor, smooth);
                        if !L::LINEAR {
                            *z = s.mul(*z, slope);
                        }
                    }
                    U::store2(s, out.add(i), g);
                    i += 2 * S::LANES;
                }
                while i < piece.end {
                    let n = S::LANES.min(piece.end - i);
                    let z = load_lanes(s, x.add(i), n, f32::NEG_INFINITY);
                    let (d, slope) = logit.distance(s, z, reference);
                    let e = exp(s, d);
                    sum = s.add(sum, e);
                    let shift = match weights.is_null() {
                        true => smooth,
                        false => s.mul(load_lanes(s, weights.add(i), n, 0.0), smooth),
                    };
                    let g = s.fma(e, factor, shift);
                    store_lanes(s, out.add(i), n, if L::LINEAR { g } else { s.mul(g, slope) });
                    i += n;
                }
            }
            total = s.add(total, sum);
        }
        s.reduce_add(total)
    }
}
