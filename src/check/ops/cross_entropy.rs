//! Cross entropy with class indices.

mod tokens;

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::Tensor;
use crate::check::bench::cross_entropy::CrossEntropyBench;
use crate::check::bench::{Kind, Measured};
use crate::check::call::bound::Bound;
use crate::check::call::draft::{Draft, LogitsShape};
use crate::check::call::{Role, Setpoint};
use crate::check::case::{Call, Case, Draw, First};
use crate::check::draw::labels::{Labels, rows_of};
use crate::check::draw::logits_shape;
use crate::check::draw::targets::unread;
use crate::check::entry::{Calls, Entry, Reference, Traits};
use crate::check::ops::cross_entropy::tokens::Tokens;
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::values::Values;
use crate::check::{reference, typed};
use crate::device::Device;
use crate::loss::ranks::topk_accuracy;
use crate::spec::cross_entropy::{
    CrossEntropy, CrossEntropyGradients, CrossEntropyOut, CrossEntropyOutput, CrossEntropyUpstream,
    TopKOut,
};
use std::fmt;

pub(in crate::check) const ENTRY: Entry = Entry {
    name: "cross-entropy",
    cases: Draw { shape: logits_shape, rest: case },
    calls: Calls { draw, run, expect, saved: Some(("lse", lse)) },
    evaluated: None,
    measured: &[Measured {
        name: "cross-entropy",
        help: "Fused in place where forward-backward",
        kind: Kind::Rows(&CrossEntropyBench),
    }],
    traits: Traits::PLAIN,
};

/// Options and tensors, owned.
#[derive(Debug)]
struct CrossEntropyCall {
    labels: Labels,
    options: CrossEntropy<'static>,
    tokens: Tokens,
}

impl CrossEntropyCall {
    /// The loss with its options.
    fn loss(&self) -> CrossEntropy<'_> {
        match &self.labels.weight {
            Some(weight) => self.options.clone().weight(weight.view()),
            None => self.options.clone(),
        }
    }
}

impl Call for CrossEntropyCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CrossEntropyCall { labels, options, tokens } = self;
        write!(f, "{labels}, label_smoothing {}", options.label_smoothing)?;
        write!(f, ", lse_square_scale {}", options.lse_square_scale)?;
        write!(f, ", logit_scale {}, softcap {:?}{tokens}", options.logit_scale, options.softcap)
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let x = case.input()?.to_f64()?;
        let target = reference::indices(self.labels.target.view())?;
        let g = reference::upstream(self.labels.grad_output.view())?;
        let out = reference::cross_entropy(&self.loss(), &case.shape, &x, &target, &g);
        let [argmax, rank] = reference::ranks(&case.shape, &x, &target, self.labels.ignore_index);
        let gradient = (&out.grad_logits[..], &out.grad_logits_size[..]);
        let mut expected = self.tokens.expect(&self.loss(), case, (&x, &target), gradient)?;
        expected.extend([
            Expected::loss(Quantity::Loss, out.loss, out.loss_size),
            Expected::term(Quantity::ZLoss, out.z_loss),
            Expected::term(Quantity::Lse, out.lse),
            Expected::gradient(Quantity::Gradient, out.grad_logits),
            Expected::term(Quantity::Argmax, argmax),
            Expected::term(Quantity::Rank, rank),
        ]);
        Ok(expected)
    }

    /// Forward, with and without ranks, backward from its log-sum-exp, and the fused call on a
    /// copy of the logits; then everything at once.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let (logits, target, loss) = (case.input()?, self.labels.target.view(), self.loss());
        let g = self.labels.grad_output.view();
        let out = loss.forward(device, logits, target)?;
        let grad = loss.backward(device, logits, target, out.lse.view(), g)?;
        let (ranked, ranks) = loss.forward_with_ranks(device, logits, target)?;

        let mut memory = case.memory.clone();
        let mut fused_loss = Tensor::zeros_for("loss", DType::F32, out.loss.shape())?;
        let mut fused_lse = Tensor::zeros_for("lse", DType::F32, out.lse.shape())?;
        let fused = CrossEntropyOut {
            lse: Some(fused_lse.view_mut()),
            ..CrossEntropyOut::loss(fused_loss.view_mut())
        };
        let view = typed::strided_mut(&mut memory, &case.shape, case.row_stride)?;
        loss.forward_backward_in_place(device, view, target, g, fused)?;
        let pass = "forward-backward";
        let gradient = typed::strided(&memory, &case.shape, case.row_stride)?;
        let mut outcomes = self.tokens.compute((&loss, device), case, (target, g))?;
        outcomes.extend([
            Outcome::new(Quantity::Loss, "forward", out.loss.view())?,
            Outcome::new(Quantity::ZLoss, "forward", out.z_loss.view())?,
            Outcome::new(Quantity::Lse, "forward", out.lse.view())?,
            Outcome::new(Quantity::Gradient, "backward", grad.view())?,
            Outcome::new(Quantity::Loss, "forward with ranks", ranked.loss.view())?,
            Outcome::new(Quantity::Argmax, "forward with ranks", ranks.argmax.view())?,
            Outcome::new(Quantity::Rank, "forward with ranks", ranks.rank.view())?,
            Outcome::new(Quantity::Loss, pass, fused_loss.view())?,
            Outcome::new(Quantity::Lse, pass, fused_lse.view())?,
            Outcome::new(Quantity::Gradient, pass, gradient)?,
            case.padding(pass, &memory)?,
        ]);
        Ok(outcomes)
    }

    fn unread(&self, case: &Case) -> Result<Vec<usize>> {
        unread(case, self.labels.target.view(), self.labels.ignore_index)
    }
}

/// Scales and caps whose ratio or whose products with logits may leave f32.
const ENDS: [(f32, Option<f32>); 8] = [
    (1e-20, Some(1e26)),
    (1e30, Some(1e-30)),
    (1e-30, Some(1e30)),
    (1.0, Some(1e-42)),
    (1.0, Some(3e38)),
    (1e-42, None),
    (1e-30, None),
    (1e-20, Some(1e-20)),
];

fn case(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let values = first.values;
    let labels = Labels::draw(random, first)?;
    // Full smoothing of nearly equal logits (an offset makes them so in 16 bits): every gradient
    // is a difference of nearly equal terms, which no f32 keeps to a share of that difference.
    let cancels = matches!(values, Values::Tiny | Values::Equal | Values::Offset);
    let smoothing: &[f64] = if cancels { &[0.0, 0.1] } else { &[0.0, 0.0, 0.1, 1.0] };
    let scales: &[f32] = if values.moderate() { &[1.0, 0.7, 2.0] } else { &[1.0, 0.5, 2.0] };
    let caps: &[Option<f32>] = if values.moderate() { &[None, None, Some(30.0)] } else { &[None] };
    // Now and then from the ends of f32, where logits are neither large nor infinite.
    let ends = values.moderate() && values.finite() && random.one_in(8);
    let (scale, cap) = match ends {
        true => random.pick(&ENDS),
        false => (random.pick(scales), random.pick(caps)),
    };
    let options = CrossEntropy::default()
        .ignore_index(labels.ignore_index)
        .reduction(labels.reduction)
        .label_smoothing(random.pick(smoothing))
        .lse_square_scale(random.pick(&[0.0, 0.0, 1e-4, 0.1]))
        .logit_scale(scale)
        .softcap(cap);
    let (classes, rows) = rows_of(first.shape);
    let tokens = Tokens::draw(random, first, (classes, &rows))?;
    Ok(Box::new(CrossEntropyCall { labels, options, tokens }))
}

const FORMS: [&str; 9] = [
    "forward",
    "forward_with_ranks",
    "forward_into",
    "backward",
    "backward_into",
    "backward_in_place",
    "forward_backward_in_place",
    "forward_backward",
    "topk_accuracy",
];

fn draw(d: &mut Draft) {
    draw_against(d, true);
}

/// A call against class indices, or against a tensor of the logits' size.
pub(super) fn draw_against(d: &mut Draft, indices: bool) {
    let form = d.form(if indices { &FORMS } else { &FORMS[..8] });
    if form == "topk_accuracy" {
        return draw_accuracy(d);
    }
    let shape = d.logits_shape();
    let role = match form {
        "backward_in_place" | "forward_backward_in_place" => Role::Both,
        "forward_backward" => Role::Consumed,
        _ => Role::Read,
    };
    let data = d.numbers(&shape.shape);
    d.given(("logits", role), (d.dtype, &shape.shape, shape.letters), data);
    if indices {
        d.targets("target", shape.classes, &shape.rows, &shape.row_letters);
    } else {
        draw_probabilities(d, &shape);
    }
    d.weight("weight", &[shape.classes], "C");
    let reduction = d.reduction(false);
    // Near 1, equal logits have gradients that are differences of equal terms, which f32 cannot tell.
    d.number("label_smoothing", 0.0, &[0.1, 0.3, 1e-9]);
    d.number("lse_square_scale", 0.0, &[1e-4, 0.1]);
    d.number("logit_scale", 1.0, &[0.5, 2.0, 0.7]);
    d.option("softcap", Setpoint::Unset, &[Setpoint::Number(30.0), Setpoint::Number(0.5)]);
    draw_memory(d, &shape, reduction, indices);
}

/// Probabilities, or a teacher's logits.
fn draw_probabilities(d: &mut Draft, shape: &LogitsShape) {
    let teacher = d.random.one_in(3);
    let scale = d.random.pick(&[1.0, 0.25, 1.5]);
    d.option("teacher_scale", Setpoint::Unset, &[]);
    if teacher {
        let last = d.call.settings.len() - 1;
        d.call.settings[last].value = Setpoint::Number(scale);
    }
    let zeros = d.random.pick(&[1, 4, 1000]);
    let data = match teacher && d.random.one_in(2) {
        true => d.numbers(&shape.shape),
        false => {
            let normal = d.normal(&shape.shape, 1.0);
            let share = 1.0 / shape.classes.max(1) as f64;
            let one = |x: f64, masked: bool| match (teacher, masked) {
                (true, true) => f64::NEG_INFINITY,
                (true, false) => 2.5 * x,
                (false, true) => 0.0,
                (false, false) => x.abs() * share,
            };
            normal.into_iter().map(|x| one(x, d.random.one_in(zeros))).collect()
        }
    };
    d.given(("target", Role::Read), (d.dtype, &shape.shape, shape.letters), data);
}

fn draw_memory(d: &mut Draft, shape: &LogitsShape, reduction: Reduction, indices: bool) {
    let form = d.call.form;
    let (loss, letters) = shape.loss(reduction);
    let (rows, row_letters) = (&shape.rows[..], &shape.row_letters[..]);
    if form.contains("backward") {
        d.upstream("grad_output", loss, letters);
    }
    if form.starts_with("forward_backward") {
        for name in ["grad_logprob", "grad_entropy"] {
            match indices {
                true => d.upstream_or(name, 0.0, rows, row_letters),
                false => d.number(name, 0.0, &[]),
            }
        }
    }
    if form.starts_with("backward") {
        d.given(("lse", Role::Read), (DType::F32, rows, row_letters), Vec::new());
    }
    if form == "backward_into" {
        d.out("grad_logits", d.dtype, &shape.shape, shape.letters);
    }
    if matches!(form, "backward_into" | "backward_in_place" | "forward_backward_in_place") {
        d.optional_out("grad_target", d.dtype, &shape.shape, shape.letters);
        if let Some(last) = d.call.tensors.last_mut() {
            last.present &= !indices;
        }
    }
    if matches!(form, "forward_into" | "forward_backward_in_place") {
        d.out("loss", DType::F32, loss, letters);
        d.optional_out("lse", DType::F32, rows, row_letters);
        d.optional_out("z_loss", DType::F32, loss, letters);
        for (name, dtype) in [
            ("argmax", DType::I64),
            ("rank", DType::I64),
            ("logprob", DType::F32),
            ("entropy", DType::F32),
        ] {
            d.optional_out(name, dtype, rows, row_letters);
            if let Some(last) = d.call.tensors.last_mut() {
                last.present &= indices;
            }
        }
        if indices && d.random.one_in(3) {
            let k = d.random.pick(&[1, 2, 5, 16, 16]).min(shape.classes);
            let (top, letters) = ([rows, &[k]].concat(), format!("{row_letters}K"));
            d.out("top_k.classes", DType::I64, &top, &letters);
            d.out("top_k.logprob", DType::F32, &top, &letters);
        }
    }
}

fn draw_accuracy(d: &mut Draft) {
    let rows = d.random.below(40);
    let ranks = (0..rows).map(|_| d.random.below(12) as f64 - 1.0).collect();
    d.given(("rank", Role::Read), (DType::I64, &[rows], "N"), ranks);
    let lists = [vec![1, 5, 3], vec![0], vec![usize::MAX, 1], vec![]];
    d.option("ks", Setpoint::List(vec![1, 5]), &lists.map(Setpoint::List));
}

fn loss<'a>(b: &Bound<'a>) -> CrossEntropy<'a> {
    let loss = CrossEntropy::default()
        .reduction(b.reduction())
        .label_smoothing(b.number("label_smoothing"))
        .lse_square_scale(b.number("lse_square_scale"))
        .logit_scale(b.float("logit_scale"))
        .softcap(b.optional_number("softcap").map(|cap| cap as f32))
        .teacher_scale(b.optional_number("teacher_scale").map(|scale| scale as f32))
        .ignore_index(b.optional_integer("ignore_index").unwrap_or(-100));
    match b.optional("weight") {
        Some(weight) => loss.weight(weight),
        None => loss,
    }
}

fn give(b: &Bound<'_>, out: CrossEntropyOutput) {
    b.give("loss", out.loss);
    b.give("lse", out.lse);
    b.give("z_loss", out.z_loss);
}

pub(super) fn upstream<'a>(b: &Bound<'a>) -> CrossEntropyUpstream<'a> {
    let [grad_output, grad_logprob, grad_entropy] =
        ["grad_output", "grad_logprob", "grad_entropy"].map(|name| b.upstream(name));
    CrossEntropyUpstream { grad_output, grad_logprob, grad_entropy }
}

fn outputs<'a>(b: &Bound<'a>) -> CrossEntropyOut<'a> {
    let top_k = b
        .optional_out("top_k.classes")
        .map(|classes| TopKOut { classes, logprob: b.out("top_k.logprob") });
    CrossEntropyOut {
        lse: b.optional_out("lse"),
        z_loss: b.optional_out("z_loss"),
        argmax: b.optional_out("argmax"),
        rank: b.optional_out("rank"),
        logprob: b.optional_out("logprob"),
        entropy: b.optional_out("entropy"),
        top_k,
        ..CrossEntropyOut::loss(b.out("loss"))
    }
}

pub(super) fn run(b: &Bound<'_>) -> Result<()> {
    let device = b.device;
    if b.call.form == "topk_accuracy" {
        let found = topk_accuracy(device, b.tensor("rank"), &b.list("ks").unwrap_or_default())?;
        let numbers = [vec![found.kept], found.correct].concat();
        let numbers: Vec<i64> = numbers.into_iter().map(|n| n as i64).collect();
        let n = numbers.len();
        b.give("accuracy", Tensor::from_vec(numbers, &[n])?);
        return Ok(());
    }
    let (loss, target, g) = (loss(b), b.tensor("target"), b.upstream("grad_output"));
    let gradients =
        |name| CrossEntropyGradients { logits: b.out(name), target: b.optional_out("grad_target") };
    match b.call.form {
        "forward" => give(b, loss.forward(device, b.tensor("logits"), target)?),
        "forward_with_ranks" => {
            let (out, ranks) = loss.forward_with_ranks(device, b.tensor("logits"), target)?;
            give(b, out);
            b.give("argmax", ranks.argmax);
            b.give("rank", ranks.rank);
        }
        "forward_into" => loss.forward_into(device, b.tensor("logits"), target, outputs(b))?,
        "backward" => {
            let (logits, lse) = (b.tensor("logits"), b.tensor("lse"));
            b.give("grad_logits", loss.backward(device, logits, target, lse, g)?);
        }
        "backward_into" => {
            let (logits, lse) = (b.tensor("logits"), b.tensor("lse"));
            loss.backward_into(device, logits, (target, lse), g, gradients("grad_logits"))?;
        }
        "backward_in_place" => {
            loss.backward_in_place(device, gradients("logits"), target, b.tensor("lse"), g)?;
        }
        "forward_backward_in_place" => {
            let upstream = upstream(b);
            let logits = gradients("logits");
            loss.forward_backward_in_place(device, logits, target, upstream, outputs(b))?;
        }
        _ => {
            let grad = loss.forward_backward(device, b.consumed("logits"), target, upstream(b))?;
            give(b, grad.output);
            b.give("grad_logits", grad.grad_logits);
        }
    }
    Ok(())
}

pub(super) fn lse(b: &Bound<'_>) -> Result<Tensor> {
    Ok(loss(b).forward(b.device, b.tensor("logits"), b.tensor("target"))?.lse)
}

pub(super) fn expect(b: &Bound<'_>) -> Result<Reference> {
    let (logits, loss) = (b.tensor("logits"), loss(b));
    let (x, shape) = (logits.to_f64()?, logits.shape());
    let g = reference::upstream(b.upstream("grad_output"))?;
    let target = b.tensor("target");
    let mut expected = Vec::new();
    let out = if target.dtype().is_index() {
        let target = reference::indices(target)?;
        let [argmax, rank] = reference::ranks(&shape, &x, &target, loss.ignore_index);
        expected.push(Expected::term(Quantity::Argmax, argmax));
        expected.push(Expected::term(Quantity::Rank, rank));
        let mut out = reference::cross_entropy(&loss, &shape, &x, &target, &g);
        expected.extend(tokens::beside(b, &loss, (&shape, &x, &target), &mut out)?);
        out
    } else {
        let (out, grad_target) =
            reference::soft_cross_entropy(&loss, &shape, &x, &target.to_f64()?, &g);
        let sizes = out.grad_target_size.clone();
        expected.push(Expected::summed_gradient(Quantity::TargetGradient, grad_target, sizes));
        out
    };
    expected.extend([
        Expected::loss(Quantity::Loss, out.loss, out.loss_size),
        Expected::loss(Quantity::ZLoss, out.z_loss, out.z_loss_size),
        Expected::term(Quantity::Lse, out.lse),
        Expected::summed_gradient(Quantity::Gradient, out.grad_logits, out.grad_logits_size),
    ]);
    let coarse = reference::coarseness(&loss, &x);
    Ok(expected.into_iter().map(|one| one.coarser(coarse)).collect::<Vec<_>>().into())
}
