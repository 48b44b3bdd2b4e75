//! Log-probability and entropy.

use super::{Reference, Row};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::differential::bound::Bound;
use crate::check::differential::call::{Role, Setpoint};
use crate::check::differential::draft::Draft;
use crate::check::reference;
use crate::check::subject::{Expected, Quantity};
use crate::spec::logprob_entropy::{
    LogprobEntropy, LogprobEntropyOut, LogprobEntropyOutput, LogprobEntropyUpstream,
};

pub(super) const ROW: Row = Row { draw, run, expect, saved: Some(("lse", lse)) };

const FORMS: [&str; 8] = [
    "forward",
    "forward_with_ranks",
    "forward_into",
    "backward",
    "backward_into",
    "backward_in_place",
    "forward_backward_in_place",
    "forward_backward",
];

fn draw(d: &mut Draft) {
    let form = d.form(&FORMS);
    let shape = d.logits_shape();
    let role = match form {
        "backward_in_place" | "forward_backward_in_place" => Role::Both,
        "forward_backward" => Role::Consumed,
        _ => Role::Read,
    };
    let (rows, letters) = (&shape.rows[..], &shape.row_letters[..]);
    let data = d.numbers(&shape.shape);
    d.given(("logits", role), (d.dtype, &shape.shape, shape.letters), data);
    d.targets("target", shape.classes, rows, letters);
    d.number("logit_scale", 1.0, &[0.5, 2.0, 0.7]);
    d.option("softcap", Setpoint::Unset, &[Setpoint::Number(30.0), Setpoint::Number(0.5)]);
    if form.contains("backward") {
        d.upstream("grad_logprob", rows, letters);
        d.upstream("grad_entropy", rows, letters);
    }
    if form.starts_with("backward") {
        d.given(("lse", Role::Read), (DType::F32, rows, letters), Vec::new());
    }
    if form == "backward_into" {
        d.out("grad_logits", d.dtype, &shape.shape, shape.letters);
    }
    if matches!(form, "forward_into" | "forward_backward_in_place") {
        d.out("logprob", DType::F32, rows, letters);
        d.out("entropy", DType::F32, rows, letters);
        d.optional_out("lse", DType::F32, rows, letters);
        d.optional_out("argmax", DType::I64, rows, letters);
        d.optional_out("rank", DType::I64, rows, letters);
    }
}

fn loss(b: &Bound<'_>) -> LogprobEntropy {
    LogprobEntropy::default()
        .ignore_index(b.integer("ignore_index"))
        .logit_scale(b.float("logit_scale"))
        .softcap(b.optional_number("softcap").map(|cap| cap as f32))
}

fn upstream<'a>(b: &Bound<'a>) -> LogprobEntropyUpstream<'a> {
    let [grad_logprob, grad_entropy] =
        ["grad_logprob", "grad_entropy"].map(|name| b.upstream(name));
    LogprobEntropyUpstream { grad_logprob, grad_entropy }
}

fn outputs<'a>(b: &Bound<'a>) -> LogprobEntropyOut<'a> {
    LogprobEntropyOut {
        lse: b.optional_out("lse"),
        argmax: b.optional_out("argmax"),
        rank: b.optional_out("rank"),
        ..LogprobEntropyOut::new(b.out("logprob"), b.out("entropy"))
    }
}

fn give(b: &Bound<'_>, out: LogprobEntropyOutput) {
    b.give("logprob", out.logprob);
    b.give("entropy", out.entropy);
    b.give("lse", out.lse);
}

fn run(b: &Bound<'_>) -> Result<()> {
    let (op, device, target) = (loss(b), b.device, b.tensor("target"));
    match b.call.form {
        "forward" => give(b, op.forward(device, b.tensor("logits"), target)?),
        "forward_with_ranks" => {
            let (out, ranks) = op.forward_with_ranks(device, b.tensor("logits"), target)?;
            give(b, out);
            b.give("argmax", ranks.argmax);
            b.give("rank", ranks.rank);
        }
        "forward_into" => op.forward_into(device, b.tensor("logits"), target, outputs(b))?,
        "backward" => {
            let (logits, lse) = (b.tensor("logits"), b.tensor("lse"));
            b.give("grad_logits", op.backward(device, logits, target, lse, upstream(b))?);
        }
        "backward_into" => {
            let saved = (target, b.tensor("lse"));
            let grad = b.out("grad_logits");
            op.backward_into(device, b.tensor("logits"), saved, upstream(b), grad)?;
        }
        "backward_in_place" => {
            op.backward_in_place(device, b.out("logits"), target, b.tensor("lse"), upstream(b))?;
        }
        "forward_backward_in_place" => {
            let logits = b.out("logits");
            op.forward_backward_in_place(device, logits, target, upstream(b), outputs(b))?;
        }
        _ => {
            let grad = op.forward_backward(device, b.consumed("logits"), target, upstream(b))?;
            give(b, grad.output);
            b.give("grad_logits", grad.grad_logits);
        }
    }
    Ok(())
}

fn lse(b: &Bound<'_>) -> Result<Tensor> {
    Ok(loss(b).forward(b.device, b.tensor("logits"), b.tensor("target"))?.lse)
}

fn expect(b: &Bound<'_>) -> Result<Reference> {
    let (logits, op) = (b.tensor("logits"), loss(b));
    let (x, shape) = (logits.to_f64()?, logits.shape());
    let target = reference::indices(b.tensor("target"))?;
    let upstream = upstream(b);
    let grad_logprob = reference::upstream(upstream.grad_logprob)?;
    let grad_entropy = reference::upstream(upstream.grad_entropy)?;
    let g = [&grad_logprob[..], &grad_entropy[..]];
    let out = reference::logprob_entropy(&op, &shape, &x, &target, g);
    let [argmax, rank] = reference::ranks(&shape, &x, &target, op.rows.ignore_index);
    let coarse = reference::coarseness(&op.rows, &x);
    let expected = [
        Expected::term(Quantity::Output, out.logprob),
        Expected::term(Quantity::Entropy, out.entropy),
        Expected::term(Quantity::Lse, out.lse),
        Expected::summed_gradient(Quantity::Gradient, out.grad_logits, out.grad_logits_size),
        Expected::term(Quantity::Argmax, argmax),
        Expected::term(Quantity::Rank, rank),
    ];
    Ok(expected.map(|one| one.coarser(coarse)).to_vec().into())
}
