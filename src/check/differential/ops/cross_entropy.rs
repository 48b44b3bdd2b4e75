//! Cross entropy: with class indices, and against probabilities or a teacher's logits.

use super::{Reference, Row};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::Tensor;
use crate::check::cases::Op;
use crate::check::differential::bound::Bound;
use crate::check::differential::call::{Role, Setpoint};
use crate::check::differential::draft::{Draft, LogitsShape};
use crate::check::reference;
use crate::check::subject::{Expected, Quantity};
use crate::loss::ranks::topk_accuracy;
use crate::spec::cross_entropy::{
    CrossEntropy, CrossEntropyGradients, CrossEntropyOut, CrossEntropyOutput,
};

pub(super) const INDICES: Row = Row { draw, run, expect, saved: Some(("lse", lse)) };
pub(super) const PROBABILITIES: Row = Row { draw, run, expect, saved: Some(("lse", lse)) };

const FORMS: [&str; 9] = [
    "forward",
    "forward_with_ranks",
    "forward_into",
    "backward",
    "backward_into",
    "backward_in_place",
    "forward_backward_in_place",
    "forward_backward",
    "topk_accuracy",
];

fn draw(d: &mut Draft) {
    let indices = d.call.op == Op::CrossEntropy;
    let form = d.form(if indices { &FORMS } else { &FORMS[..8] });
    if form == "topk_accuracy" {
        return draw_accuracy(d);
    }
    let shape = d.logits_shape();
    let role = match form {
        "backward_in_place" | "forward_backward_in_place" => Role::Both,
        "forward_backward" => Role::Consumed,
        _ => Role::Read,
    };
    let data = d.numbers(&shape.shape);
    d.given(("logits", role), (d.dtype, &shape.shape, shape.letters), data);
    if indices {
        d.targets("target", shape.classes, &shape.rows, &shape.row_letters);
    } else {
        draw_probabilities(d, &shape);
    }
    d.weight("weight", &[shape.classes], "C");
    let reduction = d.reduction(false);
    // Near 1, equal logits have gradients that are differences of equal terms, which f32 cannot tell.
    d.number("label_smoothing", 0.0, &[0.1, 0.3, 1e-9]);
    d.number("lse_square_scale", 0.0, &[1e-4, 0.1]);
    d.number("logit_scale", 1.0, &[0.5, 2.0, 0.7]);
    d.option("softcap", Setpoint::Unset, &[Setpoint::Number(30.0), Setpoint::Number(0.5)]);
    draw_memory(d, &shape, reduction);
}

/// Probabilities, or a teacher's logits.
fn draw_probabilities(d: &mut Draft, shape: &LogitsShape) {
    let teacher = d.random.one_in(3);
    let scale = d.random.pick(&[1.0, 0.25, 1.5]);
    d.option("teacher_scale", Setpoint::Unset, &[]);
    if teacher {
        let last = d.call.settings.len() - 1;
        d.call.settings[last].value = Setpoint::Number(scale);
    }
    let zeros = d.random.pick(&[1, 4, 1000]);
    let data = match teacher && d.random.one_in(2) {
        true => d.numbers(&shape.shape),
        false => {
            let normal = d.normal(&shape.shape, 1.0);
            let share = 1.0 / shape.classes.max(1) as f64;
            let one = |x: f64, masked: bool| match (teacher, masked) {
                (true, true) => f64::NEG_INFINITY,
                (true, false) => 2.5 * x,
                (false, true) => 0.0,
                (false, false) => x.abs() * share,
            };
            normal.into_iter().map(|x| one(x, d.random.one_in(zeros))).collect()
        }
    };
    d.given(("target", Role::Read), (d.dtype, &shape.shape, shape.letters), data);
}

fn draw_memory(d: &mut Draft, shape: &LogitsShape, reduction: Reduction) {
    let form = d.call.form;
    let (loss, letters) = shape.loss(reduction);
    let (rows, row_letters) = (&shape.rows[..], &shape.row_letters[..]);
    if form.contains("backward") {
        d.upstream("grad_output", loss, letters);
    }
    if form.starts_with("backward") {
        d.given(("lse", Role::Read), (DType::F32, rows, row_letters), Vec::new());
    }
    if form == "backward_into" {
        d.out("grad_logits", d.dtype, &shape.shape, shape.letters);
    }
    if matches!(form, "backward_into" | "backward_in_place" | "forward_backward_in_place") {
        d.optional_out("grad_target", d.dtype, &shape.shape, shape.letters);
        let wanted = d.call.op == Op::SoftCrossEntropy;
        if let Some(last) = d.call.tensors.last_mut() {
            last.present &= wanted;
        }
    }
    if matches!(form, "forward_into" | "forward_backward_in_place") {
        d.out("loss", DType::F32, loss, letters);
        d.optional_out("lse", DType::F32, rows, row_letters);
        d.optional_out("z_loss", DType::F32, loss, letters);
        for name in ["argmax", "rank"] {
            d.optional_out(name, DType::I64, rows, row_letters);
            let wanted = d.call.op == Op::CrossEntropy;
            if let Some(last) = d.call.tensors.last_mut() {
                last.present &= wanted;
            }
        }
    }
}

fn draw_accuracy(d: &mut Draft) {
    let rows = d.random.below(40);
    let ranks = (0..rows).map(|_| d.random.below(12) as f64 - 1.0).collect();
    d.given(("rank", Role::Read), (DType::I64, &[rows], "N"), ranks);
    let lists = [vec![1, 5, 3], vec![0], vec![usize::MAX, 1], vec![]];
    d.option("ks", Setpoint::List(vec![1, 5]), &lists.map(Setpoint::List));
}

fn loss<'a>(b: &Bound<'a>) -> CrossEntropy<'a> {
    let loss = CrossEntropy::default()
        .reduction(b.reduction())
        .label_smoothing(b.number("label_smoothing"))
        .lse_square_scale(b.number("lse_square_scale"))
        .logit_scale(b.float("logit_scale"))
        .softcap(b.optional_number("softcap").map(|cap| cap as f32))
        .teacher_scale(b.optional_number("teacher_scale").map(|scale| scale as f32))
        .ignore_index(b.optional_integer("ignore_index").unwrap_or(-100));
    match b.optional("weight") {
        Some(weight) => loss.weight(weight),
        None => loss,
    }
}

fn give(b: &Bound<'_>, out: CrossEntropyOutput) {
    b.give("loss", out.loss);
    b.give("lse", out.lse);
    b.give("z_loss", out.z_loss);
}

fn outputs<'a>(b: &Bound<'a>) -> CrossEntropyOut<'a> {
    CrossEntropyOut {
        loss: b.out("loss"),
        lse: b.optional_out("lse"),
        z_loss: b.optional_out("z_loss"),
        argmax: b.optional_out("argmax"),
        rank: b.optional_out("rank"),
    }
}

fn run(b: &Bound<'_>) -> Result<()> {
    let device = b.device;
    if b.call.form == "topk_accuracy" {
        let found = topk_accuracy(device, b.tensor("rank"), &b.list("ks").unwrap_or_default())?;
        let numbers = [vec![found.kept], found.correct].concat();
        let numbers: Vec<i64> = numbers.into_iter().map(|n| n as i64).collect();
        let n = numbers.len();
        b.give("accuracy", Tensor::from_vec(numbers, &[n])?);
        return Ok(());
    }
    let (loss, target, g) = (loss(b), b.tensor("target"), b.upstream("grad_output"));
    let gradients =
        |name| CrossEntropyGradients { logits: b.out(name), target: b.optional_out("grad_target") };
    match b.call.form {
        "forward" => give(b, loss.forward(device, b.tensor("logits"), target)?),
        "forward_with_ranks" => {
            let (out, ranks) = loss.forward_with_ranks(device, b.tensor("logits"), target)?;
            give(b, out);
            b.give("argmax", ranks.argmax);
            b.give("rank", ranks.rank);
        }
        "forward_into" => loss.forward_into(device, b.tensor("logits"), target, outputs(b))?,
        "backward" => {
            let (logits, lse) = (b.tensor("logits"), b.tensor("lse"));
            b.give("grad_logits", loss.backward(device, logits, target, lse, g)?);
        }
        "backward_into" => {
            let (logits, lse) = (b.tensor("logits"), b.tensor("lse"));
            loss.backward_into(device, logits, (target, lse), g, gradients("grad_logits"))?;
        }
        "backward_in_place" => {
            loss.backward_in_place(device, gradients("logits"), target, b.tensor("lse"), g)?;
        }
        "forward_backward_in_place" => {
            loss.forward_backward_in_place(device, gradients("logits"), target, g, outputs(b))?;
        }
        _ => {
            let grad = loss.forward_backward(device, b.consumed("logits"), target, g)?;
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
    let (logits, loss) = (b.tensor("logits"), loss(b));
    let (x, shape) = (logits.to_f64()?, logits.shape());
    let g = reference::upstream(b.upstream("grad_output"))?;
    let target = b.tensor("target");
    let mut expected = Vec::new();
    let out = if target.dtype().is_index() {
        let target = reference::indices(target)?;
        let [argmax, rank] = reference::ranks(&shape, &x, &target, loss.ignore_index);
        expected.push(Expected::term(Quantity::Argmax, argmax));
        expected.push(Expected::term(Quantity::Rank, rank));
        reference::cross_entropy(&loss, &shape, &x, &target, &g)
    } else {
        let (out, grad_target) =
            reference::soft_cross_entropy(&loss, &shape, &x, &target.to_f64()?, &g);
        let sizes = out.grad_target_size.clone();
        expected.push(Expected::summed_gradient(Quantity::TargetGradient, grad_target, sizes));
        out
    };
    expected.extend([
        Expected::loss(Quantity::Loss, out.loss, out.loss_size),
        Expected::loss(Quantity::ZLoss, out.z_loss, out.z_loss_size),
        Expected::term(Quantity::Lse, out.lse),
        Expected::summed_gradient(Quantity::Gradient, out.grad_logits, out.grad_logits_size),
    ]);
    let coarse = reference::coarseness(&loss, &x);
    Ok(expected.into_iter().map(|one| one.coarser(coarse)).collect::<Vec<_>>().into())
}
