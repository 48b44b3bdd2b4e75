//! Jensen–Shannon divergence from logits.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::Tensor;
use crate::check::bench::js_div_logits::JsDivLogitsBench;
use crate::check::bench::{Kind, Measured};
use crate::check::call::bound::Bound;
use crate::check::call::draft::Draft;
use crate::check::call::{Role, Setpoint};
use crate::check::case::{Call, Case, Draw, First};
use crate::check::draw::labels::{grad_output, rows_of};
use crate::check::draw::targets::Targets;
use crate::check::draw::{Upstream, logits_shape, targets};
use crate::check::entry::{Calls, Entry, Reference, Traits};
use crate::check::outcome::{Expected, Outcome, Quantity, roughness};
use crate::check::random::Random;
use crate::check::{reference, typed};
use crate::device::Device;
use crate::spec::divergence::Divergence;
use crate::spec::js_div_logits::{JsDivLogits, JsDivLogitsGradOut};
use std::fmt;

pub(in crate::check) const ENTRY: Entry = Entry {
    name: "js-div-logits",
    cases: Draw { shape: logits_shape, rest: case },
    calls: Calls { draw, run, expect, saved: None },
    evaluated: None,
    measured: &[Measured {
        name: "js-div-logits",
        help: "Jensen-Shannon divergence from logits, fused in place where forward-backward",
        kind: Kind::Rows(&JsDivLogitsBench),
    }],
    traits: Traits::PLAIN,
};

/// Options and tensors, owned.
#[derive(Debug)]
struct JsDivLogitsCall {
    target: Tensor,
    labels: Option<Tensor>,
    options: JsDivLogits<'static>,
    grad_output: Upstream,
}

impl JsDivLogitsCall {
    /// The loss with its options.
    fn loss(&self) -> JsDivLogits<'_> {
        match &self.labels {
            Some(labels) => self.options.clone().labels(labels.view()),
            None => self.options.clone(),
        }
    }
}

impl Call for JsDivLogitsCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JsDivLogitsCall { labels, options, grad_output, .. } = self;
        let labels = labels.as_ref().map(Tensor::dtype);
        write!(f, ", {:?}, {}, labels {labels:?}", options.divergence, options.reduction)?;
        write!(f, ", logit_scale {}", options.logit_scale)?;
        write!(f, ", teacher_scale {}", options.teacher_scale)?;
        write!(f, ", ignore_index {}, grad_output {grad_output}", options.ignore_index)
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let (x, y) = (case.input()?.to_f64()?, self.target.view().to_f64()?);
        let labels = self.labels.as_ref().map(|l| reference::indices(l.view())).transpose()?;
        let g = reference::upstream(self.grad_output.view())?;
        let shape = &case.shape;
        let loss = self.loss();
        let out = reference::js_div_logits(&loss, shape, (&x, &y), labels.as_deref(), &g);
        let gradient = Expected::summed_gradient;
        Ok(vec![
            Expected::loss(Quantity::Loss, out.loss, out.loss_size),
            gradient(Quantity::Gradient, out.grad_logits, out.grad_logits_size),
            gradient(Quantity::TargetGradient, out.grad_target, out.grad_target_size),
        ])
    }

    /// Forward, backward to both, and the fused call on a copy of the logits.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let (logits, target, loss) = (case.input()?, self.target.view(), self.loss());
        let g = self.grad_output.view();
        let value = loss.forward(device, logits, target)?;
        let zeros = |name| Tensor::zeros_for(name, target.dtype(), target.shape());
        let (mut grad, mut grad_target) = (zeros("grad_logits")?, zeros("grad_target")?);
        let both =
            JsDivLogitsGradOut { logits: grad.view_mut(), target: Some(grad_target.view_mut()) };
        loss.backward_into(device, logits, target, g, both)?;

        let mut memory = case.memory.clone();
        let mut fused = Tensor::zeros_for("loss", DType::F32, value.shape())?;
        let view = typed::strided_mut(&mut memory, &case.shape, case.row_stride)?;
        loss.forward_backward_in_place(device, view, target, g, fused.view_mut())?;
        let pass = "forward-backward";
        let gradient = typed::strided(&memory, &case.shape, case.row_stride)?;
        Ok(vec![
            Outcome::new(Quantity::Loss, "forward", value.view())?,
            Outcome::new(Quantity::Gradient, "backward", grad.view())?,
            Outcome::new(Quantity::TargetGradient, "backward", grad_target.view())?,
            Outcome::new(Quantity::Loss, pass, fused.view())?,
            Outcome::new(Quantity::Gradient, pass, gradient)?,
            case.padding(pass, &memory)?,
        ])
    }

    fn unread(&self, case: &Case) -> Result<Vec<usize>> {
        match &self.labels {
            Some(labels) => targets::unread(case, labels.view(), self.options.ignore_index),
            None => Ok(Vec::new()),
        }
    }
}

fn case(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { values, dtype, shape, .. } = *first;
    let (classes, rows) = rows_of(shape);
    let reductions = [Reduction::None, Reduction::Sum, Reduction::Mean, Reduction::BatchMean];
    let reduction = random.pick(&reductions);
    let scales: &[f32] = if values.moderate() { &[1.0, 0.7, 2.0] } else { &[1.0] };
    let mut options = JsDivLogits::default()
        .beta(random.pick(&[0.5, 0.5, 0.1, 0.9, 0.0, 1.0, 1e-6, 1e-3, 0.999]))
        .reduction(reduction)
        .logit_scale(random.pick(scales))
        .teacher_scale(random.pick(&[1.0, 0.25, 1.5]));
    if random.one_in(5) {
        options = options.divergence(Divergence::TotalVariation);
    }
    let mut labels = None;
    if random.one_in(2) {
        let Targets { indices, ignore_index } = Targets::draw(random, classes, &rows)?;
        options = options.ignore_index(ignore_index);
        labels = Some(indices);
    }
    // A teacher of -inf everywhere has no probabilities, which is one of the things to say alike.
    let masked = random.pick(&[1, 4, 1000, 1000]);
    let one = |random: &mut Random| match random.one_in(masked) {
        true => f64::NEG_INFINITY,
        false => 2.5 * f64::from(random.normal()),
    };
    let target: Vec<f64> = match random.one_in(3) {
        // One that the model is nearly.
        true => {
            options = options.clone().teacher_scale(options.logit_scale);
            first.nearly(random)?
        }
        false => (0..shape.iter().product()).map(|_| one(random)).collect(),
    };
    Ok(Box::new(JsDivLogitsCall {
        target: typed::tensor(dtype, shape, &target)?,
        labels,
        options,
        grad_output: grad_output(random, dtype, reduction, &rows)?,
    }))
}

fn draw(d: &mut Draft) {
    let (form, role) = d.form_in_place();
    let shape = d.logits_shape();
    let (data, target) = (d.numbers(&shape.shape), d.numbers(&shape.shape));
    // A teacher that is near, in half of all calls.
    let near = d.random.one_in(2);
    let near: Vec<f64> = match near {
        true => data.iter().map(|x| x + 1e-3 * f64::from(d.random.normal())).collect(),
        false => target,
    };
    d.given(("logits", role), (d.dtype, &shape.shape, shape.letters), data);
    d.given(("target", Role::Read), (d.dtype, &shape.shape, shape.letters), near);
    d.targets("labels", shape.classes, &shape.rows, &shape.row_letters);
    let labelled = d.random.one_in(2);
    if let Some(labels) = d.call.tensors.last_mut() {
        (labels.optional, labels.present) = (true, labelled);
    }
    let reduction = d.reduction(true);
    d.number("beta", 0.5, &[0.1, 0.9, 0.0, 1.0, 1e-3, 1e-6]);
    let variation = d.random.one_in(5);
    d.set("total_variation", Setpoint::Flag(variation));
    d.number("logit_scale", 1.0, &[0.7, 2.0]);
    d.number("teacher_scale", 1.0, &[0.25, 1.5]);
    let (loss, letters) = shape.loss(reduction);
    if form.contains("backward") {
        d.upstream("grad_output", loss, letters);
    }
    if form == "backward_into" {
        d.out("grad_logits", d.dtype, &shape.shape, shape.letters);
    }
    if matches!(form, "backward_into" | "forward_backward_in_place") {
        d.optional_out("grad_target", d.dtype, &shape.shape, shape.letters);
    }
    if matches!(form, "forward_into" | "forward_backward_in_place") {
        d.out("loss", DType::F32, loss, letters);
    }
}

fn loss<'a>(b: &Bound<'a>) -> JsDivLogits<'a> {
    let loss = JsDivLogits::default()
        .beta(b.float("beta"))
        .reduction(b.reduction())
        .logit_scale(b.float("logit_scale"))
        .teacher_scale(b.float("teacher_scale"))
        .ignore_index(b.integer("ignore_index"));
    let loss = match b.flag("total_variation") {
        true => loss.divergence(Divergence::TotalVariation),
        false => loss,
    };
    match b.optional("labels") {
        Some(labels) => loss.labels(labels),
        None => loss,
    }
}

fn run(b: &Bound<'_>) -> Result<()> {
    let (loss, device, target) = (loss(b), b.device, b.tensor("target"));
    let g = b.upstream("grad_output");
    let gradients =
        |name| JsDivLogitsGradOut { logits: b.out(name), target: b.optional_out("grad_target") };
    match b.call.form {
        "forward" => b.give("loss", loss.forward(device, b.tensor("logits"), target)?),
        "forward_into" => loss.forward_into(device, b.tensor("logits"), target, b.out("loss"))?,
        "backward" => b.give("grad_logits", loss.backward(device, b.tensor("logits"), target, g)?),
        "backward_into" => {
            loss.backward_into(device, b.tensor("logits"), target, g, gradients("grad_logits"))?;
        }
        "forward_backward_in_place" => {
            let out = b.out("loss");
            loss.forward_backward_in_place(device, gradients("logits"), target, g, out)?;
        }
        _ => {
            let grad = loss.forward_backward(device, b.consumed("logits"), target, g)?;
            b.give("loss", grad.loss);
            b.give("grad_logits", grad.grad_logits);
        }
    }
    Ok(())
}

fn expect(b: &Bound<'_>) -> Result<Reference> {
    let (logits, target) = (b.tensor("logits"), b.tensor("target"));
    let (x, y) = (logits.to_f64()?, target.to_f64()?);
    let labels = b.optional("labels").map(reference::indices).transpose()?;
    let g = reference::upstream(b.upstream("grad_output"))?;
    let (loss, shape) = (loss(b), logits.shape());
    let out = reference::js_div_logits(&loss, &shape, (&x, &y), labels.as_deref(), &g);
    let gradient = Expected::summed_gradient;
    let expected = [
        Expected::loss(Quantity::Loss, out.loss, out.loss_size),
        gradient(Quantity::Gradient, out.grad_logits, out.grad_logits_size),
        gradient(Quantity::TargetGradient, out.grad_target, out.grad_target_size),
    ];
    let rough = roughness(logits.dtype());
    Ok(expected.map(|one| one.coarser(rough)).to_vec().into())
}
