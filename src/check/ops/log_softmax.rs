//! Log-softmax.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::bench::log_softmax::LogSoftmaxBench;
use crate::check::bench::{Kind, Measured};
use crate::check::call::bound::Bound;
use crate::check::call::draft::Draft;
use crate::check::call::lines::{FORMS, LETTERS, dimensions, shape};
use crate::check::call::{Role, Setpoint};
use crate::check::case::{Call, Case, Draw, First};
use crate::check::draw::{any_shape, dims, upstream};
use crate::check::entry::{Calls, Entry, Reference, Traits};
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::reference;
use crate::device::Device;
use crate::spec::log_softmax::LogSoftmax;
use std::fmt;

pub(in crate::check) const ENTRY: Entry = Entry {
    name: "log-softmax",
    cases: Draw { shape: any_shape, rest: case },
    calls: Calls { draw, run, expect, saved: None },
    evaluated: None,
    measured: &[Measured {
        name: "log-softmax",
        help: "Output in the input's dtype",
        kind: Kind::Rows(&LogSoftmaxBench),
    }],
    traits: Traits::PLAIN,
};

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
        let mut out = Tensor::zeros_for("output", self.output, input.shape())?;
        op.forward_into(device, input, out.view_mut())?;
        let grad = op.backward(device, input, self.grad_output.view())?;
        Ok(vec![
            Outcome::new(Quantity::Output, "forward", out.view())?,
            Outcome::new(Quantity::Gradient, "backward", grad.view())?,
        ])
    }
}

fn case(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { dtype, shape, .. } = *first;
    let dim = dims(random, shape.len())[0];
    let grad_output = upstream(random, dtype, shape)?;
    Ok(Box::new(LogSoftmaxCall { dim, output: random.pick(&[DType::F32, dtype]), grad_output }))
}

fn draw(d: &mut Draft) {
    let form = d.form(&FORMS);
    let shape = shape(d);
    let dims = dims(&mut d.random, shape.len());
    d.set("dim", Setpoint::Dims(vec![dims[0]]));
    let data = d.numbers(&shape);
    d.given(("input", Role::Read), (d.dtype, &shape, LETTERS), data);
    if form.starts_with("backward") {
        let g = d.normal(&shape, 1.0);
        let dtype = d.random.pick(&[DType::F32, d.dtype]);
        d.given(("grad_output", Role::Read), (dtype, &shape, LETTERS), g);
    }
    match form {
        "forward_into" => {
            let dtype = d.random.pick(&[DType::F32, d.dtype]);
            d.out("output", dtype, &shape, LETTERS);
        }
        "backward_into" => {
            d.out("grad_input", d.dtype, &shape, LETTERS);
        }
        _ => {}
    }
}

/// The dimension of log-softmax, which has one.
fn dimension(b: &Bound<'_>) -> isize {
    dimensions(b).first().copied().unwrap_or(0)
}

fn run(b: &Bound<'_>) -> Result<()> {
    let (op, device, input) = (LogSoftmax::dim(dimension(b)), b.device, b.tensor("input"));
    match b.call.form {
        "forward" => b.give("output", op.forward(device, input)?),
        "forward_into" => op.forward_into(device, input, b.out("output"))?,
        "backward" => b.give("grad_input", op.backward(device, input, b.tensor("grad_output"))?),
        _ => op.backward_into(device, input, b.tensor("grad_output"), b.out("grad_input"))?,
    }
    Ok(())
}

fn expect(b: &Bound<'_>) -> Result<Reference> {
    let (input, dim) = (b.tensor("input"), dimension(b));
    let (x, shape) = (input.to_f64()?, input.shape());
    let output = reference::log_softmax(&shape, dim, &x);
    let mut expected = vec![Expected::term(Quantity::Output, output)];
    if let Some(g) = b.optional("grad_output") {
        let g = g.to_f64()?;
        let grad = reference::log_softmax_grad(&shape, dim, &x, &g);
        // |g| + p·Σ|g|, of which the gradient of |g| is the difference.
        let sizes: Vec<f64> = g.iter().map(|g| g.abs()).collect();
        let of_sizes = reference::log_softmax_grad(&shape, dim, &x, &sizes);
        let sizes = sizes.iter().zip(of_sizes).map(|(g, grad)| 2.0 * g - grad).collect();
        expected.push(Expected::summed_gradient(Quantity::Gradient, grad, sizes));
    }
    Ok(expected.into())
}
