//! Adaptive embeddings.

use super::{Reference, Row};
use crate::base::error::Result;
use crate::check::differential::bound::Bound;
use crate::check::differential::call::{Role, Setpoint};
use crate::check::differential::draft::Draft;
use crate::check::reference;
use crate::check::subject::{Expected, Quantity};
use crate::spec::adaptive_embedding::{AdaptiveEmbedding, AdaptiveEmbeddingParameters};

pub(super) const ROW: Row = Row { draw, run, expect, saved: None };

const FORMS: [&str; 4] = ["forward", "forward_into", "backward", "backward_into"];

fn draw(d: &mut Draft) {
    let form = d.form(&FORMS);
    let clusters = super::draw_clusters(d);
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
                super::draw_parameter_gradients(d, &parameters);
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
        embedding = embedding.class_order(Some(super::order(b.call.seed, classes)?));
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
        gradients: super::named_gradients(b, names.zip(out.grads))?,
        ..vec![Expected::product(Quantity::Output, out.output)].into()
    })
}
