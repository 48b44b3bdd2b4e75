//! Log-softmax and log-sum-exp, over any dimension.

use super::{Reference, Row};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::differential::bound::Bound;
use crate::check::differential::call::{Role, Setpoint};
use crate::check::differential::draft::Draft;
use crate::check::ops::dims;
use crate::check::reference;
use crate::check::subject::{Expected, Quantity};
use crate::spec::log_softmax::LogSoftmax;
use crate::spec::logsumexp::LogSumExp;

pub(super) const LOG_SOFTMAX: Row =
    Row { draw: draw_log_softmax, run: run_log_softmax, expect: expect_log_softmax, saved: None };
pub(super) const LOGSUMEXP: Row =
    Row { draw: draw_logsumexp, run: run_logsumexp, expect: expect_logsumexp, saved: SAVED };

const SAVED: Option<super::Saved> = Some(("output", lse));

const FORMS: [&str; 4] = ["forward", "forward_into", "backward", "backward_into"];

/// Letters of up to four dimensions.
const LETTERS: &str = "NCXY";

/// Up to four dimensions.
fn shape(d: &mut Draft) -> Vec<usize> {
    let long = d.random.pick(&[1, 2, 3, 7, 8, 9, 17, 33, 65, 257, 1031, 2049]);
    let mut shape: Vec<usize> = (0..d.random.below(4)).map(|_| d.random.below(4)).collect();
    if !d.random.one_in(10) {
        shape.insert(d.random.below(shape.len() + 1), long);
    }
    shape
}

fn draw_log_softmax(d: &mut Draft) {
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

fn dimensions(b: &Bound<'_>) -> Vec<isize> {
    match b.call.setting("dim") {
        Setpoint::Dims(dims) => dims.clone(),
        _ => Vec::new(),
    }
}

/// The dimension of log-softmax, which has one.
fn dimension(b: &Bound<'_>) -> isize {
    dimensions(b).first().copied().unwrap_or(0)
}

fn run_log_softmax(b: &Bound<'_>) -> Result<()> {
    let (op, device, input) = (LogSoftmax::dim(dimension(b)), b.device, b.tensor("input"));
    match b.call.form {
        "forward" => b.give("output", op.forward(device, input)?),
        "forward_into" => op.forward_into(device, input, b.out("output"))?,
        "backward" => b.give("grad_input", op.backward(device, input, b.tensor("grad_output"))?),
        _ => op.backward_into(device, input, b.tensor("grad_output"), b.out("grad_input"))?,
    }
    Ok(())
}

fn expect_log_softmax(b: &Bound<'_>) -> Result<Reference> {
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

fn draw_logsumexp(d: &mut Draft) {
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

fn run_logsumexp(b: &Bound<'_>) -> Result<()> {
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

fn expect_logsumexp(b: &Bound<'_>) -> Result<Reference> {
    let (input, dims) = (b.tensor("input"), dimensions(b));
    let (x, shape) = (input.to_f64()?, input.shape());
    let mut expected = vec![Expected::term(Quantity::Lse, reference::logsumexp(&shape, &dims, &x))];
    if let Some(g) = b.optional("grad_output") {
        let grad = reference::logsumexp_grad(&shape, &dims, &x, &g.to_f64()?);
        expected.push(Expected::gradient(Quantity::Gradient, grad));
    }
    Ok(expected.into())
}
