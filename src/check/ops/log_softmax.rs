//! Log-softmax.

use super::{Call, Draw, First, any_shape, dims, upstream};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::cases::Case;
use crate::check::random::Random;
use crate::check::reference;
use crate::check::subject::{Expected, Outcome, Quantity};
use crate::device::Device;
use crate::spec::log_softmax::LogSoftmax;
use std::fmt;

pub(in crate::check) const DRAW: Draw = Draw { shape: any_shape, call: draw };

#[derive(Debug)]
struct LogSoftmaxCall {
    /// The dimension to go along.
    dim: isize,
    /// Dtype of the output: f32 or the input's.
    output: DType,
    /// Of the input's shape.
    grad_output: Tensor,
}

impl Call for LogSoftmaxCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogSoftmaxCall { dim, output, grad_output } = self;
        write!(f, ", dim {dim}, output {output}, grad_output {}", grad_output.dtype())
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let (x, g) = (case.input()?.to_f64()?, self.grad_output.view().to_f64()?);
        let output = reference::log_softmax(&case.shape, self.dim, &x);
        let grad = reference::log_softmax_grad(&case.shape, self.dim, &x, &g);
        Ok(vec![
            Expected::term(Quantity::Output, output),
            Expected::gradient(Quantity::Gradient, grad),
        ])
    }

    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let input = case.input()?;
        let op = LogSoftmax::dim(self.dim);
        let mut out = Tensor::zeros("output", self.output, input.shape())?;
        op.forward_into(device, input, out.view_mut())?;
        let grad = op.backward(device, input, self.grad_output.view())?;
        Ok(vec![
            Outcome::new(Quantity::Output, "forward", out.view())?,
            Outcome::new(Quantity::Gradient, "backward", grad.view())?,
        ])
    }
}

fn draw(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { dtype, shape, .. } = *first;
    let dim = dims(random, shape.len())[0];
    let grad_output = upstream(random, dtype, shape)?;
    Ok(Box::new(LogSoftmaxCall { dim, output: random.pick(&[DType::F32, dtype]), grad_output }))
}
