//! What every row of a cross entropy against probabilities uses of its batch.

use crate::base::error::Result;
use crate::cpu::batch::numbers::{Scaling, Upstream};
use crate::cpu::batch::targets::{Census, WeightSum, Weights};
use crate::cpu::processor::host_data;
use crate::cpu::row::logit::Transform;
use crate::cpu::row::soft_row::SoftSum;
use crate::spec::cross_entropy::{Checked, SoftTarget};

/// Numbers of the batch that every row uses.
#[derive(Clone, Copy)]
pub(crate) struct Batch<'a> {
    pub(crate) weights: Weights<'a>,
    /// Of weights over their unit, as loops see them.
    pub(crate) weight_sum: f64,
    pub(crate) unit: f64,
    pub(crate) scaling: Scaling<'a>,
    pub(crate) classes: usize,
    /// 1 − ε and ε/V.
    pub(crate) hard: f64,
    pub(crate) soft: f64,
    pub(crate) lambda: f64,
    pub(crate) transform: Transform,
    pub(crate) teacher: Option<f32>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(
        checked: &Checked<'a, SoftTarget<'a>>,
        upstream: Upstream<'a>,
    ) -> Result<Batch<'a>> {
        let options = checked.options;
        let weights = Weights(options.class_weight().map(|w| host_data(w, "weight")).transpose()?);
        let classes = checked.classes;
        let WeightSum { sum, unit } = weights.sum(classes)?;
        // Every row counts, and as 1; rows without classes have no mean.
        let kept = if classes == 0 { 0 } else { checked.rows.iter().product() };
        let census = Census { kept, weight: kept as f64, rows: kept as f64 };
        let epsilon = options.label_smoothing;
        Ok(Batch {
            weights,
            weight_sum: sum / unit,
            unit,
            scaling: Scaling { reduction: options.reduction, census, upstream },
            classes,
            hard: 1.0 - epsilon,
            soft: if epsilon > 0.0 { epsilon / classes as f64 } else { 0.0 },
            lambda: options.lse_square_scale,
            transform: Transform::new(options.logit_scale, options.softcap),
            teacher: options.teacher_scale,
        })
    }

    /// ℓ without its z-loss, and the z-loss, of a row.
    pub(crate) fn loss(&self, sum: &SoftSum) -> (f64, f64) {
        if sum.undefined() {
            return (f64::NAN, if self.lambda > 0.0 { f64::NAN } else { 0.0 });
        }
        let z_loss = if self.lambda > 0.0 { self.lambda * sum.lse() * sum.lse() } else { 0.0 };
        (sum.loss() * self.unit, z_loss)
    }
}
