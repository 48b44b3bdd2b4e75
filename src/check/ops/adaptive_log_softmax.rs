//! Adaptive log-softmax.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::check::bench::{Kind, Layer, Measured};
use crate::check::call::bound::Bound;
use crate::check::call::clusters::{
    draw_clusters, draw_gradients, give_output, named_gradients, order,
};
use crate::check::call::draft::Draft;
use crate::check::call::{Role, Setpoint};
use crate::check::case::{Call, Case, Draw, First};
use crate::check::draw::labels::grad_output;
use crate::check::draw::targets::Targets;
use crate::check::draw::{Upstream, layer};
use crate::check::entry::{Calls, Entry, Reference, Traits};
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::reference::AdaptiveReference;
use crate::check::{reference, typed};
use crate::device::Device;
use crate::spec::adaptive_log_softmax::{AdaptiveLogSoftmax, AdaptiveParameters, ClassOrder};
use crate::spec::output_layer::{LayerGradOut, LayerOut};
use std::fmt;
use std::sync::Arc;

pub(in crate::check) const ENTRY: Entry = Entry {
    name: "adaptive-log-softmax",
    cases: Draw { shape: layer::shape, rest: case },
    calls: Calls { draw, run, expect, saved: None },
    evaluated: None,
    measured: &[Measured {
        name: "adaptive-log-softmax",
        help: "Hidden states and parameters to a loss and all gradients",
        kind: Kind::Products(Layer::AdaptiveLogSoftmax),
    }],
    traits: Traits::LAYER,
};

/// Options and tensors, owned.
#[derive(Debug)]
struct AdaptiveCall {
    options: AdaptiveLogSoftmax<'static>,
    parameters: AdaptiveParameters<Tensor>,
    target: Tensor,
    ignore_index: i64,
    row_weight: Option<Tensor>,
    grad_output: Upstream,
    /// Whether parameters have gradients that are numbers: no hidden state is infinite.
    finite: bool,
}

impl AdaptiveCall {
    /// The loss with its options.
    fn loss(&self) -> AdaptiveLogSoftmax<'_> {
        match &self.row_weight {
            Some(weight) => self.options.clone().row_weight(weight.view()),
            None => self.options.clone(),
        }
    }

    /// Classes that are asked for of each row.
    fn k(&self) -> usize {
        self.options.classes.min(3)
    }

    fn reference(&self, case: &Case) -> Result<AdaptiveReference> {
        let parameters = self.parameters.try_map(|_, p| p.view().to_f64())?;
        let (input, target) = (case.input()?.to_f64()?, reference::indices(self.target.view())?);
        let g = reference::upstream(self.grad_output.view())?;
        let data = (&input[..], &target[..]);
        Ok(reference::adaptive_log_softmax(&self.loss(), &parameters, data, &g))
    }
}

impl Call for AdaptiveCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AdaptiveCall { options, row_weight, grad_output, .. } = self;
        write!(f, ", classes {}, cutoffs {:?}", options.classes, options.cutoffs)?;
        let widths: Vec<usize> = (0..options.clusters()).map(|i| options.width(i)).collect();
        write!(f, ", widths {widths:?}, head_bias {}, {}", options.head_bias, options.reduction)?;
        let weight = row_weight.as_ref().map(Tensor::dtype);
        write!(f, ", target {}, row_weight {weight:?}", self.target.dtype())?;
        write!(f, ", class_order {}", options.class_order.is_some())?;
        write!(f, ", ignore_index {}, grad_output {grad_output}", self.ignore_index)
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let out = self.reference(case)?;
        let top = out.log_prob.top(self.options.classes, self.k());
        let mut expected = vec![
            Expected::product(Quantity::Loss, out.loss),
            Expected::product(Quantity::Output, out.output),
            Expected::product(Quantity::LogProb, out.log_prob),
            Expected::product(Quantity::Gradient, out.grad_input),
        ];
        if self.finite {
            expected.push(Expected::product(Quantity::Top, top));
            let named = out.grads.into_named().into_iter();
            expected.push(layer::gradients(named.map(|(_, grad)| grad)));
        }
        Ok(expected)
    }

    /// Forward, forward and backward, all log-probabilities and the largest.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let packed = layer::packed(case)?;
        let (input, target) = (layer::input(case, &packed)?, self.target.view());
        let (loss, view, g) = (self.loss(), self.parameters.view(), self.grad_output.view());
        let out = loss.forward(device, &view, input, target)?;
        let log_prob = loss.log_prob(device, &view, input)?;
        let grad = loss.forward_backward(device, &view, input, target, g)?;
        let named = grad.parameters.into_named().into_iter();
        let parameters = self.finite.then(|| named.map(|(_, grad)| grad).collect());
        let mut outcomes = layer::passes(&out, (&grad.output, &grad.input), parameters)?;
        outcomes.push(Outcome::new(Quantity::LogProb, "log_prob", log_prob.view())?);
        if self.finite {
            let (_, top) = loss.top_k(device, &view, input, self.k())?;
            outcomes.push(Outcome::new(Quantity::Top, "top_k", top.view())?);
        }
        Ok(outcomes)
    }

    fn unread(&self, case: &Case) -> Result<Vec<usize>> {
        layer::unread(case, self.target.view(), self.ignore_index)
    }
}

fn case(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { values, dtype, shape, .. } = *first;
    let (rows, features) = (&shape[..shape.len() - 1], shape[shape.len() - 1]);
    let classes = random.pick(&[2, 3, 5, 40, 300, 2100]);
    let mut cutoffs: Vec<usize> =
        (0..1 + random.below(4)).map(|_| 1 + random.below(classes - 1)).collect();
    cutoffs.sort_unstable();
    cutoffs.dedup();
    let widths: Vec<usize> = cutoffs.iter().map(|_| random.below(2 + features)).collect();
    let reduction = random.pick(&[Reduction::None, Reduction::Sum, Reduction::Mean]);
    let Targets { indices, ignore_index } = Targets::draw(random, classes, rows)?;
    let mut options = AdaptiveLogSoftmax::new(features, classes, &cutoffs)
        .widths(Some(widths))
        .head_bias(random.one_in(2))
        .ignore_index(Some(ignore_index))
        .reduction(reduction);
    if random.one_in(3) {
        let counts: Vec<u64> = (0..classes).map(|_| random.below(50) as u64).collect();
        options = options.class_order(Some(Arc::new(ClassOrder::from_counts(&counts)?)));
    }
    let deviation = layer::deviation(random, values, dtype);
    let parameters =
        options.shapes()?.try_map(|_, shape| layer::parameter(random, dtype, shape, deviation))?;
    let row_weight = random.one_in(3).then(|| {
        let n = rows.iter().product();
        let weight: Vec<f64> = (0..n).map(|_| 0.1 + f64::from(random.normal()).abs()).collect();
        typed::tensor(random.pick(&[DType::F32, dtype]), rows, &weight)
    });
    Ok(Box::new(AdaptiveCall {
        options,
        parameters,
        target: indices,
        ignore_index,
        row_weight: row_weight.transpose()?,
        grad_output: grad_output(random, dtype, reduction, rows)?,
        finite: values.finite(),
    }))
}

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
    let clusters = draw_clusters(d);
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
        draw_gradients(d, ("grad_input", shape, letters), parameters);
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
        loss = loss.class_order(Some(order(b.call.seed, classes)?));
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
        "forward" => give_output(b, loss.forward(device, view, input, target)?),
        "forward_into" => loss.forward_into(device, view, (input, target), out())?,
        "forward_backward" => {
            let grad = loss.forward_backward(device, view, input, target, g)?;
            give_output(b, grad.output);
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
    let top = out.log_prob.top(classes, k.min(classes));
    Ok(Reference {
        gradients: named_gradients(b, out.grads.into_named())?,
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
