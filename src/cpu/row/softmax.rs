//! The loops that sum a stretch of one row: maximum and exponentials, distances, plain sums.

use crate::cpu::row::logit::{Linear, Logit, Transform, each_logit};
use crate::cpu::row::narrow;
use crate::cpu::row::partial::{PREFETCH, Partial};
use crate::cpu::simd::{
    Kernel, Lanes, Level, Pieces, Simd, exp_nonpositive, load_lanes, store_lanes,
};

/// What exponentials and deviations are relative to: the maximum, or 0 where that is −∞.
#[inline(always)]
pub(crate) fn reference(max: f32) -> f32 {
    if max == f32::NEG_INFINITY { 0.0 } else { max }
}

/// Distances further off than this have an exponential of 0; it stands for them, as 0·∞ is NaN.
pub(crate) const FARTHEST: f32 = -88.0;

/// Largest x, NaN disregarded.
/// # Safety
/// `len` elements are readable at `x`.
#[inline(always)]
pub(crate) unsafe fn maximum<S: Simd, T: Lanes>(s: S, x: *const T, len: usize) -> f32 {
    let lowest = s.splat(f32::NEG_INFINITY);
    let mut best = [lowest; 4];
    let mut i = 0;
    // SAFETY: every access stays below `len`.
    unsafe {
        while i + 4 * S::LANES <= len {
            let [a, b] = T::load2(s, x.add(i));
            let [c, d] = T::load2(s, x.add(i + 2 * S::LANES));
            best = [s.max(a, best[0]), s.max(b, best[1]), s.max(c, best[2]), s.max(d, best[3])];
            i += 4 * S::LANES;
        }
        while i + S::LANES <= len {
            best[0] = s.max(T::load(s, x.add(i)), best[0]);
            i += S::LANES;
        }
        if i < len {
            best[1] = s.max(load_lanes(s, x.add(i), len - i, f32::NEG_INFINITY), best[1]);
        }
    }
    s.reduce_max(s.max(s.max(best[0], best[1]), s.max(best[2], best[3])))
}

/// Largest x of a stretch, NaN disregarded; −∞ where it is empty.
pub(crate) struct MaximumOf<T> {
    pub(crate) x: *const T,
    pub(crate) len: usize,
}

impl<T: Lanes> Kernel for MaximumOf<T> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        // SAFETY: whoever makes a `MaximumOf` vouches for `len` elements at `x`.
        unsafe { maximum(s, self.x, self.len) }
    }
}

/// Largest |x| of a stretch, NaN disregarded; 0 where it is empty.
pub(crate) struct LargestOf {
    pub(crate) x: *const f32,
    pub(crate) len: usize,
}

impl Kernel for LargestOf {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut best = s.splat(0.0);
        let mut i = 0;
        while i < self.len {
            let n = S::LANES.min(self.len - i);
            // SAFETY: whoever makes a `LargestOf` vouches for `len` elements at `x`.
            best = s.max(s.abs(unsafe { load_lanes(s, self.x.add(i), n, 0.0) }), best);
            i += n;
        }
        s.reduce_max(best)
    }
}

/// Log-sum-exp terms of a stretch.
///
/// # Safety
/// `len` elements are readable at `x`.
pub(crate) unsafe fn accumulate<T: Lanes>(
    level: Level,
    transform: Transform,
    x: *const T,
    len: usize,
) -> Partial {
    if narrow::is::<T>()
        && let Transform::Linear(linear) = transform
    {
        // SAFETY: the caller's promise; nothing is kept.
        let partial = unsafe { narrow::accumulate(level, linear, x, None, len) };
        if let Some(partial) = partial {
            return partial;
        }
    }
    let x = x.cast_mut();
    each_logit!(transform, logit => level.run(Accumulate::<T, _, false, false> { x, len, logit, ahead: PREFETCH }))
}

/// As [`accumulate`], with the moment.
///
/// # Safety
/// As for `accumulate`.
pub(crate) unsafe fn accumulate_with_moment<T: Lanes>(
    level: Level,
    transform: Transform,
    x: *const T,
    len: usize,
) -> Partial {
    let x = x.cast_mut();
    each_logit!(transform, logit => level.run(Accumulate::<T, _, false, true> { x, len, logit, ahead: PREFETCH }))
}

/// As [`accumulate`]; the exponentials replace the logits, relative to the stretch's maximum. A
/// stretch with +∞ is left as it is.
///
/// # Safety
/// `len` elements are readable and writable at `x`, and nobody else touches them.
pub(crate) unsafe fn accumulate_and_keep(
    level: Level,
    linear: Linear,
    x: *mut f32,
    len: usize,
) -> Partial {
    match linear {
        Linear::Plain(logit) => {
            level.run(Accumulate::<f32, _, true, false> { x, len, logit, ahead: PREFETCH })
        }
        Linear::Scaled(logit) => {
            level.run(Accumulate::<f32, _, true, false> { x, len, logit, ahead: PREFETCH })
        }
    }
}

/// Sums of one stretch.
pub(super) struct Accumulate<T, L, const KEEP: bool, const MOMENT: bool> {
    /// Written only with KEEP.
    pub(super) x: *mut T,
    pub(super) len: usize,
    pub(super) logit: L,
    /// How many bytes ahead of the exponentials memory is asked for.
    pub(super) ahead: usize,
}

impl<T: Lanes, L: Logit, const KEEP: bool, const MOMENT: bool> Kernel
    for Accumulate<T, L, KEEP, MOMENT>
{
    type Out = Partial;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Partial {
        let max = self.maximum(s);
        self.relative_to(s, max)
    }
}

impl<T: Lanes, L: Logit, const KEEP: bool, const MOMENT: bool> Accumulate<T, L, KEEP, MOMENT> {
    /// The largest logit as a reference, NaN disregarded; −∞ of an empty stretch.
    #[inline(always)]
    pub(super) fn maximum<S: Simd>(&self, s: S) -> f32 {
        // SAFETY: whoever makes an `Accumulate` vouches for `len` elements at `x`.
        let top = unsafe { maximum(s, self.x.cast_const(), self.len) };
        // Where z is linear a logit is its own reference.
        if L::LINEAR { top } else { s.reduce_max(self.logit.reference(s, s.splat(top))) }
    }

    /// The rest, with what [`Accumulate::maximum`] has found.
    #[inline(always)]
    pub(super) fn relative_to<S: Simd>(self, s: S, max: f32) -> Partial {
        let Accumulate { x, len, logit, ahead } = self;
        if len == 0 {
            return Partial::EMPTY;
        }
        // SAFETY: whoever makes an `Accumulate` vouches for `len` elements at `x`.
        unsafe {
            if max == f32::INFINITY {
                // No probabilities here; the sum only says whether +∞ or NaN has the last word.
                let nan = (0..len).any(|i| x.add(i).read().to_f32().is_nan());
                let sum = if nan { f32::NAN } else { f32::INFINITY };
                return Partial { max, sum, others: sum, moment: f32::NAN, exponent: f32::NAN };
            }
            let (reference, farthest) = (s.splat(reference(max)), s.splat(FARTHEST));
            let (mut total, mut total_moment) = (s.splat(0.0), s.splat(0.0));
            for piece in Pieces::of::<S>(len, 2) {
                let mut sums = [s.splat(0.0); 2];
                let mut moments = [s.splat(0.0); 2];
                let mut i = piece.start;
                while i + 2 * S::LANES <= piece.end {
                    let p = x.add(i);
                    s.prefetch(p.wrapping_add(ahead / size_of::<T>()));
                    // No closures in here: they would not be compiled for the instruction set.
                    let mut e = T::load2(s, p.cast_const());
                    for ((z, sum), moment) in e.iter_mut().zip(&mut sums).zip(&mut moments) {
                        let d = logit.distance(s, *z, reference).0;
                        *z = exp_nonpositive(s, d);
                        *sum = s.add(*sum, *z);
                        if MOMENT {
                            *moment = s.fma(*z, s.max(farthest, d), *moment);
                        }
                    }
                    if KEEP {
                        T::store2(s, p, e);
                    }
                    i += 2 * S::LANES;
                }
                while i < piece.end {
                    let n = S::LANES.min(piece.end - i);
                    let z = load_lanes(s, x.add(i).cast_const(), n, f32::NEG_INFINITY);
                    let d = logit.distance(s, z, reference).0;
                    let e = exp_nonpositive(s, d);
                    sums[0] = s.add(sums[0], e);
                    if MOMENT {
                        moments[0] = s.fma(e, s.max(farthest, d), moments[0]);
                    }
                    if KEEP {
                        store_lanes(s, x.add(i), n, e);
                    }
                    i += n;
                }
                total = s.add(total, s.add(sums[0], sums[1]));
                total_moment = s.add(total_moment, s.add(moments[0], moments[1]));
            }
            let (sum, moment) = (s.reduce_add(total), s.reduce_add(total_moment));
            // With a KEEP there is no moment, and the logits are gone.
            let others = match MOMENT && !KEEP && sum < NEARLY_CERTAIN {
                true => others(s, logit, x.cast_const(), len, max),
                false => sum - 1.0,
            };
            Partial { max, sum, others, moment, exponent: f32::NAN }
        }
    }
}

/// Below, a sum of exponentials less 1 has lost digits: it is added up once more, without the 1.
const NEARLY_CERTAIN: f32 = 1.0 + 1.0 / 16.0;

/// Σ e^(z − z(max)) without the largest, of which there is one copy at most.
/// # Safety
/// `len` elements are readable at `x`.
unsafe fn others<S: Simd, T: Lanes, L: Logit>(
    s: S,
    logit: L,
    x: *const T,
    len: usize,
    max: f32,
) -> f32 {
    struct Others<T, L> {
        x: *const T,
        len: usize,
        logit: L,
        max: f32,
    }
    impl<T: Lanes, L: Logit> Kernel for Others<T, L> {
        type Out = f32;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> f32 {
            let (zero, reference) = (s.splat(0.0), s.splat(reference(self.max)));
            let mut total = zero;
            for piece in Pieces::of::<S>(self.len, 1) {
                let mut sum = zero;
                for i in piece.clone().step_by(S::LANES) {
                    let n = S::LANES.min(piece.end - i);
                    // SAFETY: whoever makes an `Others` vouches for `len` elements at `x`.
                    let z = unsafe { load_lanes(s, self.x.add(i), n, f32::NEG_INFINITY) };
                    let d = self.logit.distance(s, z, reference).0;
                    sum = s.add(sum, s.select_eq(d, zero, zero, exp_nonpositive(s, d)));
                }
                total = s.add(total, sum);
            }
            s.reduce_add(total)
        }
    }
    // Entered anew: rare enough, and so no part of the loop that it comes after.
    s.enter(Others { x, len, logit, max })
}

/// What one stretch adds to Σ w·(max − z), relative to a reference of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deviation {
    pub(crate) reference: f32,
    /// Σ w·(r(reference) − r(x))·[`share`], with references r: logits, or z under a cap. A weight of
    /// 0 makes 0 of an infinite distance.
    pub(crate) sum: f32,
    /// Σ w.
    pub(crate) weight: f32,
}

/// What distances are multiplied by where they are added up: each may be as large as f32 goes.
pub(crate) const DISTANCE_UNIT: f32 = 1.0 / (1 << 24) as f32;

/// What distances between references are multiplied by, so that those that a large scale makes
/// something of are not lost either: a power of two.
pub(crate) fn share(transform: Transform) -> f32 {
    let scale = f64::from(transform.slope()).max(1.0).log2().floor();
    (scale as f32).exp2() * DISTANCE_UNIT
}

impl Deviation {
    pub(crate) const NONE: Deviation = Deviation { reference: 0.0, sum: 0.0, weight: 0.0 };

    /// Σ w·(z(max) − z), with the row's maximum.
    pub(crate) fn relative_to(&self, max: f32, transform: Transform) -> f64 {
        if self.sum == 0.0 && self.weight == 0.0 {
            return 0.0;
        }
        let own = f64::from(self.sum) / f64::from(share(transform)) * f64::from(transform.slope());
        match self.weight {
            0.0 => own,
            weight => own + f64::from(weight) * span(max, self.reference, transform),
        }
    }
}

/// z(max) − z of two references, infinite where the references' own distance is beyond f32.
pub(crate) fn span(max: f32, r: f32, transform: Transform) -> f64 {
    let distance = f64::from(reference(max)) - f64::from(r);
    if distance > f64::from(f32::MAX) {
        return f64::INFINITY;
    }
    distance * f64::from(transform.slope())
}

/// The smoothed part of a stretch's loss. `weights` are the stretch's own; null for 1 each.
///
/// # Safety
/// `len` elements are readable at `x`, and at `weights` if that is not null.
pub(crate) unsafe fn deviation<T: Lanes>(
    level: Level,
    transform: Transform,
    x: *const T,
    weights: *const f32,
    len: usize,
) -> Deviation {
    let share = share(transform);
    each_logit!(transform, logit => level.run(Deviate { x, weights, len, share, logit }))
}

struct Deviate<T, L> {
    x: *const T,
    weights: *const f32,
    len: usize,
    share: f32,
    logit: L,
}

impl<T: Lanes, L: Logit> Kernel for Deviate<T, L> {
    type Out = Deviation;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Deviation {
        let Deviate { x, weights, len, share, logit } = self;
        let (zero, one) = (s.splat(0.0), s.splat(1.0));
        // SAFETY: whoever makes a `Deviate` vouches for `len` elements at `x` and the weights.
        unsafe {
            let top = s.splat(maximum(s, x, len));
            let reference = reference(s.reduce_max(logit.reference(s, top)));
            let mut total = zero;
            for piece in Pieces::of::<S>(len, 1) {
                let mut sum = zero;
                let mut i = piece.start;
                while i < piece.end {
                    let n = S::LANES.min(piece.end - i);
                    // Lanes beyond the end are at the reference's own x, or have no weight.
                    let pad = if weights.is_null() { s.reduce_max(top) } else { 0.0 };
                    let z = load_lanes(s, x.add(i), n, pad);
                    let w = match weights.is_null() {
                        true => one,
                        false => load_lanes(s, weights.add(i), n, 0.0),
                    };
                    let distance = s.sub(logit.reference(s, z), s.splat(reference));
                    let term = s.mul(w, s.mul(distance, s.splat(-share)));
                    sum = s.add(sum, s.select_eq(w, zero, zero, term));
                    i += n;
                }
                total = s.add(total, sum);
            }
            let weight = match weights.is_null() {
                true => len as f32,
                false => Sum { x: weights, len }.run(s),
            };
            Deviation { reference, sum: s.reduce_add(total), weight }
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
        let mut total = s.splat(0.0);
        for piece in Pieces::of::<S>(self.len, 2) {
            let mut sums = [s.splat(0.0); 2];
            let mut i = piece.start;
            // SAFETY: whoever makes a `Sum` vouches for `len` elements at `x`.
            unsafe {
                while i + 2 * S::LANES <= piece.end {
                    for (k, sum) in sums.iter_mut().enumerate() {
                        *sum = s.add(*sum, T::load(s, self.x.add(i + k * S::LANES)));
                    }
                    i += 2 * S::LANES;
                }
                while i < piece.end {
                    let n = S::LANES.min(piece.end - i);
                    sums[0] = s.add(sums[0], load_lanes(s, self.x.add(i), n, 0.0));
                    i += n;
                }
            }
            total = s.add(total, s.add(sums[0], sums[1]));
        }
        s.reduce_add(total)
    }
}
