//! Sampled softmax.

use super::labels::grad_output;
use super::targets::Targets;
use super::{Call, Draw, First, Upstream, layer};
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::Tensor;
use crate::check::cases::Case;
use crate::check::random::Random;
use crate::check::reference;
use crate::check::subject::{Expected, Outcome, Quantity};
use crate::device::Device;
use crate::spec::sampled_softmax::{NegativeSampler, SampledParameters, SampledSoftmax};
use std::fmt;

pub(in crate::check) const DRAW: Draw = Draw { shape: layer::shape, call: draw };

/// Options and tensors, owned.
#[derive(Debug)]
struct SampledCall {
    loss: SampledSoftmax,
    sampler: &'static str,
    parameters: SampledParameters<Tensor>,
    target: Tensor,
    ignore_index: i64,
    grad_output: Upstream,
    /// Whether parameters have gradients that are numbers: no hidden state is infinite.
    finite: bool,
}

impl Call for SampledCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SampledCall { loss, sampler, target, ignore_index, grad_output, .. } = self;
        let (classes, samples) = (loss.classes(), loss.sampler.samples());
        write!(f, ", classes {classes}, {sampler} samples {samples}, seed {}", loss.seed)?;
        write!(f, ", bias {}, remove_accidental_hits {}", loss.bias, loss.remove_accidental_hits)?;
        write!(f, ", {}, target {}", loss.reduction, target.dtype())?;
        write!(f, ", ignore_index {ignore_index}, grad_output {grad_output}")
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let parameters = self.parameters.try_map(|_, p| p.view().to_f64())?;
        let (input, target) = (case.input()?.to_f64()?, reference::indices(self.target.view())?);
        let g = reference::upstream(self.grad_output.view())?;
        let data = (&input[..], &target[..]);
        let out = reference::sampled_softmax(&self.loss, &parameters, data, &g);
        let mut expected = vec![
            Expected::product(Quantity::Loss, out.loss),
            Expected::product(Quantity::Output, out.output),
            Expected::product(Quantity::Gradient, out.grad_input),
        ];
        if self.finite {
            let parts = [Some(out.grads.weight), out.grads.bias];
            expected.push(layer::gradients(parts.into_iter().flatten()));
        }
        Ok(expected)
    }

    /// Forward, and forward and backward.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let packed = layer::packed(case)?;
        let (input, target) = (layer::input(case, &packed)?, self.target.view());
        let (loss, view, g) = (&self.loss, self.parameters.view(), self.grad_output.view());
        let out = loss.forward(device, &view, input, target)?;
        let grad = loss.forward_backward(device, &view, input, target, g)?;
        let parts = [Some(grad.parameters.weight), grad.parameters.bias];
        let parameters = self.finite.then(|| parts.into_iter().flatten().collect());
        layer::passes(&out, (&grad.output, &grad.input), parameters)
    }

    fn unread(&self, case: &Case) -> Result<Vec<usize>> {
        layer::unread(case, self.target.view(), self.ignore_index)
    }
}

fn draw(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { values, dtype, shape, .. } = *first;
    let (rows, features) = (&shape[..shape.len() - 1], shape[shape.len() - 1]);
    let classes = random.pick(&[2, 5, 40, 300, 2100]);
    let most = classes.min(100);
    let (name, sampler) = match random.below(4) {
        0 => ("all", NegativeSampler::all(classes)?),
        1 => ("log-uniform", NegativeSampler::log_uniform(classes, 1 + random.below(most))?),
        _ => {
            let counts: Vec<u64> = (0..classes).map(|_| 1 + random.below(50) as u64).collect();
            let alpha = random.pick(&[1.0, 0.75, 0.0]);
            let samples = 1 + random.below(most);
            ("unigram", NegativeSampler::unigram(&counts, alpha, samples)?)
        }
    };
    let reduction = random.pick(&[Reduction::None, Reduction::Sum, Reduction::Mean]);
    let Targets { indices, ignore_index } = Targets::draw(random, classes, rows)?;
    let loss = SampledSoftmax::new(features, sampler.unique(random.one_in(2)))
        .bias(random.one_in(2))
        .seed(random.next())
        .step(random.below(1000) as u64)
        .remove_accidental_hits(!random.one_in(4))
        .ignore_index(Some(ignore_index))
        .reduction(reduction);
    let deviation = layer::deviation(random, values, dtype);
    let parameters =
        loss.shapes()?.try_map(|_, shape| layer::parameter(random, dtype, shape, deviation))?;
    Ok(Box::new(SampledCall {
        loss,
        sampler: name,
        parameters,
        target: indices,
        ignore_index,
        grad_output: grad_output(random, dtype, reduction, rows)?,
        finite: values.finite(),
    }))
}
