//! The elementwise losses: one way to draw a call, whichever the loss.

use super::{Reference, Row, roughness};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::TensorRef;
use crate::check::cases::Op;
use crate::check::differential::bound::Bound;
use crate::check::differential::call::{Role, Setpoint};
use crate::check::differential::draft::Draft;
use crate::check::ops::elementwise::{other_shape, smaller_shape, values, weighted};
use crate::check::reference;
use crate::check::reference::{ElementLoss, ElementwiseCall};
use crate::check::subject::{Expected, Quantity};
use crate::spec::bce_with_logits::BceWithLogits;
use crate::spec::elementwise::{Elementwise, ElementwiseGradOut, Wrt, sealed};
use crate::spec::huber::Huber;
use crate::spec::js_div::JsDiv;
use crate::spec::kl_div::KlDiv;
use crate::spec::l1::L1 as L1Op;
use crate::spec::mse::Mse;
use crate::spec::smooth_l1::SmoothL1;

pub(super) const MSE: Row = ROW;
pub(super) const L1: Row = ROW;
pub(super) const SMOOTH_L1: Row = ROW;
pub(super) const HUBER: Row = ROW;
pub(super) const BCE_WITH_LOGITS: Row = ROW;
pub(super) const KL_DIV: Row = ROW;
pub(super) const JS_DIV: Row = ROW;

const ROW: Row = Row { draw, run, expect, saved: None };

const FORMS: [&str; 7] = [
    "forward",
    "forward_into",
    "backward",
    "backward_into",
    "forward_backward",
    "forward_backward_into",
    "forward_backward_in_place",
];

/// Up to four dimensions, many of size 1, of which one may be long.
fn shape(d: &mut Draft) -> Vec<usize> {
    let mut shape: Vec<usize> =
        (0..d.random.below(4)).map(|_| d.random.pick(&[0, 1, 1, 2, 3, 5])).collect();
    if !d.random.one_in(8) {
        let long = d.random.pick(&[1, 2, 7, 8, 33, 255, 256, 257, 1023, 1025]);
        shape.insert(d.random.below(shape.len() + 1), long);
    }
    shape
}

fn draw(d: &mut Draft) {
    let (form, op) = (d.form(&FORMS), d.call.op);
    let in_place = form == "forward_backward_in_place";
    let shape = shape(d);
    let divergence = matches!(op, Op::KlDiv | Op::JsDiv);
    let equal = in_place || op == Op::BceWithLogits || d.random.one_in(2);
    let target_shape = if equal { shape.clone() } else { other_shape(&mut d.random, &shape) };
    let result = reference::broadcast(&shape, &target_shape);

    let data = d.numbers(&shape);
    let target = target(d, &data, &target_shape);
    let role = if in_place { Role::Both } else { Role::Read };
    d.given(("input", role), (d.dtype, &shape, &letters(&shape)), data);
    d.given(("target", Role::Read), (d.dtype, &target_shape, &letters(&target_shape)), target);
    match op {
        Op::SmoothL1 => d.number("beta", 1.0, &[0.0, 0.3, 7.0]),
        Op::Huber => d.number("delta", 1.0, &[0.01, 0.7, 20.0]),
        Op::KlDiv => d.option("log_target", Setpoint::Flag(false), &[Setpoint::Flag(true)]),
        Op::JsDiv => d.number("beta", 0.5, &[0.1, 0.9, 0.0, 1.0]),
        _ => {}
    }
    if !divergence {
        let bce = op == Op::BceWithLogits;
        let of = if bce { smaller_shape(&mut d.random, &shape) } else { shape.clone() };
        d.weight("weight", &of, &letters(&of));
        // But for binary cross entropy, weights and broadcasting do not go together.
        if let Some(weight) = d.call.tensors.last_mut() {
            weight.present &= equal;
        }
        if bce {
            let of = smaller_shape(&mut d.random, &shape);
            d.weight("pos_weight", &of, &letters(&of));
        }
    }
    let loss: &[usize] = match d.reduction(divergence) {
        Reduction::None => &result,
        Reduction::Sum | Reduction::Mean | Reduction::BatchMean => &[],
    };
    if form.contains("backward") {
        d.upstream("grad_output", loss, &letters(loss));
    }
    if matches!(form, "backward" | "forward_backward") {
        d.option(
            "wrt",
            Setpoint::Word("both"),
            &[Setpoint::Word("input"), Setpoint::Word("target")],
        );
    }
    if matches!(form, "backward_into" | "forward_backward_into") {
        d.optional_out("grad_input", d.dtype, &shape, &letters(&shape));
        d.optional_out("grad_target", d.dtype, &target_shape, &letters(&target_shape));
    }
    if matches!(form, "forward_into" | "forward_backward_into" | "forward_backward_in_place") {
        d.out("loss", DType::F32, loss, &letters(loss));
    }
}

/// Letters of sizes above 1, by dimension from the last on, as broadcasting has them.
fn letters(shape: &[usize]) -> String {
    let letter = |(i, &n): (usize, &usize)| match n {
        1 => ' ',
        _ => ['1', '2', '3', '4'].get(shape.len() - 1 - i).copied().unwrap_or(' '),
    };
    shape.iter().enumerate().map(letter).collect()
}

/// Targets: those that the loss is for, or any numbers; near the input in some calls.
fn target(d: &mut Draft, input: &[f64], shape: &[usize]) -> Vec<f64> {
    let count: usize = shape.iter().product();
    let probabilities = matches!(d.call.op, Op::KlDiv | Op::BceWithLogits);
    match (d.random.below(4), input.is_empty()) {
        (0, false) => {
            let near = d.random.pick(&[0.0, 1e-6, 1e-3]);
            let one = |i: usize, random: &mut crate::check::random::Random| {
                input[i % input.len()] + near * f64::from(random.normal())
            };
            (0..count).map(|i| one(i, &mut d.random)).collect()
        }
        (1, _) => d.numbers(shape),
        _ if probabilities => (0..count).map(|_| d.random.unit()).collect(),
        _ => d.normal(shape, 2.5),
    }
}

fn element_loss(b: &Bound<'_>) -> ElementLoss {
    match b.call.op {
        Op::L1 => ElementLoss::L1,
        Op::SmoothL1 => ElementLoss::SmoothL1 { beta: b.float("beta") },
        Op::Huber => ElementLoss::Huber { delta: b.float("delta") },
        Op::BceWithLogits => ElementLoss::BceWithLogits,
        Op::KlDiv => ElementLoss::KlDiv { log_target: b.flag("log_target") },
        Op::JsDiv => ElementLoss::JsDiv { beta: b.float("beta") },
        _ => ElementLoss::Mse,
    }
}

fn run(b: &Bound<'_>) -> Result<()> {
    let weight = b.optional("weight");
    match element_loss(b) {
        ElementLoss::Mse => forms(b, weighted(Mse::default(), weight)),
        ElementLoss::L1 => forms(b, weighted(L1Op::default(), weight)),
        ElementLoss::SmoothL1 { beta } => {
            forms(b, weighted(SmoothL1::default().beta(beta), weight))
        }
        ElementLoss::Huber { delta } => forms(b, weighted(Huber::default().delta(delta), weight)),
        ElementLoss::BceWithLogits => {
            let op = BceWithLogits::default();
            let op = b.optional("pos_weight").map_or(op.clone(), |pos| op.pos_weight(pos));
            forms(b, weighted(op, weight))
        }
        ElementLoss::KlDiv { log_target } => forms(b, KlDiv::default().log_target(log_target)),
        ElementLoss::JsDiv { beta } => forms(b, JsDiv::default().beta(beta)),
    }
}

fn forms<L: sealed::Loss>(b: &Bound<'_>, op: Elementwise<'_, L>) -> Result<()> {
    let op = op.reduction(b.reduction());
    let (device, y, g) = (b.device, b.tensor("target"), b.upstream("grad_output"));
    let wrt = match b.word("wrt") {
        "input" => Wrt::Input,
        "target" => Wrt::Target,
        _ => Wrt::Both,
    };
    let gradients = || ElementwiseGradOut {
        grad_input: b.optional_out("grad_input"),
        grad_target: b.optional_out("grad_target"),
    };
    let give = |grads: crate::spec::elementwise::ElementwiseGrad| {
        for (name, grad) in [("grad_input", grads.grad_input), ("grad_target", grads.grad_target)] {
            if let Some(grad) = grad {
                b.give(name, grad);
            }
        }
    };
    match b.call.form {
        "forward" => b.give("loss", op.forward(device, b.tensor("input"), y)?),
        "forward_into" => op.forward_into(device, b.tensor("input"), y, b.out("loss"))?,
        "backward" => give(op.backward(device, b.tensor("input"), y, g, wrt)?),
        "backward_into" => op.backward_into(device, b.tensor("input"), y, g, gradients())?,
        "forward_backward" => {
            let (loss, grads) = op.forward_backward(device, b.tensor("input"), y, g, wrt)?;
            b.give("loss", loss);
            give(grads);
        }
        "forward_backward_into" => {
            let out = (b.out("loss"), gradients());
            op.forward_backward_into(device, b.tensor("input"), y, g, out)?;
        }
        _ => op.forward_backward_in_place(device, b.out("input"), y, g, b.out("loss"))?,
    }
    Ok(())
}

fn expect(b: &Bound<'_>) -> Result<Reference> {
    let of = |tensor: TensorRef<'_>| {
        Ok::<_, crate::base::error::Error>((tensor.shape(), tensor.to_f64()?))
    };
    let owned = |name: &str| b.optional(name).map(of).transpose();
    let (x, y) = (of(b.tensor("input"))?, of(b.tensor("target"))?);
    let [weight, pos_weight] = [owned("weight")?, owned("pos_weight")?];
    let out = reference::elementwise(&ElementwiseCall {
        loss: element_loss(b),
        reduction: b.reduction(),
        input: values(&x),
        target: values(&y),
        weight: weight.as_ref().map(values),
        pos_weight: pos_weight.as_ref().map(values),
        grad_output: &reference::upstream(b.upstream("grad_output"))?,
    });
    let gradient = Expected::summed_gradient;
    let expected = [
        Expected::loss(Quantity::Loss, out.loss, out.loss_size),
        gradient(Quantity::Gradient, out.grad_input, out.grad_input_size),
        gradient(Quantity::TargetGradient, out.grad_target, out.grad_target_size),
    ];
    let rough = roughness(b.tensor("input").dtype());
    Ok(expected.map(|one| one.coarser(rough)).to_vec().into())
}
