//! Calls of one form each, right and wrong.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::TensorRef;
use crate::check::call::bound::Bound;
use crate::check::call::clusters::{draw_gradients, named_gradients};
use crate::check::call::draft::Draft;
use crate::check::call::{Role, Setpoint};
use crate::check::entry::Reference;
use crate::check::ops::cross_entropy::upstream;
use crate::check::outcome::{Expected, Quantity};
use crate::check::reference::{self, LinearData, LinearReference, LinearTarget};
use crate::spec::cross_entropy::{
    CrossEntropy, CrossEntropyOut, CrossEntropyOutput, CrossEntropyUpstream,
};
use crate::spec::linear_cross_entropy::{LinearCrossEntropy, LinearGradOut, LinearInput};

const FORMS: [&str; 5] =
    ["forward", "forward_into", "forward_backward", "forward_backward_into", "backward_into"];

pub(super) fn draw(d: &mut Draft) {
    let form = d.form(&FORMS);
    let features = d.random.pick(&[1, 2, 3, 8, 17]);
    let classes = d.random.pick(&[1, 2, 3, 5, 12, 40, 300]);
    let rows = d.random.below(7);
    let (shape, letters) = match d.random.one_in(8) {
        true => (vec![features], ""),
        false => (vec![rows, features], "N"),
    };
    let (inner, inner_letters) = draw_positions(d, shape.len() > 1);
    let of_classes = [&[classes], &inner[..]].concat();
    let class_letters = format!("C{inner_letters}");
    // The features are the input's and the classifier's.
    let input_letters = format!("{letters}D");
    let data = d.features(&shape);
    d.given(("input", Role::Read), (d.dtype, &shape, &input_letters), data);
    let of_weight = [&of_classes[..], &[features]].concat();
    let data = d.normal(&of_weight, 0.4);
    let sizes: (_, &[usize], &str) = (d.dtype, &of_weight, &format!("{class_letters}D"));
    let weight = d.given(("linear_weight", Role::Read), sizes, data);
    if !inner.is_empty() {
        weight.padding = 0;
    }
    let mut parameters = vec![("linear_weight".to_owned(), of_weight)];
    if d.random.one_in(2) {
        let data = d.normal(&of_classes, 0.4);
        let bias =
            d.given(("linear_bias", Role::Read), (d.dtype, &of_classes, &class_letters), data);
        bias.padding = 0;
        parameters.push(("linear_bias".to_owned(), of_classes.clone()));
    }
    let before = &shape[..shape.len() - 1];
    let (rows, letters) = ([before, &inner].concat(), &format!("{letters}{inner_letters}")[..]);
    let soft = d.random.one_in(4);
    if soft {
        let sizes = [before, &of_classes].concat();
        let share = 1.0 / classes as f64;
        let data = d.normal(&sizes, share).into_iter().map(f64::abs).collect();
        let letters = input_letters.replace('D', &class_letters);
        d.given(("target", Role::Read), (d.dtype, &sizes, &letters), data);
    } else {
        d.targets("target", classes, &rows, letters);
    }
    d.weight("weight", &[classes], "C");
    if inner.is_empty() {
        draw_rows(d, &rows, letters);
    }
    let reduction = d.reduction(false);
    // Every device has a filter of these.
    let filters = !soft && inner.is_empty() && d.dtype != DType::F32 && d.random.one_in(4);
    if filters {
        let bound = d.random.pick(&[0.0, 1e-3, 0.02, 0.3]);
        d.set("gradient_filter", Setpoint::Number(bound));
    }
    let smoothing: &[f64] = if filters { &[] } else { &[0.1, 0.3, 1e-9] };
    d.number("label_smoothing", 0.0, smoothing);
    d.number("lse_square_scale", 0.0, &[1e-4, 0.1]);
    d.number("logit_scale", 1.0, &[0.5, 2.0]);
    d.option("softcap", Setpoint::Unset, &[Setpoint::Number(30.0)]);
    let others = [1 << 20, 64 << 20].map(Setpoint::Integer);
    d.option("workspace", Setpoint::Unset, &others);
    let loss: (&[usize], &str) = match reduction {
        Reduction::None => (&rows, letters),
        Reduction::Sum | Reduction::Mean | Reduction::BatchMean => (&[], ""),
    };
    draw_results(d, loss, (&rows, letters), soft, &[]);
    if form.ends_with("backward_into") {
        draw_gradients(d, ("grad_input", &shape, &input_letters), &parameters);
    }
}

/// The sizes of a classifier between its classes and its features, in one of six calls of several rows, and their
/// letters.
fn draw_positions(d: &mut Draft, several_rows: bool) -> (Vec<usize>, &'static str) {
    if !several_rows || !d.random.one_in(6) {
        return (Vec::new(), "");
    }
    let inner = [1 + d.random.below(4), 1 + d.random.below(3)];
    match d.random.one_in(2) {
        true => (inner.to_vec(), "XY"),
        false => (inner[..1].to_vec(), "X"),
    }
}

/// What a row may have: a temperature, and a weight.
pub(in crate::check::ops) fn draw_rows(d: &mut Draft, rows: &[usize], letters: &str) {
    for (name, values) in [("temperature", [0.5, 1.0, 2.0]), ("row_weight", [0.0, 1.0, 2.5])] {
        let count = rows.iter().product::<usize>();
        let data = (0..count).map(|_| d.random.pick(&values)).collect();
        let present = d.random.one_in(3);
        let given = d.given((name, Role::Read), (DType::F32, rows, letters), data);
        (given.optional, given.present) = (true, present);
    }
}

/// Upstream gradients, and memory for results: with `others`, for those besides that belong to a target.
pub(in crate::check::ops) fn draw_results(
    d: &mut Draft,
    (loss, loss_letters): (&[usize], &str),
    (rows, letters): (&[usize], &str),
    soft: bool,
    others: &[(&'static str, DType)],
) {
    let form = d.call.form;
    if form.contains("backward") {
        d.upstream("grad_output", loss, loss_letters);
        for name in ["grad_logprob", "grad_entropy"] {
            match soft {
                true => d.number(name, 0.0, &[]),
                false => d.upstream_or(name, 0.0, rows, letters),
            }
        }
    }
    if form.starts_with("forward") && form.ends_with("into") {
        d.out("loss", DType::F32, loss, loss_letters);
        d.optional_out("lse", DType::F32, rows, letters);
        d.optional_out("z_loss", DType::F32, loss, loss_letters);
        let tokens = [("logprob", DType::F32), ("entropy", DType::F32)];
        for &(name, dtype) in tokens.iter().chain(others) {
            d.optional_out(name, dtype, rows, letters);
            if let Some(last) = d.call.tensors.last_mut() {
                last.present &= !soft;
            }
        }
    }
}

fn loss<'a>(b: &Bound<'a>) -> LinearCrossEntropy<'a> {
    let loss = CrossEntropy::default()
        .reduction(b.reduction())
        .label_smoothing(b.number("label_smoothing"))
        .lse_square_scale(b.number("lse_square_scale"))
        .logit_scale(b.float("logit_scale"))
        .softcap(b.optional_number("softcap").map(|cap| cap as f32))
        .ignore_index(b.optional_integer("ignore_index").unwrap_or(-100));
    let loss = LinearCrossEntropy::from(match b.optional("weight") {
        Some(weight) => loss.weight(weight),
        None => loss,
    });
    let loss = loss.gradient_filter(b.optional_number("gradient_filter").map(|bound| bound as f32));
    match b.optional_integer("workspace") {
        Some(bytes) => loss.max_workspace_bytes(usize::try_from(bytes).unwrap_or(0)),
        None => loss,
    }
}

pub(in crate::check::ops) fn input<'a>(b: &Bound<'a>) -> LinearInput<'a> {
    LinearInput {
        linear_bias: b.optional("linear_bias"),
        temperature: b.optional("temperature"),
        row_weight: b.optional("row_weight"),
        ..LinearInput::new(b.tensor("input"), b.tensor("linear_weight"), b.tensor("target"))
    }
}

pub(in crate::check::ops) fn outputs<'a>(b: &Bound<'a>) -> CrossEntropyOut<'a> {
    CrossEntropyOut {
        lse: b.optional_out("lse"),
        z_loss: b.optional_out("z_loss"),
        logprob: b.optional_out("logprob"),
        entropy: b.optional_out("entropy"),
        ..CrossEntropyOut::loss(b.out("loss"))
    }
}

pub(in crate::check::ops) fn gradients<'a>(b: &Bound<'a>) -> LinearGradOut<'a> {
    LinearGradOut {
        input: b.optional_out("grad_input"),
        linear_weight: b.optional_out("grad_linear_weight"),
        linear_bias: b.optional_out("grad_linear_bias"),
        accumulate: b.flag("accumulate"),
        ..LinearGradOut::default()
    }
}

pub(super) fn run(b: &Bound<'_>) -> Result<()> {
    let (loss, input, device) = (loss(b), input(b), b.device);
    let give = |out: CrossEntropyOutput| {
        b.give("loss", out.loss);
        b.give("lse", out.lse);
        b.give("z_loss", out.z_loss);
    };
    match b.call.form {
        "forward" => give(loss.forward(device, &input)?),
        "forward_into" => loss.forward_into(device, &input, outputs(b))?,
        "forward_backward" => {
            let grad = loss.forward_backward(device, &input, upstream(b))?;
            give(grad.output);
            b.give("grad_input", grad.input);
            b.give("grad_linear_weight", grad.linear_weight);
            if let Some(bias) = grad.linear_bias {
                b.give("grad_linear_bias", bias);
            }
        }
        "forward_backward_into" => {
            let out = outputs(b);
            loss.forward_backward_into(device, &input, upstream(b), gradients(b), out)?;
        }
        _ => loss.backward_into(device, &input, upstream(b), gradients(b))?,
    }
    Ok(())
}

pub(super) fn expect(b: &Bound<'_>) -> Result<Reference> {
    let loss = loss(b);
    let gradient_filter = loss.gradient_filter.map(f64::from);
    expect_by(b, |data| {
        let data = LinearData { gradient_filter, ..data.clone() };
        reference::linear_cross_entropy(&loss.of_logits, &data)
    })
}

/// What a reference says of the call's numbers.
pub(in crate::check::ops) fn expect_by(
    b: &Bound<'_>,
    right: impl FnOnce(&LinearData<'_>) -> LinearReference,
) -> Result<Reference> {
    let of = input(b);
    let owned = |tensor: Option<TensorRef<'_>>| tensor.map(|tensor| tensor.to_f64()).transpose();
    let (input, weight) = (of.input.to_f64()?, of.linear_weight.to_f64()?);
    let (bias, temperature) = (owned(of.linear_bias)?, owned(of.temperature)?);
    let row_weight = owned(of.row_weight)?;
    let soft = of.target.dtype().is_float();
    let target = if soft { of.target.to_f64()? } else { Vec::new() };
    let indices = if soft { Vec::new() } else { reference::indices(of.target)? };
    // A pass without gradients has no upstream ones.
    let [g, a, e] = match b.call.form.contains("backward") {
        true => {
            let CrossEntropyUpstream { grad_output, grad_logprob, grad_entropy } = upstream(b);
            let [g, a, e] = [grad_output, grad_logprob, grad_entropy].map(reference::upstream);
            [g?, a?, e?]
        }
        false => [vec![1.0], vec![0.0], vec![0.0]],
    };
    let features = of.input.shape().last().copied().unwrap_or(1);
    let classifier = (&weight[..], of.linear_weight.shape()[0]);
    let target = match soft {
        true => LinearTarget::Probabilities(&target),
        false => LinearTarget::Classes(&indices),
    };
    let data = LinearData {
        positions: of.linear_weight.shape()[1..].iter().rev().skip(1).product(),
        bias: bias.as_deref(),
        temperature: temperature.as_deref(),
        row_weight: row_weight.as_deref(),
        upstream: [&g, &a, &e],
        ..LinearData::new((&input, features), classifier, target)
    };
    let out = right(&data);
    let bias = of.linear_bias.map(|_| ("linear_bias".to_owned(), out.grad_bias));
    let grads = [Some(("linear_weight".to_owned(), out.grad_weight)), bias];
    Ok(Reference {
        gradients: named_gradients(b, grads.into_iter().flatten())?,
        ..vec![
            Expected::product(Quantity::Loss, out.loss),
            Expected::product(Quantity::ZLoss, out.z_loss),
            Expected::product(Quantity::Lse, out.lse),
            Expected::product(Quantity::Output, out.logprob),
            Expected::product(Quantity::Entropy, out.entropy),
            Expected::product(Quantity::Gradient, out.grad_input),
        ]
        .into()
    })
}
