//! The loops of a cross entropy against probabilities: a stretch of logits beside a stretch of
//! targets.
//!
//! What a class counts for is u = w·(hard·q + soft): q a probability, or e^(s·(y − reference)) of
//! a teacher's logit, which is a probability but for a factor of its row.

use crate::cpu::row::logit::{Linear, Logit, Transform, each_logit};
use crate::cpu::row::partial::PREFETCH;
use crate::cpu::row::softmax::{DISTANCE_UNIT, maximum, reference};
use crate::cpu::simd::{
    Kernel, Lanes, Level, Pieces, Simd, exp_nonpositive, load_lanes, store_lanes,
};

/// How a target becomes q.
pub(crate) trait Quantity: Copy {
    /// Whether the q of a row have a sum of their own to be divided by.
    const SUMMED: bool;
    /// A target whose q is 0.
    const NOTHING: f32;
    fn of<S: Simd>(self, s: S, y: S::V) -> S::V;
}

/// q = y.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probability;

impl Quantity for Probability {
    const SUMMED: bool = false;
    const NOTHING: f32 = 0.0;
    #[inline(always)]
    fn of<S: Simd>(self, _: S, y: S::V) -> S::V {
        y
    }
}

/// q = e^(scale·(y − reference)), the reference being at least y.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exponential {
    pub(crate) scale: f32,
    pub(crate) reference: f32,
}

impl Quantity for Exponential {
    const SUMMED: bool = true;
    const NOTHING: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn of<S: Simd>(self, s: S, y: S::V) -> S::V {
        let distance = s.sub(y, s.splat(self.reference));
        exp_nonpositive(s, s.mul(distance, s.splat(self.scale)))
    }
}

/// The factors of u = w·(hard·q + soft), and w: null for 1 each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share<Q> {
    pub(crate) quantity: Q,
    pub(crate) hard: f32,
    pub(crate) soft: f32,
    pub(crate) weights: *const f32,
}

impl<Q: Quantity> Share<Q> {
    /// Of `n` lanes from element `i` on; the others count for nothing.
    /// # Safety
    /// `n ≤ LANES` elements from `i` on are readable at `target` and the weights.
    #[inline(always)]
    unsafe fn of<S: Simd, T: Lanes>(self, s: S, target: *const T, i: usize, n: usize) -> S::V {
        const ONES: [f32; 16] = [1.0; 16];
        // SAFETY: the caller's contract; no vector is longer than ONES.
        unsafe {
            let y = load_lanes(s, target.add(i), n, Q::NOTHING);
            let u = self.unweighted(s, self.quantity.of(s, y));
            match self.weights.is_null() {
                true if n == S::LANES => u,
                true => s.mul(u, load_lanes(s, ONES.as_ptr(), n, 0.0)),
                false => s.mul(u, load_lanes(s, self.weights.add(i), n, 0.0)),
            }
        }
    }

    #[inline(always)]
    fn unweighted<S: Simd>(self, s: S, q: S::V) -> S::V {
        s.fma(q, s.splat(self.hard), s.splat(self.soft))
    }
}

/// What one stretch adds to its row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SoftPartial {
    /// The largest logit as a reference, NaN disregarded; −∞ for a stretch of −∞.
    pub(crate) max: f32,
    /// Σ e^(z − z(max)); NaN where the stretch holds +∞ or NaN.
    pub(crate) sum: f32,
    /// Σ u.
    pub(crate) mass: f32,
    /// Σ u·(z(reference) − z)·[`DISTANCE_UNIT`], the reference being 0 where the maximum is −∞; a
    /// u of 0 makes 0 of an infinite distance.
    pub(crate) deviation: f32,
    /// Σ q, where q are summed.
    pub(crate) norm: f32,
}

/// Sums a stretch; with KEEP the exponentials replace the logits.
pub(crate) struct SoftAccumulate<T, L, Q, const KEEP: bool> {
    /// Written only with KEEP.
    pub(crate) x: *mut T,
    pub(crate) target: *const T,
    pub(crate) len: usize,
    pub(crate) logit: L,
    pub(crate) share: Share<Q>,
}

impl<T: Lanes, L: Logit, Q: Quantity, const KEEP: bool> Kernel for SoftAccumulate<T, L, Q, KEEP> {
    type Out = SoftPartial;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> SoftPartial {
        let SoftAccumulate { x, target, len, logit, share } = self;
        let (zero, unit) = (s.splat(0.0), s.splat(-DISTANCE_UNIT));
        // SAFETY: whoever makes a `SoftAccumulate` vouches for `len` elements at all pointers.
        unsafe {
            let top = s.splat(maximum(s, x.cast_const(), len));
            let max = s.reduce_max(logit.reference(s, top));
            if max == f32::INFINITY {
                // No probabilities here; the sum only says whether +∞ or NaN has the last word.
                let nan = (0..len).any(|i| x.add(i).read().to_f32().is_nan());
                let sum = if nan { f32::NAN } else { f32::INFINITY };
                return SoftPartial { max, sum, mass: 0.0, deviation: 0.0, norm: 0.0 };
            }
            let at = s.splat(reference(max));
            let mut totals = [zero; 4];
            for piece in Pieces::of::<S>(len, if share.weights.is_null() { 2 } else { 1 }) {
                let (mut sums, mut masses) = ([zero; 2], [zero; 2]);
                let (mut deviations, mut norms) = ([zero; 2], [zero; 2]);
                let mut i = piece.start;
                while share.weights.is_null() && i + 2 * S::LANES <= piece.end {
                    let (p, t) = (x.add(i), target.add(i));
                    s.prefetch(p.wrapping_add(PREFETCH / size_of::<T>()));
                    s.prefetch(t.wrapping_add(PREFETCH / size_of::<T>()));
                    let mut e = T::load2(s, p.cast_const());
                    let y = T::load2(s, t);
                    for k in 0..2 {
                        let d = logit.distance(s, e[k], at).0;
                        e[k] = exp_nonpositive(s, d);
                        sums[k] = s.add(sums[k], e[k]);
                        let q = share.quantity.of(s, y[k]);
                        if Q::SUMMED {
                            norms[k] = s.add(norms[k], q);
                        }
                        let u = share.unweighted(s, q);
                        masses[k] = s.add(masses[k], u);
                        let term = s.mul(u, s.mul(d, unit));
                        deviations[k] = s.add(deviations[k], s.select_eq(u, zero, zero, term));
                    }
                    if KEEP {
                        T::store2(s, p, e);
                    }
                    i += 2 * S::LANES;
                }
                while i < piece.end {
                    let n = S::LANES.min(piece.end - i);
                    let z = load_lanes(s, x.add(i).cast_const(), n, f32::NEG_INFINITY);
                    let d = logit.distance(s, z, at).0;
                    let e = exp_nonpositive(s, d);
                    sums[0] = s.add(sums[0], e);
                    if Q::SUMMED {
                        let y = load_lanes(s, target.add(i), n, Q::NOTHING);
                        norms[0] = s.add(norms[0], share.quantity.of(s, y));
                    }
                    let u = share.of(s, target, i, n);
                    masses[0] = s.add(masses[0], u);
                    let term = s.mul(u, s.mul(d, unit));
                    deviations[0] = s.add(deviations[0], s.select_eq(u, zero, zero, term));
                    if KEEP {
                        store_lanes(s, x.add(i), n, e);
                    }
                    i += n;
                }
                // No closure here either: it would not be compiled for the instruction set.
                for (total, pair) in totals.iter_mut().zip([sums, masses, deviations, norms]) {
                    *total = s.add(*total, s.add(pair[0], pair[1]));
                }
            }
            let [sums, masses, deviations, norms] = totals;
            SoftPartial {
                max,
                sum: s.reduce_add(sums),
                mass: s.reduce_add(masses),
                deviation: s.reduce_add(deviations),
                norm: s.reduce_add(norms),
            }
        }
    }
}

/// Sums a stretch; with `keep` the exponentials replace the logits, but for those under a cap.
///
/// # Safety
/// As for [`SoftAccumulate`]; with `keep` T is f32 and the transform is linear.
pub(crate) unsafe fn accumulate<T: Lanes, Q: Quantity>(
    level: Level,
    transform: Transform,
    (x, target): (*mut T, *const T),
    len: usize,
    share: Share<Q>,
    keep: bool,
) -> SoftPartial {
    if !keep {
        return each_logit!(transform, logit => level.run(SoftAccumulate::<T, _, Q, false> {
            x, target, len, logit, share,
        }));
    }
    let (x, target) = (x.cast::<f32>(), target.cast::<f32>());
    match transform {
        Transform::Linear(Linear::Plain(logit)) => {
            level.run(SoftAccumulate::<f32, _, Q, true> { x, target, len, logit, share })
        }
        Transform::Linear(Linear::Scaled(logit)) => {
            level.run(SoftAccumulate::<f32, _, Q, true> { x, target, len, logit, share })
        }
        Transform::Capped(logit) => {
            level.run(SoftAccumulate::<f32, _, Q, false> { x, target, len, logit, share })
        }
    }
}

/// Σ u of a stretch.
pub(crate) struct Mass<T, Q> {
    pub(crate) target: *const T,
    pub(crate) len: usize,
    pub(crate) share: Share<Q>,
}

impl<T: Lanes, Q: Quantity> Kernel for Mass<T, Q> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut total = s.splat(0.0);
        for piece in Pieces::of::<S>(self.len, 1) {
            let mut sum = s.splat(0.0);
            for i in piece.clone().step_by(S::LANES) {
                let n = S::LANES.min(piece.end - i);
                // SAFETY: whoever makes a `Mass` vouches for `len` elements at its pointers.
                sum = s.add(sum, unsafe { self.share.of(s, self.target, i, n) });
            }
            total = s.add(total, sum);
        }
        s.reduce_add(total)
    }
}

/// The first element of a stretch whose reference is `max`, which one of them is.
pub(crate) struct FindTop<T, L> {
    pub(crate) x: *const T,
    pub(crate) len: usize,
    pub(crate) logit: L,
    pub(crate) max: f32,
}

impl<T: Lanes, L: Logit> Kernel for FindTop<T, L> {
    type Out = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        let FindTop { x, len, logit, max } = self;
        let (zero, one, max) = (s.splat(0.0), s.splat(1.0), s.splat(max));
        let mut i = 0;
        while i < len {
            let n = S::LANES.min(len - i);
            // SAFETY: whoever makes a `FindTop` vouches for `len` elements at `x`; no vector is
            // longer than `hits`.
            unsafe {
                let z = logit.reference(s, load_lanes(s, x.add(i), n, f32::NEG_INFINITY));
                let hit = s.select_eq(z, max, one, zero);
                if s.reduce_add(hit) > 0.0 {
                    let mut hits = [0f32; 16];
                    s.store(hits.as_mut_ptr(), hit);
                    return i + hits.iter().position(|&h| h > 0.0).unwrap_or(0).min(n - 1);
                }
            }
            i += n;
        }
        0
    }
}

/// Kept exponentials to gradient, in place: `e·factor − u`.
pub(crate) struct SoftRescale<Q> {
    pub(crate) x: *mut f32,
    pub(crate) target: *const f32,
    pub(crate) len: usize,
    pub(crate) factor: f32,
    pub(crate) share: Share<Q>,
}

impl<Q: Quantity> Kernel for SoftRescale<Q> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SoftRescale { x, target, len, factor, share } = self;
        let factor = s.splat(factor);
        let mut i = 0;
        while i < len {
            let n = S::LANES.min(len - i);
            // SAFETY: whoever makes a `SoftRescale` vouches for `len` elements at its pointers.
            unsafe {
                let u = share.of(s, target, i, n);
                let e = load_lanes(s, x.add(i).cast_const(), n, 0.0);
                store_lanes(s, x.add(i), n, s.sub(s.mul(e, factor), u));
            }
            i += n;
        }
    }
}

/// What both gradients of a row are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SoftTerms<Q> {
    /// The row's maximum.
    pub(crate) reference: f32,
    /// Of e^(z − z(reference)), and with `share` the constant part of dz/dx in it.
    pub(crate) factor: f32,
    pub(crate) share: Share<Q>,
    /// Of w·(lse − z), in the gradient with respect to probabilities.
    pub(crate) target: f32,
    /// lse − z(reference).
    pub(crate) log_sum: f32,
}

/// Logits and targets to `(e·factor − u)·dz/dx`, and with TARGET to `target·w·(lse − z)` too.
pub(crate) struct SoftGradient<T, L, Q, const TARGET: bool> {
    pub(crate) x: *const T,
    pub(crate) target: *const T,
    pub(crate) out: *mut T,
    /// Used only with TARGET.
    pub(crate) out_target: *mut T,
    pub(crate) len: usize,
    pub(crate) logit: L,
    pub(crate) terms: SoftTerms<Q>,
}

impl<T: Lanes, L: Logit, Q: Quantity, const TARGET: bool> Kernel for SoftGradient<T, L, Q, TARGET> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SoftGradient { x, target, out, out_target, len, logit, terms } = self;
        let share = terms.share;
        let (at, factor) = (s.splat(terms.reference), s.splat(terms.factor));
        let (zero, log_sum) = (s.splat(0.0), s.splat(terms.log_sum));
        // Stored in pairs, a NaN that is not of the tensors' making could become a number.
        let numbers = (terms.factor + share.hard + share.soft).is_finite();
        let mut i = 0;
        // SAFETY: whoever makes a `SoftGradient` vouches for `len` elements at all pointers.
        unsafe {
            while !TARGET && numbers && share.weights.is_null() && i + 2 * S::LANES <= len {
                let mut g = T::load2(s, x.add(i));
                let y = T::load2(s, target.add(i));
                for k in 0..2 {
                    let (d, slope) = logit.distance(s, g[k], at);
                    let u = share.unweighted(s, share.quantity.of(s, y[k]));
                    g[k] = s.sub(s.mul(exp_nonpositive(s, d), factor), u);
                    if !L::LINEAR {
                        g[k] = s.mul(g[k], slope);
                    }
                }
                T::store2(s, out.add(i), g);
                i += 2 * S::LANES;
            }
            while i < len {
                let n = S::LANES.min(len - i);
                let z = load_lanes(s, x.add(i), n, f32::NEG_INFINITY);
                let (d, slope) = logit.distance(s, z, at);
                let u = share.of(s, target, i, n);
                let g = s.sub(s.mul(exp_nonpositive(s, d), factor), u);
                store_lanes(s, out.add(i), n, if L::LINEAR { g } else { s.mul(g, slope) });
                if TARGET {
                    let c = s.splat(terms.target);
                    let mut g = s.select_eq(c, zero, zero, s.mul(c, s.sub(log_sum, d)));
                    // A weight last: of a subnormal one the product with c has no digits.
                    if !share.weights.is_null() {
                        let w = load_lanes(s, share.weights.add(i), n, 0.0);
                        let silent = s.mul(zero, c);
                        g = s.select_eq(w, zero, silent, s.mul(w, g));
                    }
                    store_lanes(s, out_target.add(i), n, g);
                }
                i += n;
            }
        }
    }
}
