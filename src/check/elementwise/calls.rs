//! The elementwise losses: one way to draw a call, whichever the loss.

use super::case::{other_shape, sigmoid, smaller_shape, values};
use super::{Calls, Description, Domain, ElementLoss, Given, Weights};
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::reduction::Reduction;
use crate::base::tensor::TensorRef;
use crate::check::call::bound::Bound;
use crate::check::call::draft::Draft;
use crate::check::call::{Role, Setpoint};
use crate::check::entry::Reference;
use crate::check::option::{Choice, Scalar};
use crate::check::outcome::{Expected, Quantity, roughness};
use crate::check::random::Random;
use crate::check::reference::{self, ElementwiseCall};
use crate::spec::elementwise::{ElementwiseGrad, ElementwiseGradOut, Wrt};

const FORMS: [&str; 7] = [
    "forward",
    "forward_into",
    "backward",
    "backward_into",
    "forward_backward",
    "forward_backward_into",
    "forward_backward_in_place",
];

/// Up to four dimensions, many of size 1, of which one may be long.
fn shape(d: &mut Draft) -> Vec<usize> {
    let mut shape: Vec<usize> =
        (0..d.random.below(4)).map(|_| d.random.pick(&[0, 1, 1, 2, 3, 5])).collect();
    if !d.random.one_in(8) {
        let long = d.random.pick(&[1, 2, 7, 8, 33, 255, 256, 257, 1023, 1025]);
        shape.insert(d.random.below(shape.len() + 1), long);
    }
    shape
}

pub(super) fn draw(d: &mut Draft, of: &'static Description) {
    let form = d.form(&FORMS);
    let in_place = form == "forward_backward_in_place";
    let shape = shape(d);
    let equal = in_place || !of.broadcasts || d.random.one_in(2);
    let target_shape = if equal { shape.clone() } else { other_shape(&mut d.random, &shape) };
    let result = reference::broadcast(&shape, &target_shape);

    let mut data = d.numbers(&shape);
    if of.input == Domain::Probabilities && !d.random.one_in(8) {
        data.iter_mut().for_each(|x| *x = sigmoid(*x));
    }
    let target = target(d, of, &data, &target_shape);
    let role = if in_place { Role::Both } else { Role::Read };
    d.given(("input", role), (d.dtype, &shape, &letters(&shape)), data);
    d.given(("target", Role::Read), (d.dtype, &target_shape, &letters(&target_shape)), target);
    for choice in of.options {
        let setpoint = |x: f64| match choice.default {
            Scalar::Number(_) => Setpoint::Number(x),
            Scalar::Flag(_) => Setpoint::Flag(x != 0.0),
        };
        let default = match choice.default {
            Scalar::Number(x) => Setpoint::Number(x),
            Scalar::Flag(flag) => Setpoint::Flag(flag),
        };
        let others: Vec<Setpoint> = choice.calls.iter().map(|&x| setpoint(x)).collect();
        d.option(choice.name, default, &others);
    }
    if of.weights != Weights::None {
        let broadcast = of.weights == Weights::Broadcast;
        let smaller = if broadcast { smaller_shape(&mut d.random, &shape) } else { shape.clone() };
        d.weight("weight", &smaller, &letters(&smaller));
        // But for binary cross entropy, weights and broadcasting do not go together.
        if let Some(weight) = d.call.tensors.last_mut() {
            weight.present &= equal;
        }
    }
    let mut variance = None;
    if let Some(third) = &of.third {
        let sloped = of.sloped();
        let smaller = smaller_shape(&mut d.random, &result);
        let smaller = third.shape(smaller, &result, sloped && d.random.one_in(3));
        d.weight(third.name, &smaller, &letters(&smaller));
        let (dtype, bad) = (d.dtype, sloped && d.random.one_in(8));
        if let Some(given) = d.call.tensors.last_mut() {
            given.dtype = third.dtype(given.dtype, dtype);
            variance = given.present.then(|| smaller.clone());
            if bad && let Some(last) = given.values.last_mut() {
                *last = -0.5;
            }
        }
    }
    let loss: &[usize] = match d.reduction(of.batch_mean) {
        Reduction::None => &result,
        Reduction::Sum | Reduction::Mean | Reduction::BatchMean => &[],
    };
    if form.contains("backward") {
        d.upstream("grad_output", loss, &letters(loss));
    }
    if matches!(form, "backward" | "forward_backward") {
        let words = ["input", "target", "all"].map(Setpoint::Word);
        d.option("wrt", Setpoint::Word("both"), &words[..if of.sloped() { 3 } else { 2 }]);
    }
    if matches!(form, "backward_into" | "forward_backward_into") {
        d.optional_out("grad_input", d.dtype, &shape, &letters(&shape));
        d.optional_out("grad_target", d.dtype, &target_shape, &letters(&target_shape));
        if let Some(shape) = variance.filter(|_| of.sloped()) {
            d.optional_out("grad_variance", d.dtype, &shape, &letters(&shape));
        }
    }
    if matches!(form, "forward_into" | "forward_backward_into" | "forward_backward_in_place") {
        d.out("loss", DType::F32, loss, &letters(loss));
    }
}

/// Letters of sizes above 1, by dimension from the last on, as broadcasting has them.
fn letters(shape: &[usize]) -> String {
    let letter = |(i, &n): (usize, &usize)| match n {
        1 => ' ',
        _ => ['1', '2', '3', '4'].get(shape.len() - 1 - i).copied().unwrap_or(' '),
    };
    shape.iter().enumerate().map(letter).collect()
}

/// Targets: those that the loss is for, or any numbers; near the input in some calls.
fn target(d: &mut Draft, of: &'static Description, input: &[f64], shape: &[usize]) -> Vec<f64> {
    let count: usize = shape.iter().product();
    let domain = of.with(&[]).target();
    match (d.random.below(4), input.is_empty()) {
        (0, false) => {
            let near = d.random.pick(&[0.0, 1e-6, 1e-3]);
            let one = |i: usize, random: &mut Random| {
                input[i % input.len()] + near * f64::from(random.normal())
            };
            (0..count).map(|i| one(i, &mut d.random)).collect()
        }
        (1, _) => d.numbers(shape),
        _ => match domain {
            Domain::Probabilities => (0..count).map(|_| d.random.unit()).collect(),
            Domain::Signs => (0..count).map(|_| d.random.pick(&[-1.0, 1.0])).collect(),
            Domain::Counts => (0..count).map(|_| d.random.below(12) as f64).collect(),
            Domain::Any | Domain::Logarithms => d.normal(shape, 2.5),
        },
    }
}

/// The loss with the options of the call.
fn loss(b: &Bound<'_>, of: &'static Description) -> ElementLoss {
    let option = |choice: &Choice| match choice.default {
        Scalar::Number(_) => b.float(choice.name),
        Scalar::Flag(_) => Scalar::Flag(b.flag(choice.name)).number(),
    };
    of.with(&of.options.iter().map(option).collect::<Vec<f32>>())
}

pub(super) fn run(b: &Bound<'_>, of: &'static Description) -> Result<()> {
    let (weight, third) = (b.optional("weight"), of.third.and_then(|third| b.optional(third.name)));
    forms(b, &*loss(b, of).make(Given { weight, third, reduction: b.reduction() }))
}

fn forms(b: &Bound<'_>, op: &dyn Calls) -> Result<()> {
    let (device, y, g) = (b.device, b.tensor("target"), b.upstream("grad_output"));
    let wrt = match b.word("wrt") {
        "input" => Wrt::Input,
        "target" => Wrt::Target,
        "both" => Wrt::Both,
        _ => Wrt::All,
    };
    let gradients = || ElementwiseGradOut {
        grad_input: b.optional_out("grad_input"),
        grad_target: b.optional_out("grad_target"),
        grad_variance: b.optional_out("grad_variance"),
    };
    let give = |grads: ElementwiseGrad| {
        for (name, grad) in [
            ("grad_input", grads.grad_input),
            ("grad_target", grads.grad_target),
            ("grad_variance", grads.grad_variance),
        ] {
            if let Some(grad) = grad {
                b.give(name, grad);
            }
        }
    };
    match b.call.form {
        "forward" => b.give("loss", op.forward(device, b.tensor("input"), y)?),
        "forward_into" => op.forward_into(device, b.tensor("input"), y, b.out("loss"))?,
        "backward" => give(op.backward(device, b.tensor("input"), y, g, wrt)?),
        "backward_into" => op.backward_into(device, b.tensor("input"), y, g, gradients())?,
        "forward_backward" => {
            let (loss, grads) = op.forward_backward(device, b.tensor("input"), y, g, wrt)?;
            b.give("loss", loss);
            give(grads);
        }
        "forward_backward_into" => {
            let out = (b.out("loss"), gradients());
            op.forward_backward_into(device, b.tensor("input"), y, g, out)?;
        }
        _ => op.forward_backward_in_place(device, b.out("input"), y, g, b.out("loss"))?,
    }
    Ok(())
}

pub(super) fn expect(b: &Bound<'_>, of: &'static Description) -> Result<Reference> {
    let read = |tensor: TensorRef<'_>| Ok::<_, Error>((tensor.shape(), tensor.to_f64()?));
    let owned = |name: &str| b.optional(name).map(read).transpose();
    let (x, y) = (read(b.tensor("input"))?, read(b.tensor("target"))?);
    let weight = owned("weight")?;
    let third = of.third.map(|third| owned(third.name)).transpose()?.flatten();
    let out = reference::elementwise(&ElementwiseCall {
        loss: &loss(b, of),
        reduction: b.reduction(),
        input: values(&x),
        target: values(&y),
        weight: weight.as_ref().map(values),
        third: third.as_ref().map(values),
        grad_output: &reference::upstream(b.upstream("grad_output"))?,
    });
    let gradient = Expected::summed_gradient;
    let expected = [
        Expected::loss(Quantity::Loss, out.loss, out.loss_size),
        gradient(Quantity::Gradient, out.grad_input, out.grad_input_size),
        gradient(Quantity::TargetGradient, out.grad_target, out.grad_target_size),
        gradient(Quantity::ParameterGradients, out.grad_third, out.grad_third_size),
    ];
    let rough = roughness(b.tensor("input").dtype());
    Ok(expected.map(|one| one.coarser(rough)).to_vec().into())
}
