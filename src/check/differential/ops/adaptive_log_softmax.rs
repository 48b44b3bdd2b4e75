//! Adaptive log-softmax.

use super::{Reference, Row};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::{TensorMut, TensorRef};
use crate::check::differential::bound::Bound;
use crate::check::differential::call::{Role, Setpoint};
use crate::check::differential::draft::Draft;
use crate::check::ops::adaptive_log_softmax::top;
use crate::check::reference;
use crate::check::subject::{Expected, Quantity};
use crate::spec::adaptive_log_softmax::{AdaptiveLogSoftmax, AdaptiveParameters};
use crate::spec::output_layer::{LayerGradOut, LayerOut};

pub(super) const ROW: Row = Row { draw, run, expect, saved: None };

const FORMS: [&str; 9] = [
    "forward",
    "forward_into",
    "forward_backward",
    "forward_backward_into",
    "log_prob",
    "log_prob_into",
    "predict",
    "top_k",
    "sample",
];

fn draw(d: &mut Draft) {
    let form = d.form(&FORMS);
    let clusters = super::draw_clusters(d);
    let (features, classes) = (clusters.features, clusters.classes);
    let rows = d.random.below(7);
    let shape = if d.random.one_in(8) { vec![features] } else { vec![rows, features] };
    let (rows, row_letters) =
        (shape[..shape.len() - 1].to_vec(), if shape.len() > 1 { "N" } else { "" });
    let letters = if shape.len() > 1 { "N" } else { "" };
    d.option("capacities", Setpoint::Flag(false), &[Setpoint::Flag(true)]);

    let data = d.features(&shape);
    d.given(("input", Role::Read), (d.dtype, &shape, letters), data);
    let head = clusters.cutoffs[0] + clusters.cutoffs.len();
    let mut parameters = vec![("head.weight".to_owned(), vec![head, features])];
    parameters.extend(clusters.tails());
    let bias = d.random.one_in(2);
    d.set("head_bias", Setpoint::Flag(bias));
    if bias {
        parameters.push(("head.bias".to_owned(), vec![head]));
    }
    for (name, shape) in &parameters {
        let data = d.normal(shape, 0.4);
        d.given((name, Role::Read), (d.dtype, shape, ""), data);
    }
    match form {
        "top_k" => {
            let others = [1, classes as i64, classes as i64 + 1, 0].map(Setpoint::Integer);
            return d.option("k", Setpoint::Integer(2), &others);
        }
        "sample" => return d.set("seed", Setpoint::Integer(d.call.seed as i64)),
        "log_prob_into" => {
            let shape = [&rows[..], &[classes]].concat();
            d.out("log_prob", DType::F32, &shape, row_letters);
            return;
        }
        "log_prob" | "predict" => return,
        _ => {}
    }
    d.targets("target", classes, &rows, row_letters);
    d.weight("row_weight", &rows, row_letters);
    draw_memory(d, (&shape, letters), (&rows, row_letters), &parameters);
}

fn draw_memory(
    d: &mut Draft,
    (shape, letters): (&[usize], &str),
    (rows, row_letters): (&[usize], &str),
    parameters: &[(String, Vec<usize>)],
) {
    let form = d.call.form;
    let (loss, loss_letters): (&[usize], &str) = match d.reduction(false) {
        Reduction::None => (rows, row_letters),
        Reduction::Sum | Reduction::Mean | Reduction::BatchMean => (&[], ""),
    };
    if form.contains("backward") {
        d.upstream("grad_output", loss, loss_letters);
    }
    if matches!(form, "forward_into" | "forward_backward_into") {
        d.out("output", DType::F32, rows, row_letters);
        d.out("loss", DType::F32, loss, loss_letters);
    }
    if form == "forward_backward_into" {
        super::draw_gradients(d, ("grad_input", shape, letters), parameters);
    }
}

/// All parameters under a prefix, by `get`.
fn parameters<T>(
    b: &Bound<'_>,
    prefix: &str,
    get: impl Fn(&str) -> Option<T>,
) -> Option<AdaptiveParameters<T>> {
    Some(AdaptiveParameters {
        head_weight: get(&format!("{prefix}head.weight"))?,
        head_bias: get(&format!("{prefix}head.bias")),
        tails: b.tails(prefix, get),
    })
}

fn loss<'a>(b: &Bound<'a>) -> Result<AdaptiveLogSoftmax<'a>> {
    let classes = b.count("classes");
    let mut loss = AdaptiveLogSoftmax::new(
        b.count("features"),
        classes,
        &b.list("cutoffs").unwrap_or_default(),
    )
    .widths(b.list("widths"))
    .head_bias(b.flag("head_bias"))
    .ignore_index(b.optional_integer("ignore_index"))
    .reduction(b.reduction());
    if let Some(bytes) = b.optional_integer("workspace") {
        loss = loss.workspace(usize::try_from(bytes).unwrap_or(0));
    }
    if b.flag("capacities") {
        // A CUDA device alone refuses batches that do not fit: here all do.
        let rows = b.tensor("input").shape().first().map_or(1, |&rows| rows.max(1));
        let clusters = loss.clusters();
        loss = loss.capacities(Some(vec![rows; clusters]));
    }
    if b.flag("class_order") {
        loss = loss.class_order(Some(super::order(b.call.seed, classes)?));
    }
    Ok(match b.optional("row_weight") {
        Some(weight) => loss.row_weight(weight),
        None => loss,
    })
}

fn run(b: &Bound<'_>) -> Result<()> {
    let (loss, device, input) = (loss(b)?, b.device, b.tensor("input"));
    let Some(view) = parameters(b, "", |name| b.optional(name)) else { return Ok(()) };
    match b.call.form {
        "log_prob" => b.give("log_prob", loss.log_prob(device, &view, input)?),
        "log_prob_into" => loss.log_prob_into(device, &view, input, b.out("log_prob"))?,
        "predict" => b.give("predict", loss.predict(device, &view, input)?),
        "top_k" => {
            let (classes, top) = loss.top_k(device, &view, input, b.count("k"))?;
            b.give("top_classes", classes);
            b.give("top", top);
        }
        "sample" => {
            b.give("sample", loss.sample(device, &view, input, b.integer("seed") as u64)?);
        }
        form => return passes(b, form, &loss, &view),
    }
    Ok(())
}

fn passes(
    b: &Bound<'_>,
    form: &str,
    loss: &AdaptiveLogSoftmax<'_>,
    view: &AdaptiveParameters<TensorRef<'_>>,
) -> Result<()> {
    let (device, input, target) = (b.device, b.tensor("input"), b.tensor("target"));
    let g = b.upstream("grad_output");
    let out = || LayerOut { output: b.out("output"), loss: b.out("loss") };
    match form {
        "forward" => super::give_output(b, loss.forward(device, view, input, target)?),
        "forward_into" => loss.forward_into(device, view, (input, target), out())?,
        "forward_backward" => {
            let grad = loss.forward_backward(device, view, input, target, g)?;
            super::give_output(b, grad.output);
            b.give("grad_input", grad.input);
            for (name, grad) in grad.parameters.into_named() {
                b.give(&format!("grad_{name}"), grad);
            }
        }
        _ => {
            let written: Option<AdaptiveParameters<TensorMut<'_>>> =
                parameters(b, "grad_", |name| b.optional_out(name));
            let gradients = LayerGradOut {
                input: b.optional_out("grad_input"),
                parameters: written,
                accumulate: b.flag("accumulate"),
            };
            loss.forward_backward_into(device, view, (input, target), g, (out(), gradients))?;
        }
    }
    Ok(())
}

fn expect(b: &Bound<'_>) -> Result<Reference> {
    let loss = loss(b)?;
    let input = b.tensor("input").to_f64()?;
    let view = parameters(b, "", |name| b.optional(name));
    let Some(view) = view else { return Ok(Reference::default()) };
    let parameters = view.try_map(|_, p| p.to_f64())?;
    let rows = input.len() / b.count("features").max(1);
    let target = match b.optional("target") {
        Some(target) => reference::indices(target)?,
        None => vec![0; rows],
    };
    let g = reference::upstream(b.upstream("grad_output"))?;
    let out = reference::adaptive_log_softmax(&loss, &parameters, (&input, &target), &g);
    let (classes, k) = (b.count("classes"), b.count("k"));
    let top = top(&out.log_prob, classes, k.min(classes));
    Ok(Reference {
        gradients: super::named_gradients(b, out.grads.into_named())?,
        picked_by: Some((out.log_prob.clone(), classes)),
        expected: vec![
            Expected::product(Quantity::Loss, out.loss),
            Expected::product(Quantity::Output, out.output),
            Expected::product(Quantity::LogProb, out.log_prob),
            Expected::product(Quantity::Top, top),
            Expected::product(Quantity::Gradient, out.grad_input),
        ],
    })
}
