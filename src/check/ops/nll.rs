//! Negative log-likelihood.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::bench::nll::NllBench;
use crate::check::bench::{Kind, Measured};
use crate::check::call::bound::Bound;
use crate::check::call::draft::Draft;
use crate::check::case::{Call, Case, Draw, First};
use crate::check::draw::labels::Labels;
use crate::check::draw::logits_shape;
use crate::check::entry::{Calls, Entry, Reference, Traits};
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::{reference, typed};
use crate::device::Device;
use crate::spec::nll::Nll;
use std::fmt;

pub(in crate::check) const ENTRY: Entry = Entry {
    name: "nll",
    cases: Draw { shape: logits_shape, rest: case },
    calls: Calls { draw, run, expect, saved: None },
    evaluated: None,
    measured: &[Measured {
        name: "nll",
        help: "One element of each row",
        kind: Kind::Rows(&NllBench),
    }],
    traits: Traits::PLAIN,
};

/// Options and tensors, owned.
#[derive(Debug)]
struct NllCall(Labels);

impl NllCall {
    /// The loss with its options.
    fn loss(&self) -> Nll<'_> {
        let Labels { ignore_index, reduction, weight, .. } = &self.0;
        let options = Nll::default().ignore_index(*ignore_index).reduction(*reduction);
        match weight {
            Some(weight) => options.weight(weight.view()),
            None => options,
        }
    }
}

impl Call for NllCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let x = case.input()?.to_f64()?;
        let target = reference::indices(self.0.target.view())?;
        let g = reference::upstream(self.0.grad_output.view())?;
        let out = reference::nll(&self.loss(), &case.shape, &x, &target, &g);
        Ok(vec![
            Expected::loss(Quantity::Loss, out.loss, out.loss_size),
            Expected::gradient(Quantity::Gradient, out.grad_input),
        ])
    }

    /// Forward, backward, and the fused call on a copy of the input.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let (input, target, nll) = (case.input()?, self.0.target.view(), self.loss());
        let g = self.0.grad_output.view();
        let loss = nll.forward(device, input, target)?;
        let grad = nll.backward(device, input, target, g)?;
        let mut memory = case.memory.clone();
        let mut fused = Tensor::zeros_for("loss", DType::F32, loss.shape())?;
        let view = typed::strided_mut(&mut memory, &case.shape, case.row_stride)?;
        nll.forward_backward_in_place(device, view, target, g, fused.view_mut())?;
        let pass = "forward-backward";
        let gradient = typed::strided(&memory, &case.shape, case.row_stride)?;
        Ok(vec![
            Outcome::new(Quantity::Loss, "forward", loss.view())?,
            Outcome::new(Quantity::Gradient, "backward", grad.view())?,
            Outcome::new(Quantity::Loss, pass, fused.view())?,
            Outcome::new(Quantity::Gradient, pass, gradient)?,
            case.padding(pass, &memory)?,
        ])
    }

    /// All but the picked elements.
    fn unread(&self, case: &Case) -> Result<Vec<usize>> {
        let class_dim = usize::from(case.shape.len() > 1);
        let lines = reference::Lines::new(&case.shape, &[class_dim]);
        let target = reference::indices(self.0.target.view())?;
        let mut unread = Vec::new();
        for (base, &class) in lines.bases.iter().zip(&target) {
            let picked = (class != self.0.ignore_index).then_some(class as usize);
            let others = lines.offsets.iter().enumerate().filter(|(c, _)| Some(*c) != picked);
            unread.extend(others.map(|(_, offset)| base + offset));
        }
        Ok(unread)
    }
}

fn case(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    Ok(Box::new(NllCall(Labels::draw(random, first)?)))
}

fn draw(d: &mut Draft) {
    let (form, role) = d.form_in_place();
    let shape = d.logits_shape();
    let data = d.numbers(&shape.shape);
    if form != "backward_into" {
        d.given(("input", role), (d.dtype, &shape.shape, shape.letters), data);
    }
    d.targets("target", shape.classes, &shape.rows, &shape.row_letters);
    d.weight("weight", &[shape.classes], "C");
    let reduction = d.reduction(false);
    let (loss, letters) = shape.loss(reduction);
    if !form.starts_with("forward_into") && form != "forward" {
        d.upstream("grad_output", loss, letters);
    }
    if matches!(form, "forward_into" | "forward_backward_in_place") {
        d.out("loss", DType::F32, loss, letters);
    }
    if form == "backward_into" {
        d.out("grad_input", d.dtype, &shape.shape, shape.letters);
    }
}

fn loss<'a>(b: &Bound<'a>) -> Nll<'a> {
    let loss = Nll::default().ignore_index(b.integer("ignore_index")).reduction(b.reduction());
    match b.optional("weight") {
        Some(weight) => loss.weight(weight),
        None => loss,
    }
}

fn run(b: &Bound<'_>) -> Result<()> {
    let (nll, device, target, g) =
        (loss(b), b.device, b.tensor("target"), b.upstream("grad_output"));
    match b.call.form {
        "forward" => b.give("loss", nll.forward(device, b.tensor("input"), target)?),
        "forward_into" => nll.forward_into(device, b.tensor("input"), target, b.out("loss"))?,
        "backward" => b.give("grad_input", nll.backward(device, b.tensor("input"), target, g)?),
        "backward_into" => nll.backward_into(device, target, g, b.out("grad_input"))?,
        "forward_backward_in_place" => {
            nll.forward_backward_in_place(device, b.out("input"), target, g, b.out("loss"))?;
        }
        _ => {
            let grad = nll.forward_backward(device, b.consumed("input"), target, g)?;
            b.give("loss", grad.loss);
            b.give("grad_input", grad.grad_input);
        }
    }
    Ok(())
}

fn expect(b: &Bound<'_>) -> Result<Reference> {
    let input = b.tensor("input");
    let target = reference::indices(b.tensor("target"))?;
    let g = reference::upstream(b.upstream("grad_output"))?;
    let out = reference::nll(&loss(b), &input.shape(), &input.to_f64()?, &target, &g);
    Ok(vec![
        Expected::loss(Quantity::Loss, out.loss, out.loss_size),
        Expected::gradient(Quantity::Gradient, out.grad_input),
    ]
    .into())
}
