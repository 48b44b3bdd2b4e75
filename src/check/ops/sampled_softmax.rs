//! Sampled softmax.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::Tensor;
use crate::check::call::bound::Bound;
use crate::check::call::clusters::{draw_gradients, draw_workspace, give_output, named_gradients};
use crate::check::call::draft::Draft;
use crate::check::call::{Role, Setpoint};
use crate::check::case::{Call, Case, Draw, First};
use crate::check::draw::labels::grad_output;
use crate::check::draw::targets::Targets;
use crate::check::draw::{Upstream, layer};
use crate::check::entry::{Calls, Entry, Reference, Traits};
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::reference;
use crate::device::Device;
use crate::spec::output_layer::{LayerGradOut, LayerOut};
use crate::spec::sampled_softmax::{NegativeSampler, SampledParameters, SampledSoftmax};
use std::fmt;

pub(in crate::check) const ENTRY: Entry = Entry {
    name: "sampled-softmax",
    cases: Draw { shape: layer::shape, rest: case },
    calls: Calls { draw, run, expect, saved: None },
    evaluated: None,
    measured: &[],
    traits: Traits::LAYER,
};

/// Options and tensors, owned.
#[derive(Debug)]
struct SampledCall {
    loss: SampledSoftmax,
    sampler: &'static str,
    parameters: SampledParameters<Tensor>,
    target: Tensor,
    ignore_index: i64,
    grad_output: Upstream,
    /// Whether parameters have gradients that are numbers: no hidden state is infinite.
    finite: bool,
}

impl Call for SampledCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SampledCall { loss, sampler, target, ignore_index, grad_output, .. } = self;
        let (classes, samples) = (loss.classes(), loss.sampler.samples());
        write!(f, ", classes {classes}, {sampler} samples {samples}, seed {}", loss.seed)?;
        write!(f, ", bias {}, remove_accidental_hits {}", loss.bias, loss.remove_accidental_hits)?;
        write!(f, ", {}, target {}", loss.reduction, target.dtype())?;
        write!(f, ", ignore_index {ignore_index}, grad_output {grad_output}")
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let parameters = self.parameters.try_map(|_, p| p.view().to_f64())?;
        let (input, target) = (case.input()?.to_f64()?, reference::indices(self.target.view())?);
        let g = reference::upstream(self.grad_output.view())?;
        let data = (&input[..], &target[..]);
        let out = reference::sampled_softmax(&self.loss, &parameters, data, &g);
        let mut expected = vec![
            Expected::product(Quantity::Loss, out.loss),
            Expected::product(Quantity::Output, out.output),
            Expected::product(Quantity::Gradient, out.grad_input),
        ];
        if self.finite {
            let parts = [Some(out.grads.weight), out.grads.bias];
            expected.push(layer::gradients(parts.into_iter().flatten()));
        }
        Ok(expected)
    }

    /// Forward, and forward and backward.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let packed = layer::packed(case)?;
        let (input, target) = (layer::input(case, &packed)?, self.target.view());
        let (loss, view, g) = (&self.loss, self.parameters.view(), self.grad_output.view());
        let out = loss.forward(device, &view, input, target)?;
        let grad = loss.forward_backward(device, &view, input, target, g)?;
        let parts = [Some(grad.parameters.weight), grad.parameters.bias];
        let parameters = self.finite.then(|| parts.into_iter().flatten().collect());
        layer::passes(&out, (&grad.output, &grad.input), parameters)
    }

    fn unread(&self, case: &Case) -> Result<Vec<usize>> {
        layer::unread(case, self.target.view(), self.ignore_index)
    }
}

fn case(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { values, dtype, shape, .. } = *first;
    let (rows, features) = (&shape[..shape.len() - 1], shape[shape.len() - 1]);
    let classes = random.pick(&[2, 5, 40, 300, 2100]);
    let most = classes.min(100);
    let (name, sampler) = match random.below(4) {
        0 => ("all", NegativeSampler::all(classes)?),
        1 => ("log-uniform", NegativeSampler::log_uniform(classes, 1 + random.below(most))?),
        _ => {
            let counts: Vec<u64> = (0..classes).map(|_| 1 + random.below(50) as u64).collect();
            let alpha = random.pick(&[1.0, 0.75, 0.0]);
            let samples = 1 + random.below(most);
            ("unigram", NegativeSampler::unigram(&counts, alpha, samples)?)
        }
    };
    let reduction = random.pick(&[Reduction::None, Reduction::Sum, Reduction::Mean]);
    let Targets { indices, ignore_index } = Targets::draw(random, classes, rows)?;
    let loss = SampledSoftmax::new(features, sampler.unique(random.one_in(2)))
        .bias(random.one_in(2))
        .seed(random.next())
        .step(random.below(1000) as u64)
        .remove_accidental_hits(!random.one_in(4))
        .ignore_index(Some(ignore_index))
        .reduction(reduction);
    let deviation = layer::deviation(random, values, dtype);
    let parameters =
        loss.shapes()?.try_map(|_, shape| layer::parameter(random, dtype, shape, deviation))?;
    Ok(Box::new(SampledCall {
        loss,
        sampler: name,
        parameters,
        target: indices,
        ignore_index,
        grad_output: grad_output(random, dtype, reduction, rows)?,
        finite: values.finite(),
    }))
}

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
    draw_workspace(d);
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
        draw_gradients(d, ("grad_input", &shape, letters), &parameters);
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
        "forward" => give_output(b, loss.forward(device, &view, input, target)?),
        "forward_into" => loss.forward_into(device, &view, (input, target), out())?,
        "forward_backward" => {
            let grad = loss.forward_backward(device, &view, input, target, g)?;
            give_output(b, grad.output);
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
        gradients: named_gradients(b, grads.into_iter().flatten())?,
        ..vec![
            Expected::product(Quantity::Loss, out.loss),
            Expected::product(Quantity::Output, out.output),
            Expected::product(Quantity::Gradient, out.grad_input),
        ]
        .into()
    })
}
