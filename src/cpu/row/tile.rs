//! Several short rows at once, a lane of the vectors a row: what `softmax.rs` and `gradient.rs` do with
//! one. A row by itself costs some hundreds of nanoseconds before its first element; here it shares them
//! with fifteen others, and logarithm and division as well.
//!
//! Sums are f32, over no more elements than [`SHORT`], and relative to the row's largest; the target's
//! exponential is kept apart from the others'.

use crate::cpu::row::logit::{Linear, Logit, Transform, each_logit};
use crate::cpu::row::softmax::share;
use crate::cpu::row::state::{Summed, overflow_as_f32};
use crate::cpu::simd::{Kernel, Level, MAX_LANES, Simd, exp_nonpositive, ln_1p, ln_plus};

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

/// No class: of a row without a target.
pub(crate) const NO_CLASS: f32 = -1.0;
/// Of all rows.
pub(crate) static NO_CLASSES: Lane<f32> = Lane::of(NO_CLASS);

/// What rows sum to.
#[derive(Debug)]
pub(crate) struct TileSums {
    /// The largest, as a reference; −∞ of a row that is all −∞.
    pub(crate) max: Lane<f32>,
    /// Σ e^(z − max) without the target.
    pub(crate) rest: Lane<f32>,
    /// e^(z_t − max); 0 without a target.
    pub(crate) target: Lane<f32>,
    /// ln Σ e^(z − max); NaN where the row has no probabilities.
    pub(crate) log_sum: Lane<f32>,
    /// ln(1 + rest/target), which is lse − z_t unless the target is negligible.
    nll: Lane<f32>,
    /// The target's logit as a reference.
    reference: Lane<f32>,
    /// Σ w·(r(max) − r(x))·unit with references r, where smoothing is on.
    deviation: Lane<f32>,
    unit: f32,
    /// dz/dx at the target, over [`Transform::slope`].
    pub(crate) slope: Lane<f32>,
}

impl TileSums {
    pub(crate) const EMPTY: TileSums = TileSums {
        max: Lane::of(0.0),
        rest: Lane::of(0.0),
        target: Lane::of(0.0),
        log_sum: Lane::of(0.0),
        nll: Lane::of(0.0),
        reference: Lane::of(0.0),
        deviation: Lane::of(0.0),
        unit: 1.0,
        slope: Lane::of(0.0),
    };

    /// What a row's loss is made of.
    #[inline(always)]
    pub(crate) fn summed(&self, row: usize, transform: Transform) -> Summed {
        let (z, log_sum) = (transform.z(self.max.0[row]), f64::from(self.log_sum.0[row]));
        let nll = match self.target.0[row] > NEGLIGIBLE {
            true => self.nll.0[row].into(),
            false => log_sum + overflow_as_f32(z - transform.z(self.reference.0[row])),
        };
        let deviation = f64::from(self.deviation.0[row]) / f64::from(self.unit);
        Summed { max: z, log_sum, nll, deviation: deviation * f64::from(transform.slope()) }
    }
}

/// A tile as its kernels see it: an element of all rows after another.
pub(crate) struct Tile<'t> {
    pub(crate) level: Level,
    pub(crate) transform: Transform,
    pub(crate) x: &'t mut [Lane<f32>],
    /// The rows' classes, or [`NO_CLASS`].
    pub(crate) class: &'t Lane<f32>,
    /// Whether the loss is smoothed over all classes, and their weights where those are not 1 each.
    pub(crate) smoothing: bool,
    pub(crate) weights: Option<&'t [f32]>,
}

/// What multiplies each row's p_j and w_j, and what its target's gradient is.
#[derive(Debug)]
pub(crate) struct TileTerms {
    /// Over Σ e^(z − max).
    pub(crate) prob: Lane<f32>,
    pub(crate) smooth: Lane<f32>,
    pub(crate) at_target: Lane<f32>,
    /// 1, or 0 of a row whose gradient is 0 whatever it holds.
    pub(crate) kept: Lane<f32>,
}

impl TileTerms {
    pub(crate) const NONE: TileTerms = TileTerms {
        prob: Lane::of(0.0),
        smooth: Lane::of(0.0),
        at_target: Lane::of(0.0),
        kept: Lane::of(0.0),
    };
}

impl Tile<'_> {
    /// Sums the rows. Where z is linear the exponentials take the logits' place, if there is to be a
    /// gradient.
    pub(crate) fn sum(&mut self, gradient: bool, sums: &mut TileSums) {
        let level = self.level;
        each_logit!(self.transform, logit => {
            level.run(SumRows { tile: self, logit, keep: gradient, sums });
        });
    }

    /// Turns what [`Tile::sum`] has left into the gradient.
    pub(crate) fn gradient(&mut self, sums: &TileSums, terms: &TileTerms) {
        let level = self.level;
        each_logit!(self.transform, logit => {
            level.run(GradientRows { tile: self, logit, sums, terms });
        });
    }

    /// Which rows hold no NaN.
    fn numbers(&self) -> Lane<bool> {
        let mut numbers = Lane::of(true);
        for x in self.x.iter() {
            for (number, x) in numbers.0.iter_mut().zip(x.0) {
                *number &= !x.is_nan();
            }
        }
        numbers
    }

    /// Turns logits into log-probabilities, (x − max) − ln Σ; NaN where there are none.
    pub(crate) fn log_probabilities(&mut self, sums: &TileSums) {
        self.level.run(LogRows { x: self.x, sums });
    }

    /// Turns kept exponentials into the gradient of a log-softmax, g − p·Σg; NaN where there are no
    /// probabilities.
    pub(crate) fn log_softmax_gradient(&mut self, upstream: &[Lane<f32>], sums: &TileSums) {
        self.level.run(LogGradientRows { x: self.x, upstream, sums });
    }

    /// A class's weight.
    #[inline(always)]
    fn weight(&self, class: usize) -> f32 {
        self.weights.map_or(1.0, |weights| weights[class])
    }
}

struct SumRows<'k, 't, L> {
    tile: &'k mut Tile<'t>,
    logit: L,
    keep: bool,
    sums: &'k mut TileSums,
}

/// Below this a target's exponential is negligible: its distance is better than its share.
const NEGLIGIBLE: f32 = 1e-30;

impl<L: Logit> Kernel for SumRows<'_, '_, L> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SumRows { tile, logit, keep, sums } = self;
        let unit = if tile.smoothing { share(tile.transform) } else { 1.0 };
        sums.unit = unit;
        let (zero, one) = (s.splat(0.0), s.splat(1.0));
        for at in (0..ROWS).step_by(S::LANES) {
            let mut max = s.splat(f32::NEG_INFINITY);
            for x in tile.x.iter() {
                // NaN is disregarded.
                max = s.max(logit.reference(s, x.load(s, at)), max);
            }
            sums.max.store(s, at, max);
            let infinite = s.reduce_max(max) == f32::INFINITY;
            let numbers = if infinite { tile.numbers() } else { Lane::of(true) };
            // Of a row that is all −∞ every exponential is 0, and not of ∞ − ∞.
            let max = s.select_eq(max, s.splat(f32::NEG_INFINITY), zero, max);
            let class = tile.class.load(s, at);
            let (mut rest, mut target) = (zero, zero);
            let (mut reference, mut slope) = (zero, one);
            let mut deviation = zero;
            for c in 0..tile.x.len() {
                let x = tile.x[c].load(s, at);
                let (d, own_slope) = logit.distance(s, x, max);
                let e = exp_nonpositive(s, d);
                let column = s.splat(c as f32);
                rest = s.add(rest, s.select_eq(class, column, zero, e));
                target = s.select_eq(class, column, e, target);
                let r = if L::LINEAR { x } else { s.add(d, max) };
                reference = s.select_eq(class, column, r, reference);
                if !L::LINEAR {
                    slope = s.select_eq(class, column, own_slope, slope);
                }
                if tile.smoothing {
                    let w = tile.weight(c);
                    // A weight of 0 makes 0 of a distance that is infinite.
                    if w != 0.0 {
                        let distance = s.fma(r, s.splat(-unit), s.mul(max, s.splat(unit)));
                        deviation = s.fma(distance, s.splat(w), deviation);
                    }
                }
                if L::LINEAR && keep {
                    tile.x[c].store(s, at, e);
                }
            }
            let total = s.add(rest, target);
            // A sum barely above 1 has digits that its logarithm would miss.
            let certain = ln_1p(s, rest);
            let log_sum = s.select_eq(target, one, certain, ln_plus(s, total, zero));
            let nll = ln_1p(s, s.div(rest, target));
            sums.rest.store(s, at, rest);
            sums.target.store(s, at, target);
            sums.log_sum.store(s, at, log_sum);
            sums.nll.store(s, at, nll);
            sums.reference.store(s, at, reference);
            sums.deviation.store(s, at, deviation);
            sums.slope.store(s, at, slope);
            if infinite {
                // ∞, unless there is a NaN beside it.
                let lanes = at..at + S::LANES;
                for i in lanes.filter(|&i| sums.max.0[i] == f32::INFINITY) {
                    sums.log_sum.0[i] = if numbers.0[i] { 0.0 } else { f32::NAN };
                }
            }
        }
    }
}

/// The rows' log-sums, NaN where they have no probabilities.
#[inline(always)]
fn defined<S: Simd>(s: S, at: usize, sums: &TileSums) -> S::V {
    let (max, log_sum) = (sums.max.load(s, at), sums.log_sum.load(s, at));
    let finite = s.select_lt(s.abs(max), s.splat(f32::INFINITY), log_sum, s.splat(f32::NAN));
    s.select_eq(max, max, finite, s.splat(f32::NAN))
}

struct LogRows<'k> {
    x: &'k mut [Lane<f32>],
    sums: &'k TileSums,
}

impl Kernel for LogRows<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let LogRows { x, sums } = self;
        for at in (0..ROWS).step_by(S::LANES) {
            let (max, log_sum) = (sums.max.load(s, at), defined(s, at, sums));
            for x in x.iter_mut() {
                let distance = s.sub(x.load(s, at), max);
                x.store(s, at, s.sub(distance, log_sum));
            }
        }
    }
}

struct LogGradientRows<'k> {
    x: &'k mut [Lane<f32>],
    upstream: &'k [Lane<f32>],
    sums: &'k TileSums,
}

impl Kernel for LogGradientRows<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let LogGradientRows { x, upstream, sums } = self;
        let zero = s.splat(0.0);
        for at in (0..ROWS).step_by(S::LANES) {
            let mut parts = [zero; 4];
            for group in upstream.chunks(4) {
                for (part, g) in parts.iter_mut().zip(group) {
                    *part = s.add(*part, g.load(s, at));
                }
            }
            let sum = s.add(s.add(parts[0], parts[1]), s.add(parts[2], parts[3]));
            let share = s.div(sum, s.add(sums.rest.load(s, at), sums.target.load(s, at)));
            // NaN, or what is less 0.
            let undefined = s.mul(defined(s, at, sums), zero);
            let factor = s.sub(undefined, share);
            for (x, g) in x.iter_mut().zip(upstream) {
                x.store(s, at, s.fma(x.load(s, at), factor, g.load(s, at)));
            }
        }
    }
}

struct GradientRows<'k, 't, L> {
    tile: &'k mut Tile<'t>,
    logit: L,
    sums: &'k TileSums,
    terms: &'k TileTerms,
}

impl<L: Logit> Kernel for GradientRows<'_, '_, L> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let GradientRows { tile, logit, sums, terms } = self;
        let (zero, one) = (s.splat(0.0), s.splat(1.0));
        for at in (0..ROWS).step_by(S::LANES) {
            let (max, class) = (sums.max.load(s, at), tile.class.load(s, at));
            let (prob, smooth) = (terms.prob.load(s, at), terms.smooth.load(s, at));
            let (at_target, kept) = (terms.at_target.load(s, at), terms.kept.load(s, at));
            for c in 0..tile.x.len() {
                let x = tile.x[c].load(s, at);
                let (e, slope) = match L::LINEAR {
                    true => (x, one),
                    false => {
                        let (d, slope) = logit.distance(s, x, max);
                        (exp_nonpositive(s, d), slope)
                    }
                };
                let mut g = s.mul(e, prob);
                if tile.smoothing {
                    g = s.fma(smooth, s.splat(-tile.weight(c)), g);
                }
                if !L::LINEAR {
                    g = s.mul(g, slope);
                }
                g = s.select_eq(class, s.splat(c as f32), at_target, g);
                tile.x[c].store(s, at, s.select_eq(kept, one, g, zero));
            }
        }
    }
}
