//! One softmax over classes whose logits are products: a head, or a cluster.
//!
//! Two ways. Where all logits fit into a modest buffer they are *stored*: made once, turned into
//! their gradient in place, and multiplied out (`stored.rs`). Where they do not they are *tiled*:
//! a tile of some rows and some hundred classes is made in cache, twice, once for the sums and once
//! for the gradient (`tiled.rs`); a wide cluster has narrow rows, which makes the second product
//! cheaper than the memory would be. Which way and in what pieces depends on sizes alone, so the
//! bits do not depend on the number of threads.

mod stored;
mod tiled;

use crate::base::error::Result;
use crate::cpu::matrix::product::{Gradient, Matrix, Panel};
use crate::cpu::processor::Cpu;
pub(crate) use stored::{block, softmax_row};

/// Rows times classes.
pub(crate) struct Softmax<'a> {
    pub(crate) cpu: &'a Cpu,
    /// `[rows, width]`.
    pub(crate) hidden: &'a [f32],
    pub(crate) stride: usize,
    /// `[classes, width]`.
    pub(crate) weight: Matrix<'a>,
    pub(crate) bias: Option<&'a [f32]>,
    /// The class of each row.
    pub(crate) targets: &'a [usize],
}

/// What a gradient is made of, and where it goes.
pub(crate) struct Backward<'a> {
    /// What multiplies p − [j = t], one a row.
    pub(crate) factors: &'a [f64],
    /// `[rows, width]`, overwritten.
    pub(crate) hidden: Option<&'a mut [f32]>,
    pub(crate) weight: Option<&'a Gradient<'a>>,
    /// One value a class, overwritten.
    pub(crate) bias: Option<&'a mut [f32]>,
}

/// Logits that are stored at most, beyond one row's.
const STORED: usize = 4 << 20;

impl Softmax<'_> {
    /// Log-probability of each row's class, and the gradient if asked for.
    pub(crate) fn run(&self, output: &mut [f64], backward: Option<Backward<'_>>) -> Result<()> {
        let of = |rows: usize| rows.saturating_mul(self.weight.rows);
        let rows = self.targets.len();
        // Of wide rows the second product costs more than memory does, as long as a block's logits
        // can be had.
        let wide = self.weight.columns >= 256 && of(block(rows)) <= 4 * STORED;
        if of(rows) <= STORED || wide {
            self.stored(output, backward)
        } else {
            self.tiled(output, backward)
        }
    }

    /// The hidden rows from one on.
    fn hidden_from(&self, row: usize) -> Panel {
        Panel::of(self.hidden.get(row * self.stride..).unwrap_or(&[]), self.stride)
    }
}

/// A row's sums, whole: what its log-probability and its gradient are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowEnd {
    /// The largest logit.
    pub(crate) max: f32,
    /// Σ e^(z − max) without the target.
    pub(crate) rest: f64,
    /// e^(z_t − max).
    pub(crate) target: f64,
    /// ln p_t.
    pub(crate) output: f64,
}

impl RowEnd {
    /// From the maximum and sum without the target, and the target's logit.
    pub(crate) fn new(sum: &Running, z: f32) -> RowEnd {
        // f32::max disregards a NaN target; the sums do not.
        let max = sum.max.max(z);
        let shift = if max == f32::NEG_INFINITY { 0.0 } else { f64::from(max) };
        let rest = match sum.max {
            f32::NEG_INFINITY => sum.sum,
            own => sum.sum * (f64::from(own) - shift).exp(),
        };
        let target = (f64::from(z) - shift).exp();
        let nll = if target > f64::MIN_POSITIVE {
            (rest / target).ln_1p()
        } else {
            (rest + target).ln() + (shift - f64::from(z))
        };
        let undefined = !max.is_finite() || !(rest + target).is_finite();
        RowEnd { max, rest, target, output: if undefined { f64::NAN } else { -nll } }
    }

    pub(crate) fn undefined(&self) -> bool {
        self.output.is_nan()
    }

    pub(crate) fn total(&self) -> f64 {
        self.rest + self.target
    }

    /// p_t − 1, as no difference.
    pub(crate) fn target_slope(&self) -> f64 {
        -(self.rest / self.total())
    }
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
