//! Jensen–Shannon divergence from logits.

use super::{Reference, Row, roughness};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::check::differential::bound::Bound;
use crate::check::differential::call::Role;
use crate::check::differential::draft::Draft;
use crate::check::reference;
use crate::check::subject::{Expected, Quantity};
use crate::spec::js_div_logits::{JsDivLogits, JsDivLogitsGradOut};

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
    let (data, target) = (d.numbers(&shape.shape), d.numbers(&shape.shape));
    // A teacher that is near, in half of all calls.
    let near = d.random.one_in(2);
    let near: Vec<f64> = match near {
        true => data.iter().map(|x| x + 1e-3 * f64::from(d.random.normal())).collect(),
        false => target,
    };
    d.given(("logits", role), (d.dtype, &shape.shape, shape.letters), data);
    d.given(("target", Role::Read), (d.dtype, &shape.shape, shape.letters), near);
    d.targets("labels", shape.classes, &shape.rows, &shape.row_letters);
    let labelled = d.random.one_in(2);
    if let Some(labels) = d.call.tensors.last_mut() {
        (labels.optional, labels.present) = (true, labelled);
    }
    let reduction = d.reduction(true);
    d.number("beta", 0.5, &[0.1, 0.9, 0.0, 1.0, 1e-3, 1e-6]);
    d.number("logit_scale", 1.0, &[0.7, 2.0]);
    d.number("teacher_scale", 1.0, &[0.25, 1.5]);
    let (loss, letters) = shape.loss(reduction);
    if form.contains("backward") {
        d.upstream("grad_output", loss, letters);
    }
    if form == "backward_into" {
        d.out("grad_logits", d.dtype, &shape.shape, shape.letters);
    }
    if matches!(form, "backward_into" | "forward_backward_in_place") {
        d.optional_out("grad_target", d.dtype, &shape.shape, shape.letters);
    }
    if matches!(form, "forward_into" | "forward_backward_in_place") {
        d.out("loss", DType::F32, loss, letters);
    }
}

fn loss<'a>(b: &Bound<'a>) -> JsDivLogits<'a> {
    let loss = JsDivLogits::default()
        .beta(b.float("beta"))
        .reduction(b.reduction())
        .logit_scale(b.float("logit_scale"))
        .teacher_scale(b.float("teacher_scale"))
        .ignore_index(b.integer("ignore_index"));
    match b.optional("labels") {
        Some(labels) => loss.labels(labels),
        None => loss,
    }
}

fn run(b: &Bound<'_>) -> Result<()> {
    let (loss, device, target) = (loss(b), b.device, b.tensor("target"));
    let g = b.upstream("grad_output");
    let gradients =
        |name| JsDivLogitsGradOut { logits: b.out(name), target: b.optional_out("grad_target") };
    match b.call.form {
        "forward" => b.give("loss", loss.forward(device, b.tensor("logits"), target)?),
        "forward_into" => loss.forward_into(device, b.tensor("logits"), target, b.out("loss"))?,
        "backward" => b.give("grad_logits", loss.backward(device, b.tensor("logits"), target, g)?),
        "backward_into" => {
            loss.backward_into(device, b.tensor("logits"), target, g, gradients("grad_logits"))?;
        }
        "forward_backward_in_place" => {
            let out = b.out("loss");
            loss.forward_backward_in_place(device, gradients("logits"), target, g, out)?;
        }
        _ => {
            let grad = loss.forward_backward(device, b.consumed("logits"), target, g)?;
            b.give("loss", grad.loss);
            b.give("grad_logits", grad.grad_logits);
        }
    }
    Ok(())
}

fn expect(b: &Bound<'_>) -> Result<Reference> {
    let (logits, target) = (b.tensor("logits"), b.tensor("target"));
    let (x, y) = (logits.to_f64()?, target.to_f64()?);
    let labels = b.optional("labels").map(reference::indices).transpose()?;
    let g = reference::upstream(b.upstream("grad_output"))?;
    let (loss, shape) = (loss(b), logits.shape());
    let out = reference::js_div_logits(&loss, &shape, (&x, &y), labels.as_deref(), &g);
    let gradient = Expected::summed_gradient;
    let expected = [
        Expected::loss(Quantity::Loss, out.loss, out.loss_size),
        gradient(Quantity::Gradient, out.grad_logits, out.grad_logits_size),
        gradient(Quantity::TargetGradient, out.grad_target, out.grad_target_size),
    ];
    let rough = roughness(logits.dtype());
    Ok(expected.map(|one| one.coarser(rough)).to_vec().into())
}
