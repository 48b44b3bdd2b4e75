//! Adaptive log-softmax.

use super::labels::grad_output;
use super::targets::Targets;
use super::{Call, Draw, First, Upstream, layer};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::Tensor;
use crate::check::cases::Case;
use crate::check::random::Random;
use crate::check::reference::{AdaptiveReference, WithSizes};
use crate::check::subject::{Expected, Outcome, Quantity};
use crate::check::{reference, typed};
use crate::device::Device;
use crate::spec::adaptive_log_softmax::{AdaptiveLogSoftmax, AdaptiveParameters, ClassOrder};
use std::fmt;
use std::sync::Arc;

pub(in crate::check) const DRAW: Draw = Draw { shape: layer::shape, call: draw };

/// Options and tensors, owned.
#[derive(Debug)]
struct AdaptiveCall {
    options: AdaptiveLogSoftmax<'static>,
    parameters: AdaptiveParameters<Tensor>,
    target: Tensor,
    ignore_index: i64,
    row_weight: Option<Tensor>,
    grad_output: Upstream,
    /// Whether parameters have gradients that are numbers: no hidden state is infinite.
    finite: bool,
}

impl AdaptiveCall {
    /// The loss with its options.
    fn loss(&self) -> AdaptiveLogSoftmax<'_> {
        match &self.row_weight {
            Some(weight) => self.options.clone().row_weight(weight.view()),
            None => self.options.clone(),
        }
    }

    /// Classes that are asked for of each row.
    fn k(&self) -> usize {
        self.options.classes.min(3)
    }

    fn reference(&self, case: &Case) -> Result<AdaptiveReference> {
        let parameters = self.parameters.try_map(|_, p| p.view().to_f64())?;
        let (input, target) = (case.input()?.to_f64()?, reference::indices(self.target.view())?);
        let g = reference::upstream(self.grad_output.view())?;
        let data = (&input[..], &target[..]);
        Ok(reference::adaptive_log_softmax(&self.loss(), &parameters, data, &g))
    }
}

/// The k largest log-probabilities of each row of so many classes, each as large as any of the row's.
pub(in crate::check) fn top(log_prob: &WithSizes, classes: usize, k: usize) -> WithSizes {
    let mut top = WithSizes::default();
    let rows = log_prob.values.chunks_exact(classes);
    for (row, sizes) in rows.zip(log_prob.sizes.chunks_exact(classes)) {
        let mut row = row.to_vec();
        row.sort_unstable_by(|a, b| b.total_cmp(a));
        let size = sizes.iter().fold(0.0, |m: f64, &size| m.max(size));
        top.values.extend(&row[..k]);
        top.sizes.extend(vec![size; k]);
    }
    top
}

impl Call for AdaptiveCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AdaptiveCall { options, row_weight, grad_output, .. } = self;
        write!(f, ", classes {}, cutoffs {:?}", options.classes, options.cutoffs)?;
        let widths: Vec<usize> = (0..options.clusters()).map(|i| options.width(i)).collect();
        write!(f, ", widths {widths:?}, head_bias {}, {}", options.head_bias, options.reduction)?;
        let weight = row_weight.as_ref().map(Tensor::dtype);
        write!(f, ", target {}, row_weight {weight:?}", self.target.dtype())?;
        write!(f, ", class_order {}", options.class_order.is_some())?;
        write!(f, ", ignore_index {}, grad_output {grad_output}", self.ignore_index)
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let out = self.reference(case)?;
        let top = top(&out.log_prob, self.options.classes, self.k());
        let mut expected = vec![
            Expected::product(Quantity::Loss, out.loss),
            Expected::product(Quantity::Output, out.output),
            Expected::product(Quantity::LogProb, out.log_prob),
            Expected::product(Quantity::Gradient, out.grad_input),
        ];
        if self.finite {
            expected.push(Expected::product(Quantity::Top, top));
            let named = out.grads.into_named().into_iter();
            expected.push(layer::gradients(named.map(|(_, grad)| grad)));
        }
        Ok(expected)
    }

    /// Forward, forward and backward, all log-probabilities and the largest.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let packed = layer::packed(case)?;
        let (input, target) = (layer::input(case, &packed)?, self.target.view());
        let (loss, view, g) = (self.loss(), self.parameters.view(), self.grad_output.view());
        let out = loss.forward(device, &view, input, target)?;
        let log_prob = loss.log_prob(device, &view, input)?;
        let grad = loss.forward_backward(device, &view, input, target, g)?;
        let named = grad.parameters.into_named().into_iter();
        let parameters = self.finite.then(|| named.map(|(_, grad)| grad).collect());
        let mut outcomes = layer::passes(&out, (&grad.output, &grad.input), parameters)?;
        outcomes.push(Outcome::new(Quantity::LogProb, "log_prob", log_prob.view())?);
        if self.finite {
            let (_, top) = loss.top_k(device, &view, input, self.k())?;
            outcomes.push(Outcome::new(Quantity::Top, "top_k", top.view())?);
        }
        Ok(outcomes)
    }

    fn unread(&self, case: &Case) -> Result<Vec<usize>> {
        layer::unread(case, self.target.view(), self.ignore_index)
    }
}

fn draw(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { values, dtype, shape, .. } = *first;
    let (rows, features) = (&shape[..shape.len() - 1], shape[shape.len() - 1]);
    let classes = random.pick(&[2, 3, 5, 40, 300, 2100]);
    let mut cutoffs: Vec<usize> =
        (0..1 + random.below(4)).map(|_| 1 + random.below(classes - 1)).collect();
    cutoffs.sort_unstable();
    cutoffs.dedup();
    let widths: Vec<usize> = cutoffs.iter().map(|_| random.below(2 + features)).collect();
    let reduction = random.pick(&[Reduction::None, Reduction::Sum, Reduction::Mean]);
    let Targets { indices, ignore_index } = Targets::draw(random, classes, rows)?;
    let mut options = AdaptiveLogSoftmax::new(features, classes, &cutoffs)
        .widths(Some(widths))
        .head_bias(random.one_in(2))
        .ignore_index(Some(ignore_index))
        .reduction(reduction);
    if random.one_in(3) {
        let counts: Vec<u64> = (0..classes).map(|_| random.below(50) as u64).collect();
        options = options.class_order(Some(Arc::new(ClassOrder::from_counts(&counts)?)));
    }
    let deviation = layer::deviation(random, values, dtype);
    let parameters =
        options.shapes()?.try_map(|_, shape| layer::parameter(random, dtype, shape, deviation))?;
    let row_weight = random.one_in(3).then(|| {
        let n = rows.iter().product();
        let weight: Vec<f64> = (0..n).map(|_| 0.1 + f64::from(random.normal()).abs()).collect();
        typed::tensor(random.pick(&[DType::F32, dtype]), rows, &weight)
    });
    Ok(Box::new(AdaptiveCall {
        options,
        parameters,
        target: indices,
        ignore_index,
        row_weight: row_weight.transpose()?,
        grad_output: grad_output(random, dtype, reduction, rows)?,
        finite: values.finite(),
    }))
}
