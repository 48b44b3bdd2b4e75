//! The elementwise losses on two tensors of one shape: mean, gradient to the input.

use super::Bench;
use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::base::reduction::Reduction;
use crate::check::bench::data::{Data, Large, host, part, per_row};
use crate::check::compare;
use crate::check::elementwise::{Description, Domain, ElementLoss, Given};
use crate::check::reference;
use crate::check::reference::{ElementwiseCall, Values};
use crate::device::Device;
use crate::measure::{Pass, Traffic};
use crate::spec::elementwise::ElementwiseGradOut;
use crate::spec::grad_output::GradOutput;
use rayon::prelude::*;

/// One of them, with its default options.
pub(in crate::check) struct ElementwiseBench(pub(in crate::check) &'static Description);

/// Elements that are checked one by one, or summed by one thread at a time.
const WINDOW: usize = 16 * 1024;

/// Two stretches of the tensors by the reference, as a part of the mean of `n`.
fn expected(loss: ElementLoss, n: usize, x: &[f64], y: &[f64]) -> reference::ElementwiseReference {
    let shape = [x.len()];
    reference::elementwise(&ElementwiseCall {
        loss: &loss,
        reduction: Reduction::Sum,
        input: Values { shape: &shape, data: x },
        target: Values { shape: &shape, data: y },
        weight: None,
        third: None,
        grad_output: &[1.0 / n as f64],
    })
}

impl Bench for ElementwiseBench {
    fn traffic(&self, pass: Pass) -> Traffic {
        Traffic::elementwise(pass)
    }

    fn consumes(&self, pass: Pass) -> bool {
        pass == Pass::ForwardBackward
    }

    fn input(&self) -> Large {
        match self.0.input {
            Domain::Probabilities => Large::Probabilities,
            Domain::Any | Domain::Logarithms | Domain::Signs | Domain::Counts => Large::Logits,
        }
    }

    fn large(&self, _: Pass) -> Option<Large> {
        Some(match self.0.with(&[]).target() {
            Domain::Probabilities => Large::Probabilities,
            Domain::Any | Domain::Logarithms => Large::Normal,
            Domain::Signs => Large::Signs,
            Domain::Counts => Large::Counts,
        })
    }

    fn run(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<(), Error> {
        let given = Given { weight: None, third: None, reduction: Reduction::Mean };
        let op = self.0.with(&[]).make(given);
        let input = data.logits.view();
        // The harness has made it.
        let target = data.upstream.as_ref().unwrap_or(&data.logits).view();
        let loss = per_row(&mut data.loss, &[])?;
        let g = GradOutput::default();
        match pass {
            Pass::Forward => op.forward_into(device, input, target, loss),
            Pass::Backward => {
                let grad_input = Some(data.work.view_mut());
                let grads = ElementwiseGradOut { grad_input, ..Default::default() };
                op.backward_into(device, input, target, g, grads)
            }
            Pass::ForwardBackward => {
                op.forward_backward_in_place(device, data.work.view_mut(), target, g, loss)
            }
        }
    }

    fn check(&self, pass: Pass, _: &Device, data: &mut Data) -> Result<Option<String>, Error> {
        let (loss_of, n) = (self.0.with(&[]), data.rows * data.classes);
        let other = data.upstream.as_ref().unwrap_or(&data.logits);
        let window = |from: usize| from..(from + WINDOW).min(n);
        if pass != Pass::Backward {
            // A mean over all elements needs all of them.
            let (x, y) = (host(&data.logits)?, host(other)?);
            let part =
                |from: usize| expected(loss_of, n, &x.part(window(from)), &y.part(window(from)));
            let (loss, size) = (0..n.div_ceil(WINDOW))
                .into_par_iter()
                .map(|i| part(i * WINDOW))
                .map(|part| (part.loss[0], part.loss_size[0]))
                .reduce(|| (0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
            let [loss, size] = [loss, size].map(|sum| [sum / n as f64]);
            let got = data.numbers(&data.loss)?[0];
            let worst = compare::losses(DType::F32, &[got], &loss, &size);
            if !worst.agrees() {
                return Ok(Some(format!("mean loss: {worst}")));
            }
        }
        if pass == Pass::Forward {
            return Ok(None);
        }
        for from in [0, n / 2, n.saturating_sub(WINDOW)] {
            let [x, y, got] =
                [&data.logits, other, &data.work].map(|tensor| part(tensor, window(from)));
            let expected = expected(loss_of, n, &x?, &y?);
            let (grad, size, got) = (expected.grad_input, expected.grad_input_size, got?);
            let worst = compare::summed_gradients(data.dtype, &got, &grad, &size);
            if !worst.agrees() {
                return Ok(Some(format!("gradient from element {from} on: {worst}")));
            }
        }
        Ok(None)
    }
}
