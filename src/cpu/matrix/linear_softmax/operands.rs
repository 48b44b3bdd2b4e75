//! What a softmax over products is called with, and what its rows sum to.

use crate::cpu::matrix::product::{Gradient, Matrix, Panel};
use crate::cpu::processor::Cpu;

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
pub(crate) const STORED: usize = 4 << 20;

impl Softmax<'_> {
    /// The hidden rows from one on.
    pub(crate) fn hidden_from(&self, row: usize) -> Panel {
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
