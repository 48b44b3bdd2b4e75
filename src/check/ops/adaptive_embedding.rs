//! Adaptive embeddings: the first tensor is the gradient of their output.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::call::bound::Bound;
use crate::check::call::clusters::{
    draw_clusters, draw_parameter_gradients, named_gradients, order,
};
use crate::check::call::draft::Draft;
use crate::check::call::{Role, Setpoint};
use crate::check::case::{Call, Case, Draw, First};
use crate::check::draw::{INDICES, layer};
use crate::check::entry::{Calls, Entry, Reference, Traits};
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::{reference, typed};
use crate::device::Device;
use crate::spec::adaptive_embedding::{AdaptiveEmbedding, AdaptiveEmbeddingParameters};
use crate::spec::adaptive_log_softmax::ClassOrder;
use std::fmt;
use std::sync::Arc;

pub(in crate::check) const ENTRY: Entry = Entry {
    name: "adaptive-embedding",
    cases: Draw { shape, rest: case },
    calls: Calls { draw, run, expect, saved: None },
    evaluated: None,
    measured: &[],
    traits: Traits::LAYER,
};

/// Options and tensors, owned.
#[derive(Debug)]
struct EmbeddingCall {
    embedding: AdaptiveEmbedding,
    parameters: AdaptiveEmbeddingParameters<Tensor>,
    index: Tensor,
    /// Whether parameters have gradients that are numbers.
    finite: bool,
}

impl Call for EmbeddingCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EmbeddingCall { embedding, index, .. } = self;
        let cut = &embedding.cut;
        write!(f, ", classes {}, cutoffs {:?}", cut.classes, cut.cutoffs)?;
        let widths: Vec<usize> = (0..cut.clusters()).map(|i| cut.width(i)).collect();
        write!(f, ", widths {widths:?}, index {}", index.dtype())?;
        write!(f, ", class_order {}", cut.class_order.is_some())?;
        write!(f, ", padding_idx {:?}", embedding.padding_idx)
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let parameters = self.parameters.try_map(|_, p| p.view().to_f64())?;
        let (grad, index) = (case.input()?.to_f64()?, reference::indices(self.index.view())?);
        let out = reference::adaptive_embedding(&self.embedding, &parameters, &index, &grad);
        let mut expected = vec![Expected::product(Quantity::Output, out.output)];
        if self.finite {
            expected.push(layer::gradients(out.grads.into_iter()));
        }
        Ok(expected)
    }

    /// Lookups, and the gradients of all parameters. Products are f32 everywhere.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let (embedding, view, index) = (&self.embedding, self.parameters.view(), self.index.view());
        let out = embedding.forward(device, &view, index)?;
        let mut outcomes = vec![Outcome::new(Quantity::Output, "forward", out.view())?];
        let grads = embedding.backward(device, &view, index, case.input()?)?;
        if self.finite {
            let named = grads.into_named().into_iter();
            let named = named.map(|(_, grad)| grad);
            outcomes.push(layer::all_gradients(case.dtype, "backward", named)?);
        }
        Ok(outcomes)
    }
}

/// Rows of gradients, of which there may be many of one class.
fn shape(random: &mut Random) -> Vec<usize> {
    let rows = if random.one_in(20) { 2100 } else { random.below(80) };
    vec![rows, random.pick(&[1, 2, 3, 8, 17, 33, 130])]
}

fn case(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { values, dtype, shape, .. } = *first;
    let (rows, features) = (shape[0], shape[1]);
    let classes = random.pick(&[2, 3, 40, 300, 70_000]);
    let mut cutoffs: Vec<usize> =
        (0..1 + random.below(4)).map(|_| 1 + random.below(classes - 1)).collect();
    cutoffs.sort_unstable();
    cutoffs.dedup();
    let widths: Vec<usize> = cutoffs.iter().map(|_| random.below(2 + features.min(20))).collect();
    let dtype_of_index = random.pick(&INDICES);
    let legal = if dtype_of_index == DType::U8 { classes.min(256) } else { classes };
    // Of few classes each comes often.
    let distinct = random.pick(&[1, 3, legal]).min(legal);
    let at = random.below(legal - distinct + 1);
    let index: Vec<f64> = (0..rows).map(|_| (at + random.below(distinct)) as f64).collect();
    let mut embedding = AdaptiveEmbedding::new(features, classes, &cutoffs).widths(Some(widths));
    if random.one_in(3) {
        let counts: Vec<u64> = (0..classes).map(|_| random.below(50) as u64).collect();
        embedding = embedding.class_order(Some(Arc::new(ClassOrder::from_counts(&counts)?)));
    }
    if random.one_in(3) {
        embedding = embedding.padding_idx(Some((at + random.below(distinct)) as i64));
    }
    let parameters =
        embedding.shapes()?.try_map(|_, shape| layer::parameter(random, dtype, shape, 0.4))?;
    Ok(Box::new(EmbeddingCall {
        embedding,
        parameters,
        index: typed::tensor(dtype_of_index, &[rows], &index)?,
        finite: values.finite(),
    }))
}

const FORMS: [&str; 4] = ["forward", "forward_into", "backward", "backward_into"];

fn draw(d: &mut Draft) {
    let form = d.form(&FORMS);
    let clusters = draw_clusters(d);
    let (features, classes) = (clusters.features, clusters.classes);
    let rows = match d.random.below(6) {
        0 => vec![],
        1 => vec![d.random.below(4), 1 + d.random.below(4)],
        _ => vec![d.random.below(20)],
    };
    let shape = [&rows[..], &[features]].concat();

    let padding = d.random.below(classes) as i64;
    d.option("padding_idx", Setpoint::Unset, &[padding, 0, -1].map(Setpoint::Integer));

    d.targets("index", classes, &rows, "N");
    let ignore = d.call.settings.pop();
    if let (Some(ignore), Some(index)) = (ignore, d.call.tensors.last_mut()) {
        // Nothing is ignored here.
        if let Setpoint::Integer(ignored) = ignore.value {
            index.values.iter_mut().filter(|v| **v == ignored as f64).for_each(|v| *v = 0.0);
        }
    }
    let mut parameters = vec![("shortlist".to_owned(), vec![clusters.cutoffs[0], features])];
    parameters.extend(clusters.tails());
    for (name, shape) in &parameters {
        let data = d.normal(shape, 0.4);
        d.given((name, Role::Read), (d.dtype, shape, ""), data);
    }
    match form {
        "forward" => {}
        "forward_into" => {
            d.out("output", d.dtype, &shape, "N");
        }
        form => {
            let data = d.features(&shape);
            d.given(("grad_output", Role::Read), (d.dtype, &shape, "N"), data);
            if form == "backward_into" {
                draw_parameter_gradients(d, &parameters);
            }
        }
    }
}

fn parameters<T>(
    b: &Bound<'_>,
    prefix: &str,
    get: impl Fn(&str) -> Option<T>,
) -> Option<AdaptiveEmbeddingParameters<T>> {
    Some(AdaptiveEmbeddingParameters {
        shortlist: get(&format!("{prefix}shortlist"))?,
        tails: b.tails(prefix, get),
    })
}

fn embedding(b: &Bound<'_>) -> Result<AdaptiveEmbedding> {
    let classes = b.count("classes");
    let cutoffs = b.list("cutoffs").unwrap_or_default();
    let mut embedding = AdaptiveEmbedding::new(b.count("features"), classes, &cutoffs)
        .widths(b.list("widths"))
        .padding_idx(b.optional_integer("padding_idx"));
    if let Some(bytes) = b.optional_integer("workspace") {
        embedding = embedding.workspace(usize::try_from(bytes).unwrap_or(0));
    }
    if b.flag("class_order") {
        embedding = embedding.class_order(Some(order(b.call.seed, classes)?));
    }
    Ok(embedding)
}

fn run(b: &Bound<'_>) -> Result<()> {
    let (embedding, device, index) = (embedding(b)?, b.device, b.tensor("index"));
    let Some(view) = parameters(b, "", |name| b.optional(name)) else { return Ok(()) };
    match b.call.form {
        "forward" => b.give("output", embedding.forward(device, &view, index)?),
        "forward_into" => embedding.forward_into(device, &view, index, b.out("output"))?,
        "backward" => {
            let grads = embedding.backward(device, &view, index, b.tensor("grad_output"))?;
            for (name, grad) in grads.into_named() {
                b.give(&format!("grad_{name}"), grad);
            }
        }
        _ => {
            let written = parameters(b, "grad_", |name| b.optional_out(name));
            let Some(written) = written else { return Ok(()) };
            let (data, gradients) =
                ((index, b.tensor("grad_output")), (written, b.flag("accumulate")));
            embedding.backward_into(device, &view, data, gradients)?;
        }
    }
    Ok(())
}

fn expect(b: &Bound<'_>) -> Result<Reference> {
    let view = parameters(b, "", |name| b.optional(name));
    let Some(view) = view else { return Ok(Reference::default()) };
    let (embedding, parameters) = (embedding(b)?, view.try_map(|_, p| p.to_f64())?);
    let index = reference::indices(b.tensor("index"))?;
    let grad = match b.optional("grad_output") {
        Some(grad) => grad.to_f64()?,
        None => vec![0.0; index.len() * embedding.features()],
    };
    let out = reference::adaptive_embedding(&embedding, &parameters, &index, &grad);
    // In the order in which the parameters are named.
    let names = parameters.into_named().into_iter().map(|(name, _)| name);
    Ok(Reference {
        gradients: named_gradients(b, names.zip(out.grads))?,
        ..vec![Expected::product(Quantity::Output, out.output)].into()
    })
}
