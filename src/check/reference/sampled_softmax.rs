//! Sampled softmax, row by row.

use super::products::{Part, WithSizes};
use crate::base::reduction::Reduction;
use crate::spec::sampled_softmax::{SampledParameters, SampledSoftmax};

/// What a sampled softmax should give.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledReference {
    /// The target's log-probability among what was drawn, one a row.
    pub output: WithSizes,
    /// One number, or one a row.
    pub loss: WithSizes,
    /// In the input's order.
    pub grad_input: WithSizes,
    /// In the parameters' order.
    pub grads: SampledParameters<WithSizes>,
}

/// The loss of an `input` of rows against the call's negatives, and the gradients for the upstream
/// gradient `grad_output` (one number, or one per row).
///
/// # Panics
/// Where the engine returns an error for shapes or targets, this may panic.
pub fn sampled_softmax(
    options: &SampledSoftmax,
    parameters: &SampledParameters<Vec<f64>>,
    (input, target): (&[f64], &[i64]),
    grad_output: &[f64],
) -> SampledReference {
    let features = options.in_features;
    let negatives = options.draw().expect("negatives that can be drawn");
    let hits_stay = !options.remove_accidental_hits && !options.sampler.is_all();
    let kept = |row: usize| options.ignore_index != Some(target[row]);
    let denominator = match options.reduction {
        Reduction::None | Reduction::Sum => 1.0,
        Reduction::Mean | Reduction::BatchMean => {
            (0..target.len()).filter(|&row| kept(row)).count() as f64
        }
    };
    let mut result = SampledReference {
        output: WithSizes::default(),
        loss: WithSizes::default(),
        grad_input: WithSizes::default(),
        grads: SampledParameters {
            weight: WithSizes::zeros(parameters.weight.len()),
            bias: parameters.bias.as_ref().map(|bias| WithSizes::zeros(bias.len())),
        },
    };
    for row in 0..target.len() {
        let x = WithSizes::exact(&input[row * features..][..features]);
        let (mut output, mut size, mut dx) = (0.0, 0.0, WithSizes::zeros(features));
        if kept(row) {
            let own = target[row] as usize;
            let others =
                negatives.classes.iter().copied().filter(|&class| class != own || hits_stay);
            let columns: Vec<usize> = std::iter::once(own).chain(others).collect();
            let mut z = WithSizes::default();
            for &class in &columns {
                let weights = &parameters.weight[class * features..][..features];
                let terms = || weights.iter().zip(&x.values).map(|(w, x)| w * x);
                let beside = [
                    parameters.bias.as_ref().map_or(0.0, |bias| bias[class]),
                    -options.sampler.log_expected(class, &negatives),
                ];
                let sizes = terms().chain(beside).map(f64::abs).filter(|size| size.is_finite());
                z.push(terms().chain(beside).sum(), sizes.sum());
            }
            let part = Part::new(z);
            let g = grad_output[if grad_output.len() == 1 { 0 } else { row }] / denominator;
            let dz = part.gradient(0, g);
            for (j, &class) in columns.iter().enumerate() {
                let (slope, off) = (dz.values[j], dz.sizes[j]);
                for d in 0..features {
                    let at = class * features + d;
                    let w = parameters.weight[at];
                    result.grads.weight.add(at, slope * x.values[d], off * x.sizes[d]);
                    dx.add(d, slope * w, off * w.abs());
                }
                if let Some(bias) = &mut result.grads.bias {
                    bias.add(class, slope, off);
                }
            }
            output = part.log_prob(0);
            size = output.abs() + part.size;
        }
        result.output.push(output, size);
        result.loss.push(-output, size);
        result.grad_input.extend(dx);
    }
    result.loss = result.loss.reduced(options.reduction, denominator);
    result
}
