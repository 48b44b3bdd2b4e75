//! Log-probability and entropy of hidden states times a classifier.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::{Tensor, TensorRef};
use crate::check::bench::{Kind, Layer, Measured};
use crate::check::call::bound::Bound;
use crate::check::call::clusters::{draw_gradients, named_gradients};
use crate::check::call::draft::Draft;
use crate::check::call::{Role, Setpoint};
use crate::check::case::{Call, Case, Draw, First};
use crate::check::draw::targets::Targets;
use crate::check::draw::{Upstream, layer, upstream};
use crate::check::entry::{Calls, Entry, Reference, Traits};
use crate::check::ops::linear_cross_entropy::calls::{gradients, input};
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::reference::{self, LinearData, LinearReference, LinearTarget};
use crate::check::typed;
use crate::device::Device;
use crate::spec::linear_cross_entropy::LinearInput;
use crate::spec::linear_logprob_entropy::LinearLogprobEntropy;
use crate::spec::logprob_entropy::{
    LogprobEntropy, LogprobEntropyOut, LogprobEntropyOutput, LogprobEntropyUpstream,
};
use std::fmt;

pub(in crate::check) const ENTRY: Entry = Entry {
    name: "linear-logprob-entropy",
    cases: Draw { shape: layer::shape, rest: case },
    calls: Calls { draw, run, expect, saved: None },
    evaluated: None,
    measured: &[Measured {
        name: "linear-logprob-entropy",
        help: "Hidden states and a classifier to both results and all gradients of both",
        kind: Kind::Products(Layer::LinearLogprobEntropy),
    }],
    traits: Traits { factors: &["temperature"], ..Traits::LAYER },
};

/// What is right of these tensors and upstream gradients.
fn right(
    op: &LinearLogprobEntropy,
    of: &LinearInput<'_>,
    upstream: LogprobEntropyUpstream<'_>,
) -> Result<LinearReference> {
    let owned = |tensor: Option<TensorRef<'_>>| tensor.map(|tensor| tensor.to_f64()).transpose();
    let (input, weight) = (of.input.to_f64()?, of.linear_weight.to_f64()?);
    let (bias, temperature) = (owned(of.linear_bias)?, owned(of.temperature)?);
    let target = reference::indices(of.target)?;
    let LogprobEntropyUpstream { grad_logprob, grad_entropy } = upstream;
    let (a, b) = (reference::upstream(grad_logprob)?, reference::upstream(grad_entropy)?);
    let features = of.input.shape().last().copied().unwrap_or(1);
    let classifier = (&weight[..], of.linear_weight.shape()[0]);
    let data = LinearData {
        bias: bias.as_deref(),
        temperature: temperature.as_deref(),
        upstream: [&[0.0], &a, &b],
        ..LinearData::new((&input, features), classifier, LinearTarget::Classes(&target))
    };
    Ok(reference::linear_cross_entropy(&op.linear.of_logits, &data))
}

/// Its results, and the gradients of parameters apart.
fn expected(right: LinearReference) -> (Vec<Expected>, [reference::WithSizes; 2]) {
    let expected = vec![
        Expected::product(Quantity::Output, right.logprob),
        Expected::product(Quantity::Entropy, right.entropy),
        Expected::product(Quantity::Lse, right.lse),
        Expected::product(Quantity::Gradient, right.grad_input),
    ];
    (expected, [right.grad_weight, right.grad_bias])
}

/// Options and tensors, owned.
#[derive(Debug)]
struct LinearLogprobCall {
    op: LinearLogprobEntropy,
    targets: Targets,
    weight: Tensor,
    bias: Option<Tensor>,
    temperature: Option<Tensor>,
    grad_logprob: Upstream,
    grad_entropy: Upstream,
    /// Whether parameters have gradients that are numbers: no hidden state is infinite.
    finite: bool,
}

impl LinearLogprobCall {
    fn input<'a>(&'a self, input: TensorRef<'a>) -> LinearInput<'a> {
        LinearInput {
            linear_bias: self.bias.as_ref().map(Tensor::view),
            temperature: self.temperature.as_ref().map(Tensor::view),
            ..LinearInput::new(input, self.weight.view(), self.targets.indices.view())
        }
    }

    fn upstream(&self) -> LogprobEntropyUpstream<'_> {
        let [grad_logprob, grad_entropy] =
            [&self.grad_logprob, &self.grad_entropy].map(Upstream::view);
        LogprobEntropyUpstream { grad_logprob, grad_entropy }
    }
}

impl Call for LinearLogprobCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LinearLogprobCall { targets, weight, grad_logprob, grad_entropy, .. } = self;
        let options = &self.op.linear.of_logits;
        write!(f, ", linear_weight {}, bias {}", weight.shape(), self.bias.is_some())?;
        write!(f, ", target {}, ignore_index {}", targets.indices.dtype(), options.ignore_index)?;
        write!(f, ", temperature {}", self.temperature.is_some())?;
        write!(f, ", logit_scale {}, softcap {:?}", options.logit_scale, options.softcap)?;
        write!(f, ", grad_logprob {grad_logprob}, grad_entropy {grad_entropy}")
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        // Without its gaps: the reference takes a vector's elements as neighbours.
        let packed = layer::packed(case)?;
        let right = right(&self.op, &self.input(packed.view()), self.upstream())?;
        let (mut all, [weight, bias]) = expected(right);
        if self.finite {
            let bias = self.bias.is_some().then_some(bias);
            all.push(layer::gradients([Some(weight), bias].into_iter().flatten()));
        }
        Ok(all)
    }

    /// Forward, and all of it with gradients.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let packed = layer::packed(case)?;
        let input = layer::input(case, &packed)?;
        let input = self.input(input);
        let forward = self.op.forward(device, &input)?;
        let both = self.op.forward_backward(device, &input, self.upstream())?;
        let mut outcomes = Vec::new();
        for (pass, out) in [("forward", &forward), ("forward-backward", &both.output)] {
            outcomes.push(Outcome::new(Quantity::Output, pass, out.logprob.view())?);
            outcomes.push(Outcome::new(Quantity::Entropy, pass, out.entropy.view())?);
            outcomes.push(Outcome::new(Quantity::Lse, pass, out.lse.view())?);
        }
        let pass = "forward-backward";
        outcomes.push(Outcome::new(Quantity::Gradient, pass, both.input.view())?);
        if self.finite {
            let parts = [Some(both.linear_weight), both.linear_bias].into_iter().flatten();
            outcomes.push(layer::all_gradients(case.dtype, pass, parts)?);
        }
        Ok(outcomes)
    }

    fn unread(&self, case: &Case) -> Result<Vec<usize>> {
        layer::unread(case, self.targets.indices.view(), self.targets.ignore_index)
    }
}

fn case(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { values, dtype, shape, .. } = *first;
    let (rows, features) = (&shape[..shape.len() - 1], shape[shape.len() - 1]);
    let classes = random.pick(&[1, 2, 5, 40, 300, 2100]);
    let targets = Targets::draw(random, classes, rows)?;
    let caps: &[Option<f32>] = if values.moderate() { &[None, None, Some(30.0)] } else { &[None] };
    let options = LogprobEntropy::default()
        .ignore_index(targets.ignore_index)
        .logit_scale(random.pick(&[1.0, 0.5, 2.0]))
        .softcap(random.pick(caps));
    let deviation = layer::deviation(random, values, dtype);
    let weight = layer::parameter(random, dtype, &[classes, features], deviation)?;
    let bias = layer::parameter(random, dtype, &[classes], deviation)?;
    let count = rows.iter().product::<usize>();
    let taus: Vec<f64> = (0..count).map(|_| random.pick(&[0.5, 0.7, 1.0, 2.0])).collect();
    let temperature = typed::tensor(DType::F32, rows, &taus)?;
    let mut of = |default: f32| -> Result<Upstream> {
        Ok(match random.below(3) {
            0 => Upstream::Number(default),
            1 => Upstream::Number(random.normal()),
            _ => Upstream::Tensor(upstream(random, dtype, rows)?),
        })
    };
    let (grad_logprob, grad_entropy) = (of(1.0)?, of(0.0)?);
    Ok(Box::new(LinearLogprobCall {
        op: options.into(),
        targets,
        weight,
        bias: (!random.one_in(2)).then_some(bias),
        temperature: (!random.one_in(2)).then_some(temperature),
        grad_logprob,
        grad_entropy,
        finite: values.finite(),
    }))
}

const FORMS: [&str; 5] =
    ["forward", "forward_into", "forward_backward", "forward_backward_into", "backward_into"];

fn draw(d: &mut Draft) {
    let form = d.form(&FORMS);
    let features = d.random.pick(&[1, 2, 3, 8, 17]);
    let classes = d.random.pick(&[1, 2, 3, 5, 12, 40, 300]);
    let shape = [d.random.below(7), features];
    let rows = &shape[..1];
    let data = d.features(&shape);
    // The features are the input's and the classifier's.
    d.given(("input", Role::Read), (d.dtype, &shape, "ND"), data);
    let mut parameters = Vec::new();
    let sizes: [(&str, &[usize], &str); 2] =
        [("linear_weight", &[classes, features], "CD"), ("linear_bias", &[classes], "C")];
    for (name, sizes, letters) in &sizes[..1 + d.random.below(2)] {
        let data = d.normal(sizes, 0.4);
        d.given((name, Role::Read), (d.dtype, sizes, letters), data);
        parameters.push(((*name).to_owned(), sizes.to_vec()));
    }
    d.targets("target", classes, rows, "N");
    let taus = (0..shape[0]).map(|_| d.random.pick(&[0.5, 1.0, 2.0])).collect();
    let present = d.random.one_in(2);
    let given = d.given(("temperature", Role::Read), (DType::F32, rows, "N"), taus);
    (given.optional, given.present) = (true, present);
    d.number("logit_scale", 1.0, &[0.5, 2.0]);
    d.option("softcap", Setpoint::Unset, &[Setpoint::Number(30.0)]);
    d.option("workspace", Setpoint::Unset, &[1 << 20, 64 << 20].map(Setpoint::Integer));
    if form.contains("backward") {
        d.upstream("grad_logprob", rows, "N");
        d.upstream_or("grad_entropy", 0.0, rows, "N");
    }
    if matches!(form, "forward_into" | "forward_backward_into") {
        d.out("logprob", DType::F32, rows, "N");
        d.out("entropy", DType::F32, rows, "N");
        d.optional_out("lse", DType::F32, rows, "N");
    }
    if form.ends_with("backward_into") {
        draw_gradients(d, ("grad_input", &shape, "ND"), &parameters);
    }
}

fn op(b: &Bound<'_>) -> LinearLogprobEntropy {
    let of_logits = LogprobEntropy::default()
        .ignore_index(b.integer("ignore_index"))
        .logit_scale(b.float("logit_scale"))
        .softcap(b.optional_number("softcap").map(|cap| cap as f32));
    let op = LinearLogprobEntropy::from(of_logits);
    match b.optional_integer("workspace") {
        Some(bytes) => op.max_workspace_bytes(usize::try_from(bytes).unwrap_or(0)),
        None => op,
    }
}

fn given_upstream<'a>(b: &Bound<'a>) -> LogprobEntropyUpstream<'a> {
    let [grad_logprob, grad_entropy] = ["grad_logprob", "grad_entropy"].map(|of| b.upstream(of));
    LogprobEntropyUpstream { grad_logprob, grad_entropy }
}

fn run(b: &Bound<'_>) -> Result<()> {
    let (op, input, device) = (op(b), input(b), b.device);
    let out = || LogprobEntropyOut {
        lse: b.optional_out("lse"),
        ..LogprobEntropyOut::new(b.out("logprob"), b.out("entropy"))
    };
    let give = |out: LogprobEntropyOutput| {
        b.give("logprob", out.logprob);
        b.give("entropy", out.entropy);
        b.give("lse", out.lse);
    };
    match b.call.form {
        "forward" => give(op.forward(device, &input)?),
        "forward_into" => op.forward_into(device, &input, out())?,
        "forward_backward" => {
            let grad = op.forward_backward(device, &input, given_upstream(b))?;
            give(grad.output);
            b.give("grad_input", grad.input);
            b.give("grad_linear_weight", grad.linear_weight);
            if let Some(bias) = grad.linear_bias {
                b.give("grad_linear_bias", bias);
            }
        }
        "forward_backward_into" => {
            let (upstream, out) = (given_upstream(b), out());
            op.forward_backward_into(device, &input, upstream, gradients(b), out)?;
        }
        _ => op.backward_into(device, &input, given_upstream(b), gradients(b))?,
    }
    Ok(())
}

fn expect(b: &Bound<'_>) -> Result<Reference> {
    let of = input(b);
    // A pass without gradients has no upstream ones.
    let upstream = match b.call.form.contains("backward") {
        true => given_upstream(b),
        false => LogprobEntropyUpstream::default(),
    };
    let (expected, [weight, bias]) = expected(right(&op(b), &of, upstream)?);
    let bias = of.linear_bias.map(|_| ("linear_bias".to_owned(), bias));
    let grads = [Some(("linear_weight".to_owned(), weight)), bias];
    let gradients = named_gradients(b, grads.into_iter().flatten())?;
    Ok(Reference { gradients, ..expected.into() })
}
