//! Log-sum-exp.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::bench::logsumexp::LogsumexpBench;
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
use crate::spec::logsumexp::LogSumExp;
use std::fmt;

pub(in crate::check) const ENTRY: Entry = Entry {
    name: "logsumexp",
    cases: Draw { shape: any_shape, rest: case },
    calls: Calls { draw, run, expect, saved: Some(("output", lse)) },
    evaluated: None,
    measured: &[Measured {
        name: "logsumexp",
        help: "Along rows",
        kind: Kind::Rows(&LogsumexpBench),
    }],
    traits: Traits::PLAIN,
};

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

fn case(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
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

fn draw(d: &mut Draft) {
    let form = d.form(&FORMS);
    let shape = shape(d);
    let mut along = dims(&mut d.random, shape.len());
    along.truncate(1 + d.random.below(2));
    let keepdim = d.random.one_in(2);
    let reduces = |at: usize| {
        let rank = shape.len().max(1) as isize;
        along.iter().any(|dim| dim.rem_euclid(rank) == at as isize)
    };
    let kept: Vec<usize> = (0..shape.len()).filter(|&at| keepdim || !reduces(at)).collect();
    let letter = |at: usize| LETTERS.chars().nth(at).unwrap_or(' ');
    let letters: String =
        kept.iter().map(|&at| if reduces(at) { ' ' } else { letter(at) }).collect();
    let output: Vec<usize> =
        kept.iter().map(|&at| if reduces(at) { 1 } else { shape[at] }).collect();
    d.set("dim", Setpoint::Dims(along));
    d.set("keepdim", Setpoint::Flag(keepdim));
    let data = d.numbers(&shape);
    d.given(("input", Role::Read), (d.dtype, &shape, LETTERS), data);
    if form.starts_with("backward") {
        d.given(("output", Role::Read), (DType::F32, &output, &letters), Vec::new());
        let g = d.normal(&output, 1.0);
        let dtype = d.random.pick(&[DType::F32, d.dtype]);
        d.given(("grad_output", Role::Read), (dtype, &output, &letters), g);
    }
    match form {
        "forward_into" => {
            d.out("lse", DType::F32, &output, &letters);
        }
        "backward_into" => {
            d.out("grad_input", d.dtype, &shape, LETTERS);
        }
        _ => {}
    }
}

fn logsumexp(b: &Bound<'_>) -> Result<LogSumExp> {
    Ok(LogSumExp::dims(&dimensions(b))?.keepdim(b.flag("keepdim")))
}

fn run(b: &Bound<'_>) -> Result<()> {
    let (op, device, input) = (logsumexp(b)?, b.device, b.tensor("input"));
    match b.call.form {
        "forward" => b.give("lse", op.forward(device, input)?),
        "forward_into" => op.forward_into(device, input, b.out("lse"))?,
        form => {
            let (output, g) = (b.tensor("output"), b.tensor("grad_output"));
            if form == "backward_into" {
                op.backward_into(device, input, output, g, b.out("grad_input"))?;
            } else {
                b.give("grad_input", op.backward(device, input, output, g)?);
            }
        }
    }
    Ok(())
}

fn lse(b: &Bound<'_>) -> Result<Tensor> {
    logsumexp(b)?.forward(b.device, b.tensor("input"))
}

fn expect(b: &Bound<'_>) -> Result<Reference> {
    let (input, dims) = (b.tensor("input"), dimensions(b));
    let (x, shape) = (input.to_f64()?, input.shape());
    let mut expected = vec![Expected::term(Quantity::Lse, reference::logsumexp(&shape, &dims, &x))];
    if let Some(g) = b.optional("grad_output") {
        let grad = reference::logsumexp_grad(&shape, &dims, &x, &g.to_f64()?);
        expected.push(Expected::gradient(Quantity::Gradient, grad));
    }
    Ok(expected.into())
}
