//! Sampled softmax.

use super::{Reference, Row};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::check::differential::bound::Bound;
use crate::check::differential::call::{Role, Setpoint};
use crate::check::differential::draft::Draft;
use crate::check::random::Random;
use crate::check::reference;
use crate::check::subject::{Expected, Quantity};
use crate::spec::output_layer::{LayerGradOut, LayerOut};
use crate::spec::sampled_softmax::{NegativeSampler, SampledParameters, SampledSoftmax};

pub(super) const ROW: Row = Row { draw, run, expect, saved: None };

const FORMS: [&str; 4] = ["forward", "forward_into", "forward_backward", "forward_backward_into"];

fn draw(d: &mut Draft) {
    let form = d.form(&FORMS);
    let features = d.random.pick(&[1, 2, 3, 8, 17]);
    let classes = d.random.pick(&[2, 3, 5, 12, 40, 300]);
    let rows = d.random.below(7);
    let (shape, letters) = match d.random.one_in(8) {
        true => (vec![features], ""),
        false => (vec![rows, features], "N"),
    };
    let rows = shape[..shape.len() - 1].to_vec();
    let samples = 1 + d.random.below(classes.min(40)) as i64;
    d.set("features", Setpoint::Integer(features as i64));
    d.set("classes", Setpoint::Integer(classes as i64));
    let others = [Setpoint::Word("log-uniform"), Setpoint::Word("unigram")];
    d.option("sampler", Setpoint::Word("all"), &others);
    d.set("samples", Setpoint::Integer(samples));
    d.number("alpha", 0.75, &[1.0, 0.0]);
    d.option("unique", Setpoint::Flag(true), &[Setpoint::Flag(false)]);
    d.option("remove_accidental_hits", Setpoint::Flag(true), &[Setpoint::Flag(false)]);
    super::draw_workspace(d);
    let bias = d.random.one_in(2);
    d.set("bias", Setpoint::Flag(bias));

    let data = d.features(&shape);
    d.given(("input", Role::Read), (d.dtype, &shape, letters), data);
    let mut parameters = vec![("weight".to_owned(), vec![classes, features])];
    if bias {
        parameters.push(("bias".to_owned(), vec![classes]));
    }
    for (name, shape) in &parameters {
        let data = d.normal(shape, 0.4);
        d.given((name, Role::Read), (d.dtype, shape, ""), data);
    }
    d.targets("target", classes, &rows, letters);
    let (loss, loss_letters): (&[usize], &str) = match d.reduction(false) {
        Reduction::None => (&rows, letters),
        Reduction::Sum | Reduction::Mean | Reduction::BatchMean => (&[], ""),
    };
    if form.contains("backward") {
        d.upstream("grad_output", loss, loss_letters);
    }
    if form.ends_with("into") {
        d.out("output", DType::F32, &rows, letters);
        d.out("loss", DType::F32, loss, loss_letters);
    }
    if form == "forward_backward_into" {
        super::draw_gradients(d, ("grad_input", &shape, letters), &parameters);
    }
}

fn loss(b: &Bound<'_>) -> Result<SampledSoftmax> {
    let (classes, samples) = (b.count("classes"), b.count("samples"));
    let sampler = match b.word("sampler") {
        "all" => NegativeSampler::all(classes)?,
        "log-uniform" => NegativeSampler::log_uniform(classes, samples)?,
        _ => {
            let mut random = Random::new(b.call.seed);
            let counts: Vec<u64> =
                (0..classes.min(1 << 20)).map(|_| 1 + random.below(50) as u64).collect();
            NegativeSampler::unigram(&counts, b.number("alpha"), samples)?
        }
    };
    let loss = SampledSoftmax::new(b.count("features"), sampler.unique(b.flag("unique")))
        .bias(b.flag("bias"))
        .seed(b.call.seed)
        .remove_accidental_hits(b.flag("remove_accidental_hits"))
        .ignore_index(b.optional_integer("ignore_index"))
        .reduction(b.reduction());
    Ok(match b.optional_integer("workspace") {
        Some(bytes) => loss.workspace(usize::try_from(bytes).unwrap_or(0)),
        None => loss,
    })
}

fn run(b: &Bound<'_>) -> Result<()> {
    let loss = loss(b)?;
    let view = SampledParameters { weight: b.tensor("weight"), bias: b.optional("bias") };
    let (device, input, target) = (b.device, b.tensor("input"), b.tensor("target"));
    let g = b.upstream("grad_output");
    let out = || LayerOut { output: b.out("output"), loss: b.out("loss") };
    match b.call.form {
        "forward" => super::give_output(b, loss.forward(device, &view, input, target)?),
        "forward_into" => loss.forward_into(device, &view, (input, target), out())?,
        "forward_backward" => {
            let grad = loss.forward_backward(device, &view, input, target, g)?;
            super::give_output(b, grad.output);
            b.give("grad_input", grad.input);
            b.give("grad_weight", grad.parameters.weight);
            if let Some(bias) = grad.parameters.bias {
                b.give("grad_bias", bias);
            }
        }
        _ => {
            let written = b.optional_out("grad_weight");
            let parameters = written
                .map(|weight| SampledParameters { weight, bias: b.optional_out("grad_bias") });
            let gradients = LayerGradOut {
                input: b.optional_out("grad_input"),
                parameters,
                accumulate: b.flag("accumulate"),
            };
            loss.forward_backward_into(device, &view, (input, target), g, (out(), gradients))?;
        }
    }
    Ok(())
}

fn expect(b: &Bound<'_>) -> Result<Reference> {
    let loss = loss(b)?;
    let view = SampledParameters { weight: b.tensor("weight"), bias: b.optional("bias") };
    let parameters = view.try_map(|_, p| p.to_f64())?;
    let (input, target) = (b.tensor("input").to_f64()?, reference::indices(b.tensor("target"))?);
    let g = reference::upstream(b.upstream("grad_output"))?;
    let out = reference::sampled_softmax(&loss, &parameters, (&input, &target), &g);
    let bias = out.grads.bias.map(|bias| ("bias".to_owned(), bias));
    let grads = [Some(("weight".to_owned(), out.grads.weight)), bias];
    Ok(Reference {
        gradients: super::named_gradients(b, grads.into_iter().flatten())?,
        ..vec![
            Expected::product(Quantity::Loss, out.loss),
            Expected::product(Quantity::Output, out.output),
            Expected::product(Quantity::Gradient, out.grad_input),
        ]
        .into()
    })
}
