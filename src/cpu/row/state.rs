//! What a pass over a row leaves: a maximum and sums relative to it, of each part of the row, and of
//! the whole. Every softmax of this device is merged here.
//!
//! Parts are merged in the order of their columns, in f64, relative to the largest maximum of all.
//!
//! The target's column is left out of the parts. Its exponential is added apart, so that
//! p_t − 1 = −(sum of the others)/(whole sum) and ln of a sum barely above 1 lose no digits.

use crate::cpu::row::hole::Hole;
use crate::cpu::row::logit::Transform;
use crate::cpu::row::partial::Partial;
use crate::cpu::row::ranks::Standing;
use crate::cpu::row::softmax;
use crate::cpu::row::softmax::Deviation;

/// The largest logit of a row, which its sums are relative to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Top {
    transform: Transform,
    /// As a reference; −∞ of a row that is empty or all −∞.
    pub(crate) reference: f32,
    /// Its z, or 0 where that is −∞.
    pub(crate) shift: f64,
}

impl Top {
    /// Of the maxima of a row's parts; NaN is disregarded.
    pub(crate) fn of(transform: Transform, maxima: impl Iterator<Item = f32>) -> Top {
        let reference = maxima.fold(f32::NEG_INFINITY, f32::max);
        let shift = if reference == f32::NEG_INFINITY { 0.0 } else { transform.z(reference) };
        Top { transform, reference, shift }
    }

    /// Maximum of z.
    pub(crate) fn max(&self) -> f64 {
        if self.reference == f32::NEG_INFINITY { f64::NEG_INFINITY } else { self.shift }
    }

    /// z of a part's maximum − that of the row.
    fn distance(&self, max: f32) -> f64 {
        self.transform.z(max) - self.shift
    }

    /// e^(z − max) of a part's maximum, for a sum relative to it.
    pub(crate) fn share(&self, max: f32) -> f64 {
        match max {
            // What was summed there is 0, or NaN.
            f32::NEG_INFINITY => 1.0,
            max if max == self.reference => 1.0,
            max => self.distance(max).exp(),
        }
    }

    /// Whether a target's reference and z are the top. Under a cap its z has more digits than a
    /// reference: at the top it is the top.
    fn is_at(&self, target: Option<(f32, f64)>) -> bool {
        target.is_some_and(|(reference, z)| reference == self.reference && z.is_finite())
    }
}

/// What one segment adds to its row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) exponentials: Partial,
    pub(crate) deviation: Deviation,
    pub(crate) standing: Standing,
}

impl Part {
    /// Of exponentials alone.
    pub(crate) fn of(exponentials: Partial) -> Part {
        Part { exponentials, deviation: Deviation::NONE, standing: Standing::NONE }
    }
}

/// What a loss is made of, however a row was summed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summed {
    /// Maximum of z.
    pub(crate) max: f64,
    /// ln Σ e^(z − max).
    pub(crate) log_sum: f64,
    /// lse − z_t.
    pub(crate) nll: f64,
    /// Σ_c w_c·(max − z_c), where smoothing is on; of weights over their unit.
    pub(crate) deviation: f64,
}

impl Summed {
    /// ln Σ e^z.
    #[inline(always)]
    pub(crate) fn lse(&self) -> f64 {
        self.max + self.log_sum
    }

    /// Whether the row has no probabilities: all −∞, or a +∞ or NaN in it.
    #[inline(always)]
    pub(crate) fn undefined(&self) -> bool {
        !self.max.is_finite() || self.log_sum.is_nan()
    }
}

/// The merged sums of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowSum {
    top: Top,
    /// Maximum of z.
    pub(crate) max: f64,
    /// Σ e^(z − max) without the target.
    pub(crate) rest: f64,
    /// e^(z_t − max); 0 without a target.
    pub(crate) target: f64,
    /// ln Σ e^(z − max).
    pub(crate) log_sum: f64,
    /// Σ e^(z − max) without one copy of the largest, the target included, where the moment was
    /// asked for.
    others: f64,
    /// max − z_t.
    target_distance: f64,
    /// Σ_c w_c·(max − z_c), the target included, where smoothing is on; of weights over their unit.
    pub(crate) deviation: f64,
    /// Σ e^(z − max)·(max − z) without the target, where it was asked for.
    rest_moment: f64,
    /// The best class and what beats the target, where it was asked for.
    pub(crate) standing: Standing,
}

impl RowSum {
    /// For a loss.
    pub(crate) fn summed(&self) -> Summed {
        let RowSum { max, log_sum, deviation, .. } = *self;
        Summed { max, log_sum, nll: self.nll(), deviation }
    }

    /// ln Σ e^z.
    pub(crate) fn lse(&self) -> f64 {
        self.max + self.log_sum
    }

    /// lse − z_t, formed without the common offset of the logits, and as ln(1 + rest/target)
    /// unless the target is negligible, so that a small loss keeps its digits.
    pub(crate) fn nll(&self) -> f64 {
        if self.target > f64::MIN_POSITIVE {
            (self.rest / self.target).ln_1p()
        } else {
            self.log_sum + self.target_distance
        }
    }

    /// Whether the row has no probabilities: all −∞, or a +∞ or NaN in it.
    pub(crate) fn undefined(&self) -> bool {
        !self.max.is_finite() || self.log_sum.is_nan()
    }

    pub(crate) fn total(&self) -> f64 {
        self.rest + self.target
    }

    /// p_t − 1, as no difference.
    pub(crate) fn target_slope(&self) -> f64 {
        -(self.rest / self.total())
    }

    /// Σ p_c·(max − z_c), never negative.
    pub(crate) fn mean_distance(&self) -> f64 {
        (self.rest_moment + times(self.target, self.target_distance)) / self.total()
    }

    /// −Σ p_c·ln p_c, as ln Σ + Σ p_c·(max − z_c): without the common offset of the logits. Both
    /// are made of what is not the largest, and are as small as that.
    pub(crate) fn entropy(&self) -> f64 {
        self.others.ln_1p() + self.mean_distance()
    }

    /// Log-probability of the target and entropy, NaN of a row without probabilities.
    pub(crate) fn token(&self) -> [f32; 2] {
        match self.undefined() {
            true => [f32::NAN; 2],
            false => [-self.nll() as f32, self.entropy() as f32],
        }
    }

    /// −p_t·(z_t − lse + H), the slope of the entropy at the target's z. The target's own share of
    /// the mean distance is taken off before anything is added: nearly alone, p_t loses no digits.
    pub(crate) fn entropy_slope(&self) -> f64 {
        let total = self.total();
        let own = times(self.target / total, self.target_distance) * (self.rest / total);
        own - self.target / total * (self.rest_moment / total)
    }

    /// The largest logit, for loops that form distances to it.
    pub(crate) fn reference(&self) -> f32 {
        self.top.reference
    }

    /// e^(z − max) of a stretch's maximum; 1 where that is −∞.
    pub(crate) fn share(&self, max: f32) -> f64 {
        self.top.share(max)
    }

    /// Of the parts of a row, from the first column to the last.
    pub(crate) fn merge(
        transform: Transform,
        parts: impl Iterator<Item = Part> + Clone,
        hole: Option<Hole>,
    ) -> RowSum {
        let target = hole.map(|h| (h.reference, h.z));
        let maxima = parts.clone().map(|p| p.exponentials.max);
        let top = Top::of(transform, maxima.chain(hole.map(|h| h.reference)));
        // One copy of the largest is no other.
        let mut largest = !top.is_at(target);
        let (mut rest, mut others, mut deviation, mut moment) = (0.0, 0.0, 0.0, 0.0);
        let mut standing = Standing::NONE;
        for Part { exponentials: e, deviation: d, standing: s } in parts {
            let (sum, scale) = (f64::from(e.sum), top.share(e.max));
            rest += sum * scale;
            let own_moment = f64::from(e.moment);
            if e.max == top.reference && e.max != f32::NEG_INFINITY {
                others += if largest { f64::from(e.others) } else { sum };
                largest = false;
                moment += own_moment;
            } else {
                others += sum * scale;
                if e.max != f32::NEG_INFINITY {
                    moment += scale * (own_moment + sum * top.distance(e.max));
                }
            }
            standing.merge(&s);
            deviation += d.relative_to(top.reference, transform);
        }
        if let Some(Hole { weight, reference: own, .. }) = hole.filter(|h| h.weight != 0.0) {
            deviation += weight * softmax::span(top.reference, own, transform);
        }
        if let Some(hole) = hole {
            standing.merge(&Standing { beats: 0, best: hole.logit, column: hole.column });
        }
        let sum = RowSum::with_target(top, rest, target);
        others += if top.is_at(target) { 0.0 } else { sum.target };
        RowSum { others, deviation, rest_moment: -moment, standing, ..sum }
    }

    /// Of classes that were summed one after another, and the target's logit.
    pub(crate) fn of_running(sum: &Running, z: f32) -> RowSum {
        let top = Top::of(Transform::IDENTITY, [sum.max, z].into_iter());
        RowSum::with_target(top, sum.sum * top.share(sum.max), Some((z, f64::from(z))))
    }

    /// From the sum without the target, and the target's reference and z.
    fn with_target(top: Top, rest: f64, target: Option<(f32, f64)>) -> RowSum {
        let at_top = top.is_at(target);
        let z = target.map_or(f64::NEG_INFINITY, |t| t.1);
        let max = top.max();
        let target = match target {
            Some(_) if at_top || z == top.shift => 1.0,
            Some(_) => (z - top.shift).exp(),
            None => 0.0,
        };
        RowSum {
            top,
            max,
            rest,
            target,
            log_sum: (rest + target).ln(),
            others: 0.0,
            target_distance: if at_top { 0.0 } else { overflow_as_f32(max - z) },
            deviation: 0.0,
            rest_moment: 0.0,
            standing: Standing::NONE,
        }
    }
}

/// A distance between logits, infinite where f32 arithmetic, on any device, would have it so.
#[inline(always)]
pub(crate) fn overflow_as_f32(distance: f64) -> f64 {
    if distance > f64::from(f32::MAX) { f64::INFINITY } else { distance }
}

/// A probability times a distance; a probability of 0 makes 0 of an infinite one.
fn times(probability: f64, distance: f64) -> f64 {
    if probability == 0.0 { 0.0 } else { probability * distance }
}

/// A maximum and the sum of exponentials relative to it, of the classes so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running {
    pub(crate) max: f32,
    pub(crate) sum: f64,
}

impl Running {
    pub(crate) const EMPTY: Running = Running { max: f32::NEG_INFINITY, sum: 0.0 };

    pub(crate) fn push(&mut self, other: Running) {
        // Two comparisons, as a NaN sum comes with any maximum.
        if other.max > self.max {
            let scale = match self.max {
                f32::NEG_INFINITY => 1.0, // of a sum that is 0, or NaN
                own => (f64::from(own) - f64::from(other.max)).exp(),
            };
            self.sum = self.sum * scale + other.sum;
            self.max = other.max;
        } else if other.max < self.max && other.max != f32::NEG_INFINITY {
            self.sum += other.sum * (f64::from(other.max) - f64::from(self.max)).exp();
        } else {
            self.sum += other.sum;
        }
    }
}
