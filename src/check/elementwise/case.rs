//! The elementwise losses: one way to draw a case, whichever the loss.

use super::{Description, Domain, ElementLoss, Given, Weights};
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::Tensor;
use crate::check::case::{Call, Case, First};
use crate::check::draw::{Upstream, upstream};
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::reference::{self, ElementwiseCall};
use crate::check::typed;
use crate::check::values::Values;
use crate::device::Device;
use crate::spec::elementwise::Wrt;
use std::fmt;

#[derive(Debug)]
struct ElementwiseDraw {
    loss: ElementLoss,
    reduction: Reduction,
    target: Tensor,
    weight: Option<Tensor>,
    third: Option<Tensor>,
    grad_output: Upstream,
}

impl Call for ElementwiseDraw {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ElementwiseDraw { loss, reduction, target, weight, third, grad_output } = self;
        write!(f, ", {loss:?}, {reduction}, target {}", target.shape())?;
        for (name, weight) in [("weight", weight), (loss.of().third.map_or("", |t| t.name), third)]
        {
            if let Some(weight) = weight {
                write!(f, ", {name} {} {}", weight.dtype(), weight.shape())?;
            }
        }
        write!(f, ", grad_output {grad_output}")
    }

    fn domain(&self, _: Values) -> Option<fn(f64) -> f64> {
        (self.loss.of().input == Domain::Probabilities).then_some(sigmoid)
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let x = case.input()?.to_f64()?;
        let owned = |t: &Tensor| Ok::<_, Error>((t.shape(), t.view().to_f64()?));
        let y = owned(&self.target)?;
        let weight = self.weight.as_ref().map(owned).transpose()?;
        let third = self.third.as_ref().map(owned).transpose()?;
        let out = reference::elementwise(&ElementwiseCall {
            loss: &self.loss,
            reduction: self.reduction,
            input: reference::Values { shape: &case.shape, data: &x },
            target: values(&y),
            weight: weight.as_ref().map(values),
            third: third.as_ref().map(values),
            grad_output: &reference::upstream(self.grad_output.view())?,
        });
        let gradient = Expected::summed_gradient;
        Ok(vec![
            Expected::loss(Quantity::Loss, out.loss, out.loss_size),
            gradient(Quantity::Gradient, out.grad_input, out.grad_input_size),
            gradient(Quantity::TargetGradient, out.grad_target, out.grad_target_size),
            gradient(Quantity::ParameterGradients, out.grad_third, out.grad_third_size),
        ])
    }

    /// Forward, backward, both at once, and both at once over the input.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let op = self.loss.make(Given {
            weight: self.weight.as_ref().map(Tensor::view),
            third: self.third.as_ref().map(Tensor::view),
            reduction: self.reduction,
        });
        let (x, y, g) = (case.input()?, self.target.view(), self.grad_output.view());
        let loss = op.forward(device, x, y)?;
        let grads = op.backward(device, x, y, g, Wrt::All)?;
        let (both_loss, both) = op.forward_backward(device, x, y, g, Wrt::All)?;
        let mut outcomes = vec![Outcome::new(Quantity::Loss, "forward", loss.view())?];
        let pass = "forward-backward";
        outcomes.push(Outcome::new(Quantity::Loss, pass, both_loss.view())?);
        for (pass, grads) in [("backward", &grads), (pass, &both)] {
            let quantities = [
                (Quantity::Gradient, &grads.grad_input),
                (Quantity::TargetGradient, &grads.grad_target),
                (Quantity::ParameterGradients, &grads.grad_variance),
            ];
            for (quantity, grad) in quantities {
                if let Some(grad) = grad {
                    outcomes.push(Outcome::new(quantity, pass, grad.view())?);
                }
            }
        }
        if reference::broadcast(&case.shape, &y.shape()) == case.shape {
            let mut memory = case.memory.clone();
            let mut loss = Tensor::zeros_for("loss", DType::F32, loss.shape())?;
            let view = typed::strided_mut(&mut memory, &case.shape, case.row_stride)?;
            op.forward_backward_in_place(device, view, y, g, loss.view_mut())?;
            let pass = "in place";
            outcomes.push(Outcome::new(Quantity::Loss, pass, loss.view())?);
            let gradient = typed::strided(&memory, &case.shape, case.row_stride)?;
            outcomes.push(Outcome::new(Quantity::Gradient, pass, gradient)?);
            outcomes.push(case.padding(pass, &memory)?);
        }
        Ok(outcomes)
    }
}

pub(super) fn values<'a>((shape, data): &'a (Shape, Vec<f64>)) -> reference::Values<'a> {
    reference::Values { shape, data }
}

/// A probability of any number.
pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Most elements of a case: one takes an emulated card a second.
const MOST: usize = 65_536;

/// Up to four dimensions, of which one may be long; many of size 1.
pub(super) fn shape(random: &mut Random) -> Vec<usize> {
    let sizes = [0, 1, 1, 2, 3, 5, 9];
    let mut shape: Vec<usize> = (0..random.below(4)).map(|_| random.pick(&sizes)).collect();
    if !random.one_in(8) {
        let long = random.pick(&[1, 2, 7, 8, 33, 255, 256, 257, 1023, 1025, 3000, 20_011]);
        shape.insert(random.below(shape.len() + 1), long);
    }
    // The others give way to the longest.
    let longest = shape.iter().copied().max().unwrap_or(1);
    while shape.iter().product::<usize>() > MOST {
        match shape.iter().rposition(|&n| n > 1 && n < longest) {
            Some(d) => shape[d] = 1,
            None => break,
        }
    }
    shape
}

/// A shape that broadcasts with `shape`, and may be larger.
pub(super) fn other_shape(random: &mut Random, shape: &[usize]) -> Vec<usize> {
    let larger = |random: &mut Random, n: usize| {
        let small = n == 1 && shape.iter().product::<usize>() < 3000;
        if small && random.one_in(2) { random.pick(&[2, 3, 4]) } else { n }
    };
    let mut other: Vec<usize> =
        shape.iter().map(|&n| if random.one_in(3) { 1 } else { larger(random, n) }).collect();
    match random.below(4) {
        0 => drop(other.drain(..random.below(other.len() + 1))),
        1 if other.len() < 4 => other.insert(0, random.pick(&[1, 2])),
        _ => {}
    }
    other
}

/// A shape that broadcasts to `shape`.
pub(super) fn smaller_shape(random: &mut Random, shape: &[usize]) -> Vec<usize> {
    let first = random.below(shape.len() + 1);
    shape[first..].iter().map(|&n| if random.one_in(3) { 1 } else { n }).collect()
}

/// The rest of a case.
pub(super) fn draw(
    random: &mut Random,
    first: &First<'_>,
    of: &'static Description,
) -> Result<Box<dyn Call>> {
    let First { values, dtype, shape, .. } = *first;
    let options: Vec<f32> =
        of.options.iter().map(|choice| random.pick(choice.cases) as f32).collect();
    let loss = of.with(&options);
    let weighted = of.weights != Weights::None && random.one_in(3);
    let target_shape = match !of.broadcasts || weighted || random.one_in(2) {
        true => shape.to_vec(),
        false => other_shape(random, shape),
    };
    let count = target_shape.iter().product();
    let near = loss.target() == Domain::Logarithms
        && values.small()
        && target_shape == shape
        && random.one_in(3);
    let y: Vec<f64> = match near {
        true => first.nearly(random)?,
        false => (0..count).map(|_| target(random, loss.target(), values)).collect(),
    };
    let target = typed::tensor(dtype, &target_shape, &y)?;

    let weight = |random: &mut Random, shape: &[usize]| {
        let zeros = random.pick(&[1, 4, 1000]);
        let one = |random: &mut Random| match random.one_in(zeros) {
            true => 0.0,
            false => f64::from(random.normal()).abs() + 0.1,
        };
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| one(random)).collect();
        typed::tensor(random.pick(&[DType::F32, dtype]), shape, &values)
    };
    let element_weight = match (weighted, of.weights == Weights::Broadcast) {
        (false, _) => None,
        (true, false) => Some(weight(random, shape)?),
        (true, true) => {
            let shape = smaller_shape(random, shape);
            Some(weight(random, &shape)?)
        }
    };
    let third = match &of.third {
        Some(third) if random.one_in(2) => {
            let result = reference::broadcast(shape, &target_shape);
            let smaller = smaller_shape(random, &result);
            let without = of.sloped() && random.one_in(3);
            let smaller = third.shape(smaller, &result, without);
            let drawn = weight(random, &smaller)?;
            let dtype = third.dtype(drawn.dtype(), dtype);
            Some(typed::tensor(dtype, &smaller, &drawn.view().to_f64()?)?)
        }
        _ => None,
    };

    let mut reductions = vec![Reduction::None, Reduction::Sum, Reduction::Mean];
    if of.batch_mean {
        reductions.push(Reduction::BatchMean);
    }
    let reduction = random.pick(&reductions);
    let result = match reduction {
        Reduction::None => reference::broadcast(shape, &target_shape),
        Reduction::Sum | Reduction::Mean | Reduction::BatchMean => Vec::new(),
    };
    let grad_output = match random.below(3) {
        0 => Upstream::Number(1.0),
        1 => Upstream::Number(random.normal()),
        _ => Upstream::Tensor(upstream(random, dtype, &result)?),
    };
    let call =
        ElementwiseDraw { loss, reduction, target, weight: element_weight, third, grad_output };
    Ok(Box::new(call))
}

/// One element of the target, hard where the case is.
fn target(random: &mut Random, domain: Domain, values: Values) -> f64 {
    let normal = f64::from(random.normal());
    let hard = values != Values::Tame && random.one_in(6);
    match domain {
        Domain::Probabilities => match (hard, random.below(6)) {
            (true, 0) => -0.25,
            (true, 1) => 1.5,
            (true, 2) => f64::NAN,
            (true, 3) | (false, 0) => 0.0,
            (true, 4) | (false, 1) => 1.0,
            _ => (normal.abs() / 4.0).min(1.0),
        },
        Domain::Logarithms => match (hard, random.below(4)) {
            (true, 0) => f64::NEG_INFINITY,
            (true, 1) => f64::NAN,
            (true, 2) => -300.0,
            _ => -2.5 * normal.abs(),
        },
        Domain::Signs => match (hard, random.below(4)) {
            (true, 0) => 0.0,
            (true, 1) => f64::NAN,
            (true, 2) => 0.75,
            _ => 1f64.copysign(normal),
        },
        Domain::Counts => match (hard, random.below(5)) {
            (true, 0) => f64::NAN,
            (true, 1) => 1e4,
            (true, 2) => -2.0,
            (true, 3) => 1.5,
            _ => (3.0 * normal.abs()).floor(),
        },
        Domain::Any => match (hard, random.below(5)) {
            (true, 0) => f64::INFINITY,
            (true, 1) => f64::NEG_INFINITY,
            (true, 2) => f64::NAN,
            (true, 3) => -3.5,
            _ => 2.5 * normal,
        },
    }
}
