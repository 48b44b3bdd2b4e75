//! Negative log-likelihood.

use super::{Reference, Row};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::check::differential::bound::Bound;
use crate::check::differential::call::Role;
use crate::check::differential::draft::Draft;
use crate::check::reference;
use crate::check::subject::{Expected, Quantity};
use crate::spec::nll::Nll;

pub(super) const ROW: Row = Row { draw, run, expect, saved: None };

const FORMS: [&str; 6] = [
    "forward",
    "forward_into",
    "backward",
    "backward_into",
    "forward_backward_in_place",
    "forward_backward",
];

fn draw(d: &mut Draft) {
    let form = d.form(&FORMS);
    let shape = d.logits_shape();
    let role = match form {
        "forward_backward_in_place" => Role::Both,
        "forward_backward" => Role::Consumed,
        _ => Role::Read,
    };
    let data = d.numbers(&shape.shape);
    if form != "backward_into" {
        d.given(("input", role), (d.dtype, &shape.shape, shape.letters), data);
    }
    d.targets("target", shape.classes, &shape.rows, &shape.row_letters);
    d.weight("weight", &[shape.classes], "C");
    let reduction = d.reduction(false);
    let (loss, letters) = shape.loss(reduction);
    if !form.starts_with("forward_into") && form != "forward" {
        d.upstream("grad_output", loss, letters);
    }
    if matches!(form, "forward_into" | "forward_backward_in_place") {
        d.out("loss", DType::F32, loss, letters);
    }
    if form == "backward_into" {
        d.out("grad_input", d.dtype, &shape.shape, shape.letters);
    }
}

fn loss<'a>(b: &Bound<'a>) -> Nll<'a> {
    let loss = Nll::default().ignore_index(b.integer("ignore_index")).reduction(b.reduction());
    match b.optional("weight") {
        Some(weight) => loss.weight(weight),
        None => loss,
    }
}

fn run(b: &Bound<'_>) -> Result<()> {
    let (nll, device, target, g) =
        (loss(b), b.device, b.tensor("target"), b.upstream("grad_output"));
    match b.call.form {
        "forward" => b.give("loss", nll.forward(device, b.tensor("input"), target)?),
        "forward_into" => nll.forward_into(device, b.tensor("input"), target, b.out("loss"))?,
        "backward" => b.give("grad_input", nll.backward(device, b.tensor("input"), target, g)?),
        "backward_into" => nll.backward_into(device, target, g, b.out("grad_input"))?,
        "forward_backward_in_place" => {
            nll.forward_backward_in_place(device, b.out("input"), target, g, b.out("loss"))?;
        }
        _ => {
            let grad = nll.forward_backward(device, b.consumed("input"), target, g)?;
            b.give("loss", grad.loss);
            b.give("grad_input", grad.grad_input);
        }
    }
    Ok(())
}

fn expect(b: &Bound<'_>) -> Result<Reference> {
    let input = b.tensor("input");
    let target = reference::indices(b.tensor("target"))?;
    let g = reference::upstream(b.upstream("grad_output"))?;
    let out = reference::nll(&loss(b), &input.shape(), &input.to_f64()?, &target, &g);
    Ok(vec![
        Expected::loss(Quantity::Loss, out.loss, out.loss_size),
        Expected::gradient(Quantity::Gradient, out.grad_input),
    ]
    .into())
}
