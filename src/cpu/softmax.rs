//! The loops over a stretch of one row: maximum and exponentials, gradient, log-probability.
//!
//! Each is a [`Kernel`] over raw pointers, so that an output may be the input itself: a lane is
//! always read before it is written, and nothing else is assumed of aliasing.

use super::simd::{Kernel, Lanes, MAX_LANES, Simd, exp, exp_nonpositive, tanh_and_slope};

/// The logit transform z(x) as seen from inside a loop.
pub(crate) trait Logit: Copy + Send + Sync {
    /// Whether z is x times a constant, so that the slope needs no x.
    const LINEAR: bool;
    /// z(x) − m, and dz/dx where it is not constant (else 1).
    fn distance<S: Simd>(self, s: S, x: S::V, m: S::V) -> (S::V, S::V);
    /// The constant part of dz/dx.
    fn slope(self) -> f32;
}

/// z = s·x. The product is not rounded: s·x − m is one fused operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Linear {
    pub(crate) scale: f32,
}

impl Logit for Linear {
    const LINEAR: bool = true;
    #[inline(always)]
    fn distance<S: Simd>(self, s: S, x: S::V, m: S::V) -> (S::V, S::V) {
        let negative = s.sub(s.splat(-0.0), m);
        (s.fma(x, s.splat(self.scale), negative), s.splat(1.0))
    }
    #[inline(always)]
    fn slope(self) -> f32 {
        self.scale
    }
}

/// z = c·tanh(s·x/c), with −∞ kept: a masked class stays masked, its slope is 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capped {
    pub(crate) scale: f32,
    pub(crate) cap: f32,
}

impl Logit for Capped {
    const LINEAR: bool = false;
    #[inline(always)]
    fn distance<S: Simd>(self, s: S, x: S::V, m: S::V) -> (S::V, S::V) {
        let lowest = s.splat(f32::NEG_INFINITY);
        let (tanh, slope) = tanh_and_slope(s, s.mul(x, s.splat(self.scale / self.cap)));
        let z = s.select_eq(x, lowest, lowest, s.mul(tanh, s.splat(self.cap)));
        (s.sub(z, m), slope)
    }
    #[inline(always)]
    fn slope(self) -> f32 {
        self.scale
    }
}

/// The smoothing weights w_c as seen from inside a loop.
pub(crate) trait Smooth: Copy + Send + Sync {
    const ON: bool;
    /// Weights of the lanes from column `i` on.
    /// # Safety
    /// Columns `i..i + LANES` exist.
    unsafe fn load<S: Simd>(self, s: S, i: usize) -> S::V;
    /// The same for the last `n < LANES` columns; the other lanes hold 0.
    /// # Safety
    /// Columns `i..i + n` exist.
    unsafe fn load_tail<S: Simd>(self, s: S, i: usize, n: usize) -> S::V;
}

/// No label smoothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoSmoothing;

/// Label smoothing without class weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Uniform;

/// Label smoothing with class weights; the pointer is to the first column's weight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weighted(pub(crate) *const f32);

// SAFETY: the pointer is only read, and its memory is borrowed for the whole call.
unsafe impl Send for Weighted {}
// SAFETY: as above.
unsafe impl Sync for Weighted {}

impl Smooth for NoSmoothing {
    const ON: bool = false;
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, _: usize) -> S::V {
        s.splat(0.0)
    }
    #[inline(always)]
    unsafe fn load_tail<S: Simd>(self, s: S, _: usize, _: usize) -> S::V {
        s.splat(0.0)
    }
}

impl Smooth for Uniform {
    const ON: bool = true;
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, _: usize) -> S::V {
        s.splat(1.0)
    }
    #[inline(always)]
    unsafe fn load_tail<S: Simd>(self, s: S, _: usize, n: usize) -> S::V {
        // SAFETY: the slice holds n elements.
        unsafe { load_tail(s, [1f32; MAX_LANES].as_ptr(), n, 0.0) }
    }
}

impl Smooth for Weighted {
    const ON: bool = true;
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, i: usize) -> S::V {
        // SAFETY: the columns exist by the caller's contract.
        unsafe { s.load(self.0.add(i)) }
    }
    #[inline(always)]
    unsafe fn load_tail<S: Simd>(self, s: S, i: usize, n: usize) -> S::V {
        // SAFETY: the columns exist by the caller's contract.
        unsafe { load_tail(s, self.0.add(i), n, 0.0) }
    }
}

/// A vector whose first `n` lanes come from `p` and whose others hold `pad`.
/// # Safety
/// `n < LANES` elements are readable at `p`.
#[inline(always)]
pub(crate) unsafe fn load_tail<S: Simd, T: Lanes>(s: S, p: *const T, n: usize, pad: f32) -> S::V {
    let mut lanes = [T::from_f32(pad); MAX_LANES];
    // SAFETY: n < LANES ≤ MAX_LANES, both sides hold n elements, and `lanes` is a full vector.
    unsafe {
        std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
        T::load(s, lanes.as_ptr())
    }
}

/// Stores the first `n` lanes of `v` at `p`.
/// # Safety
/// `n < LANES` elements are writable at `p`.
#[inline(always)]
pub(crate) unsafe fn store_tail<S: Simd, T: Lanes>(s: S, p: *mut T, n: usize, v: S::V) {
    let mut lanes = [T::default(); MAX_LANES];
    // SAFETY: n < LANES ≤ MAX_LANES, both sides hold n elements, and `lanes` is a full vector.
    unsafe {
        T::store(s, lanes.as_mut_ptr(), v);
        std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
    }
}

/// What one stretch of a row adds to its log-sum-exp and its smoothed sum.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Partial {
    /// Maximum of z, NaN disregarded; −∞ for a stretch that is empty or all −∞.
    pub(crate) max: f32,
    /// Σ e^(z − reference); NaN where the stretch holds a NaN, +∞ where it holds +∞ and no NaN.
    pub(crate) sum: f32,
    /// Σ w·(reference − z), if smoothing is on.
    pub(crate) deviation: f32,
    /// Σ w, if smoothing is on.
    pub(crate) weight: f32,
}

impl Partial {
    pub(crate) const EMPTY: Partial = Partial {
        max: f32::NEG_INFINITY,
        sum: 0.0,
        deviation: 0.0,
        weight: 0.0,
    };

    /// What exponentials and deviations are relative to: the maximum, or 0 where that is −∞.
    #[inline(always)]
    pub(crate) fn reference(&self) -> f32 {
        if self.max == f32::NEG_INFINITY {
            0.0
        } else {
            self.max
        }
    }
}

/// Largest x, NaN disregarded.
/// # Safety
/// `len` elements are readable at `x`.
#[inline(always)]
unsafe fn maximum<S: Simd, T: Lanes>(s: S, x: *const T, len: usize) -> f32 {
    let lowest = s.splat(f32::NEG_INFINITY);
    let mut best = [lowest; 4];
    let mut i = 0;
    // SAFETY: every access stays below `len`.
    unsafe {
        while i + 4 * S::LANES <= len {
            for (k, best) in best.iter_mut().enumerate() {
                *best = s.max(T::load(s, x.add(i + k * S::LANES)), *best);
            }
            i += 4 * S::LANES;
        }
        while i + S::LANES <= len {
            best[0] = s.max(T::load(s, x.add(i)), best[0]);
            i += S::LANES;
        }
        if i < len {
            best[1] = s.max(load_tail(s, x.add(i), len - i, f32::NEG_INFINITY), best[1]);
        }
    }
    s.reduce_max(s.max(s.max(best[0], best[1]), s.max(best[2], best[3])))
}

/// Log-sum-exp terms of a stretch; with `KEEP` (f32 and a linear transform only) the exponentials
/// replace the logits, relative to [`Partial::reference`].
pub(crate) struct Accumulate<T, L, W, const KEEP: bool> {
    pub(crate) x: *const T,
    /// Where exponentials are kept: `x` itself.
    pub(crate) keep: *mut T,
    pub(crate) len: usize,
    /// Column of `x[0]`, for the weights.
    pub(crate) column: usize,
    pub(crate) logit: L,
    pub(crate) smooth: W,
}

impl<T: Lanes, L: Logit, W: Smooth, const KEEP: bool> Kernel for Accumulate<T, L, W, KEEP> {
    type Out = Partial;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Partial {
        let Accumulate { x, keep, len, column, logit, smooth } = self;
        if len == 0 {
            return Partial::EMPTY;
        }
        // SAFETY: whoever makes an `Accumulate` vouches for `len` elements at `x` (and `keep`,
        // where KEEP is set) and for as many weights from `column` on.
        unsafe {
            let top = s.splat(maximum(s, x, len));
            let max = s.reduce_max(logit.distance(s, top, s.splat(0.0)).0);
            let mut partial = Partial { max, ..Partial::EMPTY };
            if max == f32::INFINITY {
                // No probabilities here; the sum only says whether +∞ or NaN has the last word.
                let nan = (0..len).any(|i| x.add(i).read().to_f32().is_nan());
                partial.sum = if nan { f32::NAN } else { f32::INFINITY };
                return partial;
            }
            let reference = s.splat(partial.reference());
            let zero = s.splat(0.0);
            let (mut sums, mut deviations, mut weights) = ([zero; 2], zero, zero);
            let mut i = 0;
            while i + 2 * S::LANES <= len {
                for (k, sum) in sums.iter_mut().enumerate() {
                    let at = i + k * S::LANES;
                    let d = logit.distance(s, T::load(s, x.add(at)), reference).0;
                    let e = exp_nonpositive(s, d);
                    *sum = s.add(*sum, e);
                    if KEEP {
                        T::store(s, keep.add(at), e);
                    }
                    if W::ON {
                        let w = smooth.load(s, column + at);
                        deviations = s.add(deviations, weigh(s, w, d));
                        weights = s.add(weights, w);
                    }
                }
                i += 2 * S::LANES;
            }
            while i < len {
                let n = S::LANES.min(len - i);
                let (v, w) = if n == S::LANES {
                    (T::load(s, x.add(i)), smooth.load(s, column + i))
                } else {
                    let v = load_tail(s, x.add(i), n, f32::NEG_INFINITY);
                    (v, smooth.load_tail(s, column + i, n))
                };
                let d = logit.distance(s, v, reference).0;
                let e = exp_nonpositive(s, d);
                sums[0] = s.add(sums[0], e);
                if KEEP {
                    if n == S::LANES {
                        T::store(s, keep.add(i), e);
                    } else {
                        store_tail(s, keep.add(i), n, e);
                    }
                }
                if W::ON {
                    deviations = s.add(deviations, weigh(s, w, d));
                    weights = s.add(weights, w);
                }
                i += n;
            }
            partial.sum = s.reduce_add(s.add(sums[0], sums[1]));
            if W::ON {
                partial.deviation = s.reduce_add(deviations);
                partial.weight = s.reduce_add(weights);
            }
            partial
        }
    }
}

/// w·(−d), where weight 0 makes 0 of a d of −∞.
#[inline(always)]
fn weigh<S: Simd>(s: S, w: S::V, d: S::V) -> S::V {
    let zero = s.splat(0.0);
    s.select_eq(w, zero, zero, s.mul(w, s.sub(zero, d)))
}

/// Kept exponentials to gradient, in place: `e·factor − smooth·w`.
pub(crate) struct Rescale<W> {
    pub(crate) x: *mut f32,
    pub(crate) len: usize,
    pub(crate) column: usize,
    pub(crate) factor: f32,
    pub(crate) smooth: f32,
    pub(crate) weights: W,
}

impl<W: Smooth> Kernel for Rescale<W> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Rescale { x, len, column, factor, smooth, weights } = self;
        let (factor, smooth) = (s.splat(factor), s.splat(-smooth));
        let mut i = 0;
        // SAFETY: whoever makes a `Rescale` vouches for `len` elements at `x` and as many weights.
        unsafe {
            while i + S::LANES <= len {
                let mut v = s.mul(s.load(x.add(i)), factor);
                if W::ON {
                    v = s.fma(weights.load(s, column + i), smooth, v);
                }
                s.store(x.add(i), v);
                i += S::LANES;
            }
            if i < len {
                let n = len - i;
                let mut v = s.mul(load_tail(s, x.add(i).cast_const(), n, 0.0), factor);
                if W::ON {
                    v = s.fma(weights.load_tail(s, column + i, n), smooth, v);
                }
                store_tail(s, x.add(i), n, v);
            }
        }
    }
}

/// Logits to gradient: `(e^(z − reference)·factor − smooth·w)·dz/dx`; returns Σ e^(z − reference).
///
/// `factor` and `smooth` already hold the constant part of dz/dx.
pub(crate) struct Gradient<T, U, L, W> {
    pub(crate) x: *const T,
    pub(crate) out: *mut U,
    pub(crate) len: usize,
    pub(crate) column: usize,
    pub(crate) reference: f32,
    pub(crate) factor: f32,
    pub(crate) smooth: f32,
    pub(crate) logit: L,
    pub(crate) weights: W,
}

impl<T: Lanes, U: Lanes, L: Logit, W: Smooth> Kernel for Gradient<T, U, L, W> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let Gradient { x, out, len, column, reference, factor, smooth, logit, weights } = self;
        let (reference, factor, smooth) = (s.splat(reference), s.splat(factor), s.splat(-smooth));
        let mut sum = s.splat(0.0);
        let mut i = 0;
        // SAFETY: whoever makes a `Gradient` vouches for `len` elements at `x` and `out` and as
        // many weights from `column` on.
        unsafe {
            while i < len {
                let n = S::LANES.min(len - i);
                let (v, w) = if n == S::LANES {
                    (T::load(s, x.add(i)), weights.load(s, column + i))
                } else {
                    let v = load_tail(s, x.add(i), n, f32::NEG_INFINITY);
                    (v, weights.load_tail(s, column + i, n))
                };
                let (d, slope) = logit.distance(s, v, reference);
                let e = exp(s, d);
                sum = s.add(sum, e);
                let mut g = s.mul(e, factor);
                if W::ON {
                    g = s.fma(w, smooth, g);
                }
                if !L::LINEAR {
                    g = s.mul(g, slope);
                }
                if n == S::LANES {
                    U::store(s, out.add(i), g);
                } else {
                    store_tail(s, out.add(i), n, g);
                }
                i += n;
            }
        }
        s.reduce_add(sum)
    }
}

/// Logits to log-probabilities: `(x − max) − log_sum`.
pub(crate) struct LogProbability<T, U> {
    pub(crate) x: *const T,
    pub(crate) out: *mut U,
    pub(crate) len: usize,
    pub(crate) max: f32,
    pub(crate) log_sum: f32,
}

impl<T: Lanes, U: Lanes> Kernel for LogProbability<T, U> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let LogProbability { x, out, len, max, log_sum } = self;
        let (max, log_sum) = (s.splat(max), s.splat(log_sum));
        let mut i = 0;
        // SAFETY: whoever makes a `LogProbability` vouches for `len` elements at `x` and `out`.
        unsafe {
            while i + S::LANES <= len {
                let y = s.sub(s.sub(T::load(s, x.add(i)), max), log_sum);
                U::store(s, out.add(i), y);
                i += S::LANES;
            }
            if i < len {
                let v = load_tail(s, x.add(i), len - i, 0.0);
                store_tail(s, out.add(i), len - i, s.sub(s.sub(v, max), log_sum));
            }
        }
    }
}

/// Gradient of a log-softmax: `g − e^(x − max)·factor`.
pub(crate) struct LogSoftmaxGradient<T, G, U> {
    pub(crate) x: *const T,
    pub(crate) upstream: *const G,
    pub(crate) out: *mut U,
    pub(crate) len: usize,
    pub(crate) max: f32,
    pub(crate) factor: f32,
}

impl<T: Lanes, G: Lanes, U: Lanes> Kernel for LogSoftmaxGradient<T, G, U> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let LogSoftmaxGradient { x, upstream, out, len, max, factor } = self;
        let (max, factor) = (s.splat(max), s.splat(-factor));
        let mut i = 0;
        // SAFETY: whoever makes this kernel vouches for `len` elements at all three pointers.
        unsafe {
            while i < len {
                let n = S::LANES.min(len - i);
                let (v, g) = if n == S::LANES {
                    (T::load(s, x.add(i)), G::load(s, upstream.add(i)))
                } else {
                    let v = load_tail(s, x.add(i), n, 0.0);
                    (v, load_tail(s, upstream.add(i), n, 0.0))
                };
                let y = s.fma(exp_nonpositive(s, s.sub(v, max)), factor, g);
                if n == S::LANES {
                    U::store(s, out.add(i), y);
                } else {
                    store_tail(s, out.add(i), n, y);
                }
                i += n;
            }
        }
    }
}

/// Sum of a stretch, each lane in f32.
pub(crate) struct Sum<T> {
    pub(crate) x: *const T,
    pub(crate) len: usize,
}

impl<T: Lanes> Kernel for Sum<T> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(0.0); 2];
        let mut i = 0;
        // SAFETY: whoever makes a `Sum` vouches for `len` elements at `x`.
        unsafe {
            while i + 2 * S::LANES <= self.len {
                for (k, sum) in sums.iter_mut().enumerate() {
                    *sum = s.add(*sum, T::load(s, self.x.add(i + k * S::LANES)));
                }
                i += 2 * S::LANES;
            }
            while i < self.len {
                let n = S::LANES.min(self.len - i);
                let v = if n == S::LANES {
                    T::load(s, self.x.add(i))
                } else {
                    load_tail(s, self.x.add(i), n, 0.0)
                };
                sums[0] = s.add(sums[0], v);
                i += n;
            }
        }
        s.reduce_add(s.add(sums[0], sums[1]))
    }
}
