//! Log-probability and entropy.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::bench::logprob_entropy::LogprobEntropyBench;
use crate::check::bench::{Kind, Measured};
use crate::check::call::bound::Bound;
use crate::check::call::draft::Draft;
use crate::check::call::{Role, Setpoint};
use crate::check::case::{Call, Case, Draw, First};
use crate::check::draw::targets::{Targets, unread};
use crate::check::draw::{Upstream, logits_shape};
use crate::check::entry::{Calls, Entry, Reference, Traits};
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::{reference, typed};
use crate::device::Device;
use crate::spec::logprob_entropy::{
    LogprobEntropy, LogprobEntropyOut, LogprobEntropyOutput, LogprobEntropyUpstream,
};
use std::fmt;

pub(in crate::check) const ENTRY: Entry = Entry {
    name: "logprob-entropy",
    cases: Draw { shape: logits_shape, rest: case },
    calls: Calls { draw, run, expect, saved: Some(("lse", lse)) },
    evaluated: None,
    measured: &[Measured {
        name: "logprob-entropy",
        help: "Fused in place where forward-backward; both results have a gradient",
        kind: Kind::Rows(&LogprobEntropyBench),
    }],
    traits: Traits::PLAIN,
};

#[derive(Debug)]
struct LogprobEntropyCall {
    targets: Targets,
    options: LogprobEntropy,
    grad_logprob: Upstream,
    grad_entropy: Upstream,
}

impl LogprobEntropyCall {
    fn upstream(&self) -> LogprobEntropyUpstream<'_> {
        LogprobEntropyUpstream {
            grad_logprob: self.grad_logprob.view(),
            grad_entropy: self.grad_entropy.view(),
        }
    }
}

impl Call for LogprobEntropyCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogprobEntropyCall { targets, options, grad_logprob, grad_entropy } = self;
        let rows = &options.rows;
        write!(f, ", target {}, ignore_index {}", targets.indices.dtype(), rows.ignore_index)?;
        write!(f, ", logit_scale {}, softcap {:?}", rows.logit_scale, rows.softcap)?;
        write!(f, ", grad_logprob {grad_logprob}, grad_entropy {grad_entropy}")
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let x = case.input()?.to_f64()?;
        let target = reference::indices(self.targets.indices.view())?;
        let a = reference::upstream(self.grad_logprob.view())?;
        let b = reference::upstream(self.grad_entropy.view())?;
        let out = reference::logprob_entropy(&self.options, &case.shape, &x, &target, [&a, &b]);
        let [argmax, rank] = reference::ranks(&case.shape, &x, &target, self.targets.ignore_index);
        Ok(vec![
            Expected::term(Quantity::Output, out.logprob),
            Expected::term(Quantity::Entropy, out.entropy),
            Expected::term(Quantity::Lse, out.lse),
            Expected::gradient(Quantity::Gradient, out.grad_logits),
            Expected::term(Quantity::Argmax, argmax),
            Expected::term(Quantity::Rank, rank),
        ])
    }

    /// Forward with ranks, backward from its log-sum-exp, and the fused call on a copy of the
    /// logits.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let (logits, target) = (case.input()?, self.targets.indices.view());
        let (out, ranks) = self.options.forward_with_ranks(device, logits, target)?;
        let grad =
            self.options.backward(device, logits, target, out.lse.view(), self.upstream())?;

        let mut memory = case.memory.clone();
        let mut logprob = Tensor::zeros_for("logprob", DType::F32, target.shape())?;
        let mut entropy = Tensor::zeros_for("entropy", DType::F32, target.shape())?;
        let fused = LogprobEntropyOut::new(logprob.view_mut(), entropy.view_mut());
        let view = typed::strided_mut(&mut memory, &case.shape, case.row_stride)?;
        self.options.forward_backward_in_place(device, view, target, self.upstream(), fused)?;
        let pass = "forward-backward";
        let gradient = typed::strided(&memory, &case.shape, case.row_stride)?;
        Ok(vec![
            Outcome::new(Quantity::Output, "forward", out.logprob.view())?,
            Outcome::new(Quantity::Entropy, "forward", out.entropy.view())?,
            Outcome::new(Quantity::Lse, "forward", out.lse.view())?,
            Outcome::new(Quantity::Argmax, "forward", ranks.argmax.view())?,
            Outcome::new(Quantity::Rank, "forward", ranks.rank.view())?,
            Outcome::new(Quantity::Gradient, "backward", grad.view())?,
            Outcome::new(Quantity::Output, pass, logprob.view())?,
            Outcome::new(Quantity::Entropy, pass, entropy.view())?,
            Outcome::new(Quantity::Gradient, pass, gradient)?,
            case.padding(pass, &memory)?,
        ])
    }

    fn unread(&self, case: &Case) -> Result<Vec<usize>> {
        unread(case, self.targets.indices.view(), self.targets.ignore_index)
    }
}

fn case(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { values, dtype, shape, .. } = *first;
    let class_dim = usize::from(shape.len() > 1);
    let mut rows = shape.to_vec();
    rows.remove(class_dim);
    let targets = Targets::draw(random, shape[class_dim], &rows)?;
    let scales: &[f32] = if values.moderate() { &[1.0, 0.7, 2.0, 16.0] } else { &[1.0, 0.5, 2.0] };
    let caps: &[Option<f32>] = if values.moderate() { &[None, None, Some(30.0)] } else { &[None] };
    let options = LogprobEntropy::default()
        .ignore_index(targets.ignore_index)
        .logit_scale(random.pick(scales))
        .softcap(random.pick(caps));
    let count: usize = rows.iter().product();
    let mut upstream = |default: f32| -> Result<Upstream> {
        Ok(match random.below(3) {
            0 => Upstream::Number(default),
            1 => Upstream::Number(random.normal()),
            _ => {
                let g: Vec<f64> = (0..count).map(|_| random.normal().into()).collect();
                let dtype = random.pick(&[DType::F32, dtype]);
                Upstream::Tensor(typed::tensor(dtype, &rows, &g)?)
            }
        })
    };
    let (grad_logprob, grad_entropy) = (upstream(1.0)?, upstream(0.0)?);
    Ok(Box::new(LogprobEntropyCall { targets, options, grad_logprob, grad_entropy }))
}

const FORMS: [&str; 8] = [
    "forward",
    "forward_with_ranks",
    "forward_into",
    "backward",
    "backward_into",
    "backward_in_place",
    "forward_backward_in_place",
    "forward_backward",
];

fn draw(d: &mut Draft) {
    let form = d.form(&FORMS);
    let shape = d.logits_shape();
    let role = match form {
        "backward_in_place" | "forward_backward_in_place" => Role::Both,
        "forward_backward" => Role::Consumed,
        _ => Role::Read,
    };
    let (rows, letters) = (&shape.rows[..], &shape.row_letters[..]);
    let data = d.numbers(&shape.shape);
    d.given(("logits", role), (d.dtype, &shape.shape, shape.letters), data);
    d.targets("target", shape.classes, rows, letters);
    d.number("logit_scale", 1.0, &[0.5, 2.0, 0.7]);
    d.option("softcap", Setpoint::Unset, &[Setpoint::Number(30.0), Setpoint::Number(0.5)]);
    if form.contains("backward") {
        d.upstream("grad_logprob", rows, letters);
        d.upstream("grad_entropy", rows, letters);
    }
    if form.starts_with("backward") {
        d.given(("lse", Role::Read), (DType::F32, rows, letters), Vec::new());
    }
    if form == "backward_into" {
        d.out("grad_logits", d.dtype, &shape.shape, shape.letters);
    }
    if matches!(form, "forward_into" | "forward_backward_in_place") {
        d.out("logprob", DType::F32, rows, letters);
        d.out("entropy", DType::F32, rows, letters);
        d.optional_out("lse", DType::F32, rows, letters);
        d.optional_out("argmax", DType::I64, rows, letters);
        d.optional_out("rank", DType::I64, rows, letters);
    }
}

fn loss(b: &Bound<'_>) -> LogprobEntropy {
    LogprobEntropy::default()
        .ignore_index(b.integer("ignore_index"))
        .logit_scale(b.float("logit_scale"))
        .softcap(b.optional_number("softcap").map(|cap| cap as f32))
}

fn upstream<'a>(b: &Bound<'a>) -> LogprobEntropyUpstream<'a> {
    let [grad_logprob, grad_entropy] =
        ["grad_logprob", "grad_entropy"].map(|name| b.upstream(name));
    LogprobEntropyUpstream { grad_logprob, grad_entropy }
}

fn outputs<'a>(b: &Bound<'a>) -> LogprobEntropyOut<'a> {
    LogprobEntropyOut {
        lse: b.optional_out("lse"),
        argmax: b.optional_out("argmax"),
        rank: b.optional_out("rank"),
        ..LogprobEntropyOut::new(b.out("logprob"), b.out("entropy"))
    }
}

fn give(b: &Bound<'_>, out: LogprobEntropyOutput) {
    b.give("logprob", out.logprob);
    b.give("entropy", out.entropy);
    b.give("lse", out.lse);
}

fn run(b: &Bound<'_>) -> Result<()> {
    let (op, device, target) = (loss(b), b.device, b.tensor("target"));
    match b.call.form {
        "forward" => give(b, op.forward(device, b.tensor("logits"), target)?),
        "forward_with_ranks" => {
            let (out, ranks) = op.forward_with_ranks(device, b.tensor("logits"), target)?;
            give(b, out);
            b.give("argmax", ranks.argmax);
            b.give("rank", ranks.rank);
        }
        "forward_into" => op.forward_into(device, b.tensor("logits"), target, outputs(b))?,
        "backward" => {
            let (logits, lse) = (b.tensor("logits"), b.tensor("lse"));
            b.give("grad_logits", op.backward(device, logits, target, lse, upstream(b))?);
        }
        "backward_into" => {
            let saved = (target, b.tensor("lse"));
            let grad = b.out("grad_logits");
            op.backward_into(device, b.tensor("logits"), saved, upstream(b), grad)?;
        }
        "backward_in_place" => {
            op.backward_in_place(device, b.out("logits"), target, b.tensor("lse"), upstream(b))?;
        }
        "forward_backward_in_place" => {
            let logits = b.out("logits");
            op.forward_backward_in_place(device, logits, target, upstream(b), outputs(b))?;
        }
        _ => {
            let grad = op.forward_backward(device, b.consumed("logits"), target, upstream(b))?;
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
    let (logits, op) = (b.tensor("logits"), loss(b));
    let (x, shape) = (logits.to_f64()?, logits.shape());
    let target = reference::indices(b.tensor("target"))?;
    let upstream = upstream(b);
    let grad_logprob = reference::upstream(upstream.grad_logprob)?;
    let grad_entropy = reference::upstream(upstream.grad_entropy)?;
    let g = [&grad_logprob[..], &grad_entropy[..]];
    let out = reference::logprob_entropy(&op, &shape, &x, &target, g);
    let [argmax, rank] = reference::ranks(&shape, &x, &target, op.rows.ignore_index);
    let coarse = reference::coarseness(&op.rows, &x);
    let expected = [
        Expected::term(Quantity::Output, out.logprob),
        Expected::term(Quantity::Entropy, out.entropy),
        Expected::term(Quantity::Lse, out.lse),
        Expected::summed_gradient(Quantity::Gradient, out.grad_logits, out.grad_logits_size),
        Expected::term(Quantity::Argmax, argmax),
        Expected::term(Quantity::Rank, rank),
    ];
    Ok(expected.map(|one| one.coarser(coarse)).to_vec().into())
}
