//! A tile, and what its rows come to.

use crate::cpu::row::logit::Transform;
use crate::cpu::row::state::{Summed, overflow_as_f32};
use crate::cpu::row::tile::lane::{Ahead, Lane, Lie};
use crate::cpu::simd::Level;

/// No class: of a row without a target.
pub(crate) const NO_CLASS: f32 = -1.0;

/// The column of a class from 0 on: by way of i32, which the processor has an instruction for.
#[inline(always)]
pub(super) fn column(class: f32) -> usize {
    class as i32 as usize
}

/// Below this a target's exponential is negligible: its distance is better than its share.
pub(super) const NEGLIGIBLE: f32 = 1e-30;

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
    pub(super) nll: Lane<f32>,
    /// The target's logit as a reference.
    pub(super) reference: Lane<f32>,
    /// Σ w·(r(max) − r(x))·unit with references r, where smoothing is on.
    pub(super) deviation: Lane<f32>,
    pub(super) unit: f32,
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

    /// ln Σ e^x of a row of logits as they are.
    #[inline(always)]
    pub(crate) fn lse(&self, row: usize) -> f32 {
        self.max.0[row] + self.log_sum.0[row]
    }

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

/// A tile as its kernels see it.
pub(crate) struct Tile<'t> {
    pub(crate) level: Level,
    pub(crate) transform: Transform,
    pub(crate) lie: Lie,
    /// Elements of a row.
    pub(crate) len: usize,
    pub(crate) x: &'t mut [Lane<f32>],
    pub(crate) ahead: Ahead,
    /// The rows' classes, or [`NO_CLASS`]; `None` where no row has one.
    pub(crate) class: Option<&'t Lane<f32>>,
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
    #[inline(always)]
    pub(crate) fn get(&self, row: usize, c: usize) -> f32 {
        let (lane, at) = self.lie.element(self.len, row, c);
        self.x[lane].0[at]
    }

    #[inline(always)]
    pub(crate) fn at(&mut self, row: usize, c: usize) -> &mut f32 {
        let (lane, at) = self.lie.element(self.len, row, c);
        &mut self.x[lane].0[at]
    }

    /// Whether a row holds no NaN.
    pub(super) fn is_numbers(&self, row: usize) -> bool {
        (0..self.len).all(|c| !self.get(row, c).is_nan())
    }
}
