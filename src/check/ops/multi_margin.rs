//! Multi-class margin loss.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::reduction::Reduction;
use crate::base::tensor::{Tensor, TensorRef};
use crate::check::bench::data::{Data, per_row};
use crate::check::bench::{Bench, Kind, Measured};
use crate::check::call::Role;
use crate::check::call::bound::Bound;
use crate::check::call::draft::Draft;
use crate::check::case::{Call, Case, Draw, First};
use crate::check::draw::labels::{grad_output, rows_of, weight};
use crate::check::draw::targets::of_classes;
use crate::check::draw::{Upstream, logits_shape};
use crate::check::entry::{Calls, Entry, Evaluated, Read, Reference, Traits};
use crate::check::option::{Choice, Scalar};
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::reference::MarginReference;
use crate::check::{compare, reference, typed};
use crate::device::Device;
use crate::measure::{Pass, Traffic};
use crate::spec::grad_output::GradOutput;
use crate::spec::multi_margin::MultiMargin;
use std::fmt;

const P: Choice = Choice {
    name: "p",
    value: "P",
    help: "The exponent, 1 or 2",
    default: Scalar::Number(1.0),
    cases: &[1.0, 2.0],
    calls: &[2.0],
    tests: &[1.0, 2.0],
};
const MARGIN: Choice = Choice {
    name: "margin",
    value: "M",
    help: "By how much the score of the class shall exceed the others",
    default: Scalar::Number(1.0),
    cases: &[1.0, 0.3, 0.0, -2.0, 20.0],
    calls: &[0.3, 0.0, -2.0],
    tests: &[1.0, 0.3],
};

pub(in crate::check) const ENTRY: Entry = Entry {
    name: "multi-margin",
    cases: Draw { shape: logits_shape, rest: case },
    calls: Calls { draw, run, expect, saved: None },
    evaluated: Some(Evaluated {
        about: "Margin between the score of each row's class and every other",
        more: "\
Reads input (scores [C], [N, C] or [N, C, d1, ...]), target (class indices) and, where the file has
them, weight [C] and, with --grad, grad_output. Writes loss (f32); with --grad also grad_input.

Example:
  warploss eval multi-margin --input scores.safetensors --p 2",
        reads: &[
            Read { name: "input", indices: false, optional: false },
            Read { name: "target", indices: true, optional: false },
            Read { name: "weight", indices: false, optional: true },
        ],
        options: &[P, MARGIN],
        forms: [&["forward"], &["forward", "backward"]],
    }),
    measured: &[Measured {
        name: "multi-margin",
        help: "Mean over rows, p 1, margin 1",
        kind: Kind::Rows(&MarginBench),
    }],
    traits: Traits { overflows: true, ..Traits::PLAIN },
};

/// Options, but for weights.
#[derive(Debug, Clone, Copy)]
struct Options {
    p: u32,
    margin: f32,
    reduction: Reduction,
}

impl Options {
    fn loss(self, weight: Option<TensorRef<'_>>) -> MultiMargin<'_> {
        let Options { p, margin, reduction } = self;
        let loss = MultiMargin::default().p(p).margin(margin).reduction(reduction);
        match weight {
            Some(weight) => loss.weight(weight),
            None => loss,
        }
    }

    fn reference(
        self,
        weight: Option<TensorRef<'_>>,
        (shape, input): (&[usize], &[f64]),
        target: &[i64],
        grad_output: GradOutput<'_>,
    ) -> Result<MarginReference> {
        let weight = weight.map(|w| w.to_f64()).transpose()?;
        let options = (self.p == 2, self.margin, self.reduction);
        let g = reference::upstream(grad_output)?;
        Ok(reference::multi_margin(options, weight.as_deref(), (shape, input), target, &g))
    }
}

fn expected(of: MarginReference) -> Vec<Expected> {
    vec![
        Expected::loss(Quantity::Loss, of.loss, of.loss_size),
        Expected::summed_gradient(Quantity::Gradient, of.grad_input, of.grad_size),
    ]
}

/// Options and tensors, owned.
#[derive(Debug)]
struct MarginCall {
    options: Options,
    target: Tensor,
    weight: Option<Tensor>,
    grad_output: Upstream,
}

impl Call for MarginCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { p, margin, reduction } = self.options;
        let (target, weight) = (self.target.dtype(), self.weight.as_ref().map(Tensor::dtype));
        write!(f, ", p {p}, margin {margin:?}, target {target}, weight {weight:?}, {reduction}")?;
        write!(f, ", grad_output {}", self.grad_output)
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let (x, weight) = (case.input()?.to_f64()?, self.weight.as_ref().map(Tensor::view));
        let target = reference::indices(self.target.view())?;
        let g = self.grad_output.view();
        Ok(expected(self.options.reference(weight, (&case.shape, &x), &target, g)?))
    }

    /// Forward, backward, and the fused call on a copy of the input.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let (input, target) = (case.input()?, self.target.view());
        let loss_of = self.options.loss(self.weight.as_ref().map(Tensor::view));
        let g = self.grad_output.view();
        let loss = loss_of.forward(device, input, target)?;
        let grad = loss_of.backward(device, input, target, g)?;
        let mut memory = case.memory.clone();
        let mut fused = Tensor::zeros_for("loss", DType::F32, loss.shape())?;
        let view = typed::strided_mut(&mut memory, &case.shape, case.row_stride)?;
        loss_of.forward_backward_in_place(device, view, target, g, fused.view_mut())?;
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
}

fn case(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let (classes, shape) = rows_of(first.shape);
    let reduction = random.pick(&[Reduction::None, Reduction::Sum, Reduction::Mean]);
    let (p, margin) = (random.pick(P.cases) as u32, random.pick(MARGIN.cases) as f32);
    Ok(Box::new(MarginCall {
        options: Options { p, margin, reduction },
        target: of_classes(random, classes, &shape)?,
        weight: weight(random, first.dtype, classes)?,
        grad_output: grad_output(random, first.dtype, reduction, &shape)?,
    }))
}

fn draw(d: &mut Draft) {
    let (form, role) = d.form_in_place();
    let shape = d.logits_shape();
    let data = d.numbers(&shape.shape);
    d.given(("input", role), (d.dtype, &shape.shape, shape.letters), data);
    if let Ok(target) = of_classes(&mut d.random, shape.classes, &shape.rows) {
        let values = target.view().to_f64().unwrap_or_default();
        let like = (target.dtype(), &shape.rows[..], &shape.row_letters[..]);
        d.given(("target", Role::Read), like, values);
    }
    d.weight("weight", &[shape.classes], "C");
    for Choice { name, default, calls, .. } in [P, MARGIN] {
        d.number(name, default.number().into(), calls);
    }
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

fn options(b: &Bound<'_>) -> Options {
    Options { p: b.float("p") as u32, margin: b.float("margin"), reduction: b.reduction() }
}

fn run(b: &Bound<'_>) -> Result<()> {
    let (loss, device) = (options(b).loss(b.optional("weight")), b.device);
    let (target, g) = (b.tensor("target"), b.upstream("grad_output"));
    match b.call.form {
        "forward" => b.give("loss", loss.forward(device, b.tensor("input"), target)?),
        "forward_into" => loss.forward_into(device, b.tensor("input"), target, b.out("loss"))?,
        "backward" => b.give("grad_input", loss.backward(device, b.tensor("input"), target, g)?),
        "backward_into" => {
            loss.backward_into(device, b.tensor("input"), target, g, b.out("grad_input"))?;
        }
        "forward_backward_in_place" => {
            loss.forward_backward_in_place(device, b.out("input"), target, g, b.out("loss"))?;
        }
        _ => {
            let grad = loss.forward_backward(device, b.consumed("input"), target, g)?;
            b.give("loss", grad.loss);
            b.give("grad_input", grad.grad_input);
        }
    }
    Ok(())
}

fn expect(b: &Bound<'_>) -> Result<Reference> {
    let (input, weight, g) = (b.tensor("input"), b.optional("weight"), b.upstream("grad_output"));
    let target = reference::indices(b.tensor("target"))?;
    let of = (&input.shape()[..], &input.to_f64()?[..]);
    Ok(expected(options(b).reference(weight, of, &target, g)?).into())
}

/// The mean over rows.
struct MarginBench;

impl Bench for MarginBench {
    fn traffic(&self, pass: Pass) -> Traffic {
        Traffic::cross_entropy(pass)
    }

    fn consumes(&self, pass: Pass) -> bool {
        pass == Pass::ForwardBackward
    }

    fn run(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<()> {
        let (loss, target) = (MultiMargin::default(), data.targets.view());
        let input = data.logits.view();
        match pass {
            Pass::Forward => {
                loss.forward_into(device, input, target, per_row(&mut data.loss, &[])?)
            }
            Pass::Backward => loss.backward_into(device, input, target, 1.0, data.work.view_mut()),
            Pass::ForwardBackward => {
                let value = per_row(&mut data.loss, &[])?;
                loss.forward_backward_in_place(device, data.work.view_mut(), target, 1.0, value)
            }
        }
    }

    fn check(&self, pass: Pass, device: &Device, data: &mut Data) -> Result<Option<String>, Error> {
        let mean = data.numbers(&data.loss)?[0];
        let loss = MultiMargin::default().reduction(Reduction::None);
        let out = per_row(&mut data.loss, &[data.rows])?;
        loss.forward_into(device, data.logits.view(), data.targets.view(), out)?;
        let losses = data.numbers(&data.loss)?;
        let expected = losses.iter().sum::<f64>() / data.rows as f64;
        if pass != Pass::Backward && (mean - expected).abs() > 1e-5 * (1.0 + expected.abs()) {
            return Ok(Some(format!("mean loss: expected {expected}, got {mean}")));
        }
        let options = Options { p: 1, margin: 1.0, reduction: Reduction::None };
        for row in data.samples() {
            let (x, grad) = (data.row(&data.logits, row)?, data.row(&data.work, row)?);
            let (shape, target) = ([1, data.classes], [data.target[row]]);
            let g = GradOutput::Number(1.0 / data.rows as f32);
            let of = options.reference(None, (&shape, &x), &target, g)?;
            let loss = compare::losses(DType::F32, &[losses[row]], &of.loss, &of.loss_size);
            let grad = compare::summed_gradients(data.dtype, &grad, &of.grad_input, &of.grad_size);
            if !loss.agrees() {
                return Ok(Some(format!("loss of row {row}: {loss}")));
            }
            if pass != Pass::Forward && !grad.agrees() {
                return Ok(Some(format!("gradient of row {row}: {grad}")));
            }
        }
        Ok(None)
    }
}
