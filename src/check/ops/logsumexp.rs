//! Log-sum-exp.

use super::{Call, Draw, First, any_shape, dims, upstream};
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::cases::Case;
use crate::check::random::Random;
use crate::check::reference;
use crate::check::subject::{Expected, Outcome, Quantity};
use crate::device::Device;
use crate::spec::logsumexp::LogSumExp;
use std::fmt;

pub(in crate::check) const DRAW: Draw = Draw { shape: any_shape, call: draw };

#[derive(Debug)]
struct LogSumExpCall {
    /// The dimensions to go along.
    dims: Vec<isize>,
    /// Whether they stay, with size 1.
    keepdim: bool,
    /// Of the output's shape.
    grad_output: Tensor,
}

impl Call for LogSumExpCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogSumExpCall { dims, keepdim, grad_output } = self;
        write!(f, ", dims {dims:?}, keepdim {keepdim}, grad_output {}", grad_output.dtype())
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let (x, g) = (case.input()?.to_f64()?, self.grad_output.view().to_f64()?);
        let output = reference::logsumexp(&case.shape, &self.dims, &x);
        let grad = reference::logsumexp_grad(&case.shape, &self.dims, &x, &g);
        Ok(vec![
            Expected::term(Quantity::Lse, output),
            Expected::gradient(Quantity::Gradient, grad),
        ])
    }

    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let input = case.input()?;
        let op = LogSumExp::dims(&self.dims)?.keepdim(self.keepdim);
        let lse = op.forward(device, input)?;
        let grad = op.backward(device, input, lse.view(), self.grad_output.view())?;
        Ok(vec![
            Outcome::new(Quantity::Lse, "forward", lse.view())?,
            Outcome::new(Quantity::Gradient, "backward", grad.view())?,
        ])
    }
}

fn draw(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { dtype, shape, .. } = *first;
    let mut dims = dims(random, shape.len());
    dims.truncate(1 + random.below(2));
    let keepdim = random.one_in(2);
    let along = |d: usize| {
        let rank = shape.len().max(1) as isize;
        dims.iter().any(|dim| dim.rem_euclid(rank) == d as isize)
    };
    let reduced: Vec<usize> = (0..shape.len())
        .filter(|&d| keepdim || !along(d))
        .map(|d| if along(d) { 1 } else { shape[d] })
        .collect();
    let grad_output = upstream(random, dtype, &reduced)?;
    Ok(Box::new(LogSumExpCall { dims, keepdim, grad_output }))
}
