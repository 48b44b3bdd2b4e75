//! Calls of one form each, right and wrong.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::check::call::bound::Bound;
use crate::check::call::clusters::{draw_gradients, named_gradients};
use crate::check::call::draft::Draft;
use crate::check::call::{Role, Setpoint};
use crate::check::entry::Reference;
use crate::check::ops::linear_distillation::right::right;
use crate::check::outcome::{Expected, Quantity};
use crate::spec::divergence::Divergence;
use crate::spec::grad_output::GradOutput;
use crate::spec::js_div_logits::JsDivLogits;
use crate::spec::linear_cross_entropy::LinearGradOut;
use crate::spec::linear_distillation::{
    DistillationGradOut, DistillationInput, LinearDistillation, LinearHead,
};

const FORMS: [&str; 5] =
    ["forward", "forward_into", "forward_backward", "forward_backward_into", "backward_into"];

pub(super) fn draw(d: &mut Draft) {
    let form = d.form(&FORMS);
    let classes = d.random.pick(&[1, 2, 3, 5, 12, 40, 300]);
    let rows = d.random.below(7);
    let mut parameters = Vec::new();
    let mut inputs = Vec::new();
    for (prefix, weight, letter) in [("", "linear_", "D"), ("teacher_", "teacher_", "E")] {
        let features = d.random.pick(&[1, 2, 3, 8, 17]);
        let shape = [rows, features];
        let data = if prefix.is_empty() { d.features(&shape) } else { d.normal(&shape, 1.0) };
        let letters = format!("N{letter}");
        d.given((&format!("{prefix}input"), Role::Read), (d.dtype, &shape, &letters), data);
        inputs.push((format!("grad_{prefix}input"), shape, letters));
        let data = d.normal(&[classes, features], 0.4);
        let (name, sizes) = (format!("{weight}weight"), [classes, features]);
        d.given((&name, Role::Read), (d.dtype, &sizes, &format!("C{letter}")), data);
        parameters.push((name, sizes.to_vec()));
        if d.random.one_in(2) {
            let (name, data) = (format!("{weight}bias"), d.normal(&[classes], 0.4));
            d.given((&name, Role::Read), (d.dtype, &[classes], "C"), data);
            parameters.push((name, vec![classes]));
        }
        of_rows(d, &format!("{prefix}temperature"), rows, [0.5, 1.0, 2.0]);
    }
    of_rows(d, "row_weight", rows, [0.0, 1.0, 2.5]);
    d.targets("labels", classes, &[rows], "N");
    let labelled = d.random.one_in(2);
    if let Some(labels) = d.call.tensors.last_mut() {
        (labels.optional, labels.present) = (true, labelled);
    }
    let reduction = d.reduction(true);
    d.number("beta", 0.5, &[0.1, 0.0, 1.0, 1e-3]);
    let variation = d.random.one_in(5);
    d.set("total_variation", Setpoint::Flag(variation));
    d.number("logit_scale", 1.0, &[0.7, 2.0]);
    d.number("teacher_scale", 1.0, &[0.25, 1.5]);
    d.option("workspace", Setpoint::Unset, &[1 << 20, 64 << 20].map(Setpoint::Integer));
    let (loss, letters): (&[usize], &str) = match reduction {
        Reduction::None => (&[rows], "N"),
        Reduction::Sum | Reduction::Mean | Reduction::BatchMean => (&[], ""),
    };
    if form.contains("backward") {
        d.upstream("grad_output", loss, letters);
    }
    if form.starts_with("forward") && form.ends_with("into") {
        d.out("loss", DType::F32, loss, letters);
    }
    if form.ends_with("backward_into") {
        let [(student, own, letters), (teacher, others, of_teacher)] = &inputs[..] else { return };
        d.optional_out(teacher, d.dtype, others, of_teacher);
        draw_gradients(d, (student, own, letters), &parameters);
    }
}

/// One number a row, in a third of all calls.
fn of_rows(d: &mut Draft, name: &str, rows: usize, values: [f64; 3]) {
    let data = (0..rows).map(|_| d.random.pick(&values)).collect();
    let present = d.random.one_in(3);
    let given = d.given((name, Role::Read), (DType::F32, &[rows], "N"), data);
    (given.optional, given.present) = (true, present);
}

fn loss<'a>(b: &Bound<'a>) -> LinearDistillation<'a> {
    let of_logits = JsDivLogits::default()
        .beta(b.float("beta"))
        .reduction(b.reduction())
        .logit_scale(b.float("logit_scale"))
        .teacher_scale(b.float("teacher_scale"))
        .ignore_index(b.integer("ignore_index"));
    let of_logits = match b.flag("total_variation") {
        true => of_logits.divergence(Divergence::TotalVariation),
        false => of_logits,
    };
    let loss = LinearDistillation::from(match b.optional("labels") {
        Some(labels) => of_logits.labels(labels),
        None => of_logits,
    });
    match b.optional_integer("workspace") {
        Some(bytes) => loss.max_workspace_bytes(usize::try_from(bytes).unwrap_or(0)),
        None => loss,
    }
}

fn input<'a>(b: &Bound<'a>) -> DistillationInput<'a> {
    let side = |[input, weight, bias, temperature]: [&str; 4]| LinearHead {
        linear_bias: b.optional(bias),
        temperature: b.optional(temperature),
        ..LinearHead::new(b.tensor(input), b.tensor(weight))
    };
    DistillationInput {
        student: side(["input", "linear_weight", "linear_bias", "temperature"]),
        teacher: side(["teacher_input", "teacher_weight", "teacher_bias", "teacher_temperature"]),
        row_weight: b.optional("row_weight"),
    }
}

fn gradients<'a>(b: &Bound<'a>) -> DistillationGradOut<'a> {
    let side = |[input, weight, bias]: [&str; 3]| LinearGradOut {
        input: b.optional_out(input),
        linear_weight: b.optional_out(weight),
        linear_bias: b.optional_out(bias),
        accumulate: b.flag("accumulate"),
        ..LinearGradOut::default()
    };
    DistillationGradOut {
        student: side(["grad_input", "grad_linear_weight", "grad_linear_bias"]),
        teacher: side(["grad_teacher_input", "grad_teacher_weight", "grad_teacher_bias"]),
    }
}

pub(super) fn run(b: &Bound<'_>) -> Result<()> {
    let (loss, input, device) = (loss(b), input(b), b.device);
    match b.call.form {
        "forward" => b.give("loss", loss.forward(device, &input)?),
        "forward_into" => loss.forward_into(device, &input, b.out("loss"))?,
        "forward_backward" => {
            let grad = loss.forward_backward(device, &input, b.upstream("grad_output"))?;
            b.give("loss", grad.loss);
            b.give("grad_input", grad.input);
            b.give("grad_linear_weight", grad.linear_weight);
            if let Some(bias) = grad.linear_bias {
                b.give("grad_linear_bias", bias);
            }
        }
        "forward_backward_into" => {
            let (g, out) = (b.upstream("grad_output"), b.out("loss"));
            loss.forward_backward_into(device, &input, g, gradients(b), out)?;
        }
        _ => loss.backward_into(device, &input, b.upstream("grad_output"), gradients(b))?,
    }
    Ok(())
}

pub(super) fn expect(b: &Bound<'_>) -> Result<Reference> {
    let of = input(b);
    // A pass without gradients has no upstream one.
    let g = match b.call.form.contains("backward") {
        true => b.upstream("grad_output"),
        false => GradOutput::default(),
    };
    let (loss, [student, teacher]) = right(&loss(b).of_logits, &of, g)?;
    let named = |name: &str, grad| (name.to_owned(), grad);
    let mut grads = vec![
        named("linear_weight", student.weight),
        named("linear_bias", student.bias),
        named("teacher_weight", teacher.weight),
        named("teacher_bias", teacher.bias),
    ];
    grads.retain(|(name, _)| b.optional(name).is_some());
    let mut gradients = named_gradients(b, grads)?;
    gradients.push(("grad_teacher_input".into(), teacher.input));
    Ok(Reference {
        gradients,
        ..vec![
            Expected::product(Quantity::Loss, loss),
            Expected::product(Quantity::Gradient, student.input),
        ]
        .into()
    })
}
