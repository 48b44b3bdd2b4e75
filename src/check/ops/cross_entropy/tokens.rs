//! What cross entropy gives of rows besides the loss, all of it from one read.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorRef};
use crate::check::call::bound::Bound;
use crate::check::case::{Case, First};
use crate::check::draw::{Upstream, upstream};
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::reference::CrossEntropyReference;
use crate::check::{reference, typed};
use crate::device::Device;
use crate::spec::cross_entropy::{CrossEntropy, CrossEntropyOut, CrossEntropyUpstream, TopKOut};
use crate::spec::grad_output::GradOutput;
use crate::spec::logprob_entropy::LogprobEntropy;
use std::fmt;

/// What is asked for: so many classes of each row, none where that is 0, and gradients.
#[derive(Debug)]
pub(super) struct Tokens {
    k: usize,
    grad_logprob: Upstream,
    grad_entropy: Upstream,
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tokens { k, grad_logprob, grad_entropy } = self;
        write!(f, ", k {k}, grad_logprob {grad_logprob}, grad_entropy {grad_entropy}")
    }
}

/// The loss without what log-probability and entropy know nothing of.
fn of_rows(loss: &CrossEntropy<'_>) -> LogprobEntropy {
    LogprobEntropy::default()
        .ignore_index(loss.ignore_index)
        .logit_scale(loss.logit_scale)
        .softcap(loss.softcap)
}

/// What a call that was drawn as data gives besides its loss: to be expected, and added to its gradient.
pub(super) fn beside(
    b: &Bound<'_>,
    loss: &CrossEntropy<'_>,
    (shape, x, target): (&[usize], &[f64], &[i64]),
    out: &mut CrossEntropyReference,
) -> Result<Vec<Expected>> {
    let of = |name| match b.call.form.starts_with("forward_backward") {
        true => reference::upstream(b.upstream(name)),
        false => Ok(vec![0.0]),
    };
    let (grad_logprob, grad_entropy) = (of("grad_logprob")?, of("grad_entropy")?);
    let g = [&grad_logprob[..], &grad_entropy[..]];
    let rows = reference::logprob_entropy(&of_rows(loss), shape, x, target, g);
    out.grad_logits = sum(&out.grad_logits, &rows.grad_logits);
    out.grad_logits_size = sum(&out.grad_logits_size, &rows.grad_logits_size);
    let classes = shape[usize::from(shape.len() > 1)];
    let k = b.optional("top_k.classes").and_then(|t| t.shape().last().copied()).unwrap_or(0);
    let [_, top] = reference::top_k(loss, shape, x, target, k.min(classes));
    Ok(vec![
        Expected::term(Quantity::Output, rows.logprob),
        Expected::term(Quantity::Entropy, rows.entropy),
        Expected::term(Quantity::Top, top),
    ])
}

fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

impl Tokens {
    pub(super) fn draw(
        random: &mut Random,
        first: &First<'_>,
        (classes, rows): (usize, &[usize]),
    ) -> Result<Tokens> {
        let mut grad = |dtype| {
            Ok(match random.below(3) {
                0 => Upstream::Number(0.0),
                1 => Upstream::Number(random.normal()),
                _ => Upstream::Tensor(upstream(random, dtype, rows)?),
            })
        };
        let (grad_logprob, grad_entropy) = (grad(first.dtype)?, grad(first.dtype)?);
        let k = random.pick(&[0, 1, 2, 5, 16, 17, 128]).min(classes);
        Ok(Tokens { k, grad_logprob, grad_entropy })
    }

    pub(super) fn upstream<'a>(&'a self, grad_output: GradOutput<'a>) -> CrossEntropyUpstream<'a> {
        CrossEntropyUpstream {
            grad_output,
            grad_logprob: self.grad_logprob.view(),
            grad_entropy: self.grad_entropy.view(),
        }
    }

    /// Adds what log-probability and entropy give to a gradient and its size.
    pub(super) fn expect(
        &self,
        loss: &CrossEntropy<'_>,
        case: &Case,
        (x, target): (&[f64], &[i64]),
        (gradient, size): (&[f64], &[f64]),
    ) -> Result<Vec<Expected>> {
        let a = reference::upstream(self.grad_logprob.view())?;
        let b = reference::upstream(self.grad_entropy.view())?;
        let out = reference::logprob_entropy(&of_rows(loss), &case.shape, x, target, [&a, &b]);
        let [classes, top] = reference::top_k(loss, &case.shape, x, target, self.k);
        Ok(vec![
            Expected::term(Quantity::Output, out.logprob),
            Expected::term(Quantity::Entropy, out.entropy),
            Expected::term(Quantity::TopClasses, classes),
            Expected::term(Quantity::Top, top),
            Expected::summed_gradient(
                Quantity::ParameterGradients,
                sum(gradient, &out.grad_logits),
                sum(size, &out.grad_logits_size),
            ),
        ])
    }

    /// All of it in one forward and in one fused call, the latter on a copy of the logits.
    pub(super) fn compute(
        &self,
        (loss, device): (&CrossEntropy<'_>, &Device),
        case: &Case,
        (target, grad_output): (TensorRef<'_>, GradOutput<'_>),
    ) -> Result<Vec<Outcome>> {
        let rows = target.shape();
        let top: Vec<usize> = rows.iter().copied().chain([self.k]).collect();
        let loss_shape = loss.reduction.loss_shape(rows);
        let mut outcomes = Vec::new();
        for pass in ["all of it, forward", "all of it, forward-backward"] {
            let mut one = Tensor::zeros_for("loss", DType::F32, loss_shape)?;
            let [mut logprob, mut entropy] = [
                Tensor::zeros_for("logprob", DType::F32, rows)?,
                Tensor::zeros_for("entropy", DType::F32, rows)?,
            ];
            let mut rank = Tensor::zeros_for("rank", DType::I64, rows)?;
            let top_shape = Shape::new(&top).unwrap_or(rows);
            let mut classes = Tensor::zeros_for("classes", DType::I64, top_shape)?;
            let mut values = Tensor::zeros_for("logprob", DType::F32, top_shape)?;
            let top_k = TopKOut { classes: classes.view_mut(), logprob: values.view_mut() };
            let out = CrossEntropyOut {
                logprob: Some(logprob.view_mut()),
                entropy: Some(entropy.view_mut()),
                rank: self.k.is_multiple_of(2).then(|| rank.view_mut()),
                top_k: (self.k > 0).then_some(top_k),
                ..CrossEntropyOut::loss(one.view_mut())
            };
            if pass.ends_with("forward") {
                loss.forward_into(device, case.input()?, target, out)?;
            } else {
                let mut memory = case.memory.clone();
                let view = typed::strided_mut(&mut memory, &case.shape, case.row_stride)?;
                let upstream = self.upstream(grad_output);
                loss.forward_backward_in_place(device, view, target, upstream, out)?;
                let gradient = typed::strided(&memory, &case.shape, case.row_stride)?;
                outcomes.push(Outcome::new(Quantity::ParameterGradients, pass, gradient)?);
                outcomes.push(case.padding(pass, &memory)?);
            }
            outcomes.extend([
                Outcome::new(Quantity::Loss, pass, one.view())?,
                Outcome::new(Quantity::Output, pass, logprob.view())?,
                Outcome::new(Quantity::Entropy, pass, entropy.view())?,
            ]);
            if self.k.is_multiple_of(2) {
                outcomes.push(Outcome::new(Quantity::Rank, pass, rank.view())?);
            }
            if self.k > 0 {
                outcomes.push(Outcome::new(Quantity::TopClasses, pass, classes.view())?);
                outcomes.push(Outcome::new(Quantity::Top, pass, values.view())?);
            }
        }
        Ok(outcomes)
    }
}
