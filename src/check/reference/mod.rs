//! Every loss in f64, written to be read: no vectors, no threads, no blocks.
//!
//! Tensors are row-major without padding (what [`TensorRef::to_f64`] returns). A line is the set
//! of elements that a softmax runs over; [`Lines`] finds them in any layout, so that each loss is
//! written for one line only. Inputs must be legal: the checks of bad input are the engine's.

mod adaptive_embedding;
mod adaptive_log_softmax;
mod bce;
mod bce_with_logits;
mod class_subset;
mod cross_entropy;
mod elementwise;
mod gaussian_nll;
mod hinge_embedding;
mod huber;
mod information;
mod js_div;
mod js_div_logits;
mod kl_div;
mod l1;
mod linear_cross_entropy;
mod linear_distillation;
mod lines;
mod logprob_entropy;
mod mse;
mod multi_margin;
mod nll;
mod poisson_nll;
mod products;
mod ranks;
mod sampled_softmax;
mod sigmoid_focal;
mod smooth_l1;
mod soft_cross_entropy;
mod soft_margin;
mod top_k;

pub use adaptive_embedding::{EmbeddingReference, adaptive_embedding};
pub use adaptive_log_softmax::{AdaptiveReference, adaptive_log_softmax};
pub use bce::bce;
pub use bce_with_logits::bce_with_logits;
pub use class_subset::{ListData, class_subset};
pub use cross_entropy::{CrossEntropyReference, coarseness, cross_entropy};
pub use elementwise::{
    Element, ElementwiseCall, ElementwiseReference, Formula, Point, Values, broadcast, elementwise,
};
pub use gaussian_nll::{gaussian_nll, gaussian_nll_slope};
pub use hinge_embedding::hinge_embedding;
pub use huber::huber;
pub use information::information;
pub use js_div::js_div;
pub use js_div_logits::{JsDivLogitsReference, js_div_logits};
pub use kl_div::kl_div;
pub use l1::l1;
pub use linear_cross_entropy::{LinearData, LinearReference, LinearTarget, linear_cross_entropy};
pub use linear_distillation::{DistillationData, HeadData, HeadReference, linear_distillation};
pub use lines::{log_softmax, log_softmax_grad, logsumexp, logsumexp_grad};
pub use logprob_entropy::{LogprobEntropyReference, logprob_entropy};
pub use mse::mse;
pub use multi_margin::{MarginReference, multi_margin};
pub use nll::{NllReference, nll};
pub use poisson_nll::poisson_nll;
pub use products::WithSizes;
pub use ranks::ranks;
pub use sampled_softmax::{SampledReference, sampled_softmax};
pub use sigmoid_focal::sigmoid_focal;
pub use smooth_l1::smooth_l1;
pub use soft_cross_entropy::soft_cross_entropy;
pub use soft_margin::soft_margin;
pub use top_k::top_k;

use crate::base::error::{Error, Result};
use crate::base::tensor::TensorRef;
use crate::spec::grad_output::GradOutput;

/// Where the lines of a tensor lie: line `i` has the elements `bases[i] + offset`, for each offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    /// First element of each line, row-major over the dimensions that are not reduced.
    pub bases: Vec<usize>,
    /// Distances of a line's elements from its first, row-major over the reduced dimensions.
    pub offsets: Vec<usize>,
}

impl Lines {
    /// The lines along `dims` (each in `0..rank`) of a contiguous tensor.
    pub fn new(shape: &[usize], dims: &[usize]) -> Lines {
        let mut lines = Lines { bases: vec![0], offsets: vec![0] };
        for (d, &size) in shape.iter().enumerate() {
            let stride: usize = shape[d + 1..].iter().product();
            let list = if dims.contains(&d) { &mut lines.offsets } else { &mut lines.bases };
            *list = list.iter().flat_map(|&at| (0..size).map(move |i| at + i * stride)).collect();
        }
        lines
    }

    fn read(&self, line: usize, data: &[f64]) -> Vec<f64> {
        self.offsets.iter().map(|offset| data[self.bases[line] + offset]).collect()
    }

    fn write(&self, line: usize, values: &[f64], data: &mut [f64]) {
        for (offset, value) in self.offsets.iter().zip(values) {
            data[self.bases[line] + offset] = *value;
        }
    }
}

/// Resolves a dimension as PyTorch does: negative counts from the end, 0-d counts as 1-d.
fn resolve(dim: isize, rank: usize) -> usize {
    let rank = rank.max(1) as isize;
    assert!((-rank..rank).contains(&dim), "dim {dim} out of range for rank {rank}");
    dim.rem_euclid(rank) as usize
}

/// The softmax of one line.
struct Softmax {
    /// Largest element.
    max: f64,
    /// Σ e^(z − max).
    total: f64,
    /// The same without one copy of the largest, which keeps what a sum barely above 1 loses.
    others: f64,
    /// e^(z − max), element by element.
    exps: Vec<f64>,
}

impl Softmax {
    fn new(z: &[f64]) -> Softmax {
        // f64::max would pass over a NaN.
        let max = match z.iter().any(|z| z.is_nan()) {
            true => f64::NAN,
            false => z.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        };
        let exps: Vec<f64> = z.iter().map(|z| (z - max).exp()).collect();
        let largest = z.iter().position(|&z| z == max).unwrap_or(z.len());
        let no_largest = |&(j, _): &(usize, &f64)| j != largest;
        let others: f64 = exps.iter().enumerate().filter(no_largest).map(|(_, e)| e).sum();
        let others = if largest < z.len() { others } else { others - 1.0 };
        Softmax { max, total: exps.iter().sum(), others, exps }
    }

    /// All −∞, any +∞, or any NaN: there are no probabilities.
    fn undefined(&self) -> bool {
        !self.max.is_finite()
    }

    /// −∞ for a line of −∞ (or of nothing), +∞ beside a +∞, NaN with a NaN.
    fn lse(&self) -> f64 {
        if self.undefined() { self.max } else { self.max + self.log_total() }
    }

    /// lse − z, which an offset common to all logits does not touch.
    fn nll(&self, z: f64) -> f64 {
        self.log_total() + (self.max - z)
    }

    /// ln Σ e^(z − max).
    fn log_total(&self) -> f64 {
        self.others.ln_1p()
    }

    fn probability(&self, j: usize) -> f64 {
        self.exps[j] / self.total
    }

    /// 1 − p_j, a sum and not a difference.
    fn complement(&self, j: usize) -> f64 {
        let rest: f64 = self.exps[..j].iter().chain(&self.exps[j + 1..]).sum();
        rest / self.total
    }
}

/// Class indices in order, widened exactly.
///
/// # Errors
/// Memory of a device, or a dtype that is not an index.
pub fn indices(target: TensorRef<'_>) -> Result<Vec<i64>> {
    let n = target.elements();
    if let Some(data) = target.host::<i64>() {
        return Ok(data[..n].to_vec());
    }
    if target.dtype().is_index() {
        // The other index types are exact in f64.
        return Ok(target.to_f64()?.iter().map(|&v| v as i64).collect());
    }
    Err(Error::Dtype { argument: "target", expected: "class indices".into(), got: target.dtype() })
}

/// The upstream gradient's values: one, or one per row.
///
/// # Errors
/// Memory of a device.
pub fn upstream(grad_output: GradOutput<'_>) -> Result<Vec<f64>> {
    match grad_output {
        GradOutput::Number(g) => Ok(vec![f64::from(g)]),
        GradOutput::Tensor(g) => g.to_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_row_major_over_the_other_dimensions() {
        let lines = Lines::new(&[2, 3, 2], &[1]);
        assert_eq!(lines.bases, [0, 1, 6, 7]);
        assert_eq!(lines.offsets, [0, 2, 4]);
        assert_eq!(Lines::new(&[], &[0]).bases, [0]);
    }
}
