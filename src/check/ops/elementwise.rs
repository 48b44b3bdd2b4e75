//! The elementwise losses: one way to draw a case, whichever the loss.

use super::{Call, Draw, First, Upstream, upstream};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::shape::Shape;
use crate::base::tensor::{Tensor, TensorRef};
use crate::check::cases::{Case, Values};
use crate::check::random::Random;
use crate::check::reference::{ElementLoss, ElementwiseCall};
use crate::check::subject::{Expected, Outcome, Quantity};
use crate::check::{reference, typed};
use crate::device::Device;
use crate::spec::bce_with_logits::BceWithLogits;
use crate::spec::elementwise::{Elementwise, Wrt, sealed};
use crate::spec::huber::Huber;
use crate::spec::js_div::JsDiv;
use crate::spec::kl_div::KlDiv;
use crate::spec::l1::L1;
use crate::spec::mse::Mse;
use crate::spec::smooth_l1::SmoothL1;
use std::fmt;

macro_rules! draws {
    ($($name:ident $loss:expr;)*) => {$(
        pub(in crate::check) const $name: Draw =
            Draw { shape, call: |random, first| draw(random, first, $loss) };
    )*};
}

draws! {
    MSE |_| ElementLoss::Mse;
    L1 |_| ElementLoss::L1;
    SMOOTH_L1 |r| ElementLoss::SmoothL1 { beta: r.pick(&[0.0, 0.3, 1.0, 7.0]) };
    HUBER |r| ElementLoss::Huber { delta: r.pick(&[0.01, 0.7, 1.0, 20.0]) };
    BCE_WITH_LOGITS |_| ElementLoss::BceWithLogits;
    KL_DIV |r| ElementLoss::KlDiv { log_target: r.one_in(2) };
    JS_DIV |r| ElementLoss::JsDiv { beta: r.pick(&[0.5, 0.1, 0.9, 0.0, 1.0, 1e-6, 0.999]) };
}

#[derive(Debug)]
struct ElementwiseDraw {
    loss: ElementLoss,
    reduction: Reduction,
    target: Tensor,
    weight: Option<Tensor>,
    pos_weight: Option<Tensor>,
    grad_output: Upstream,
}

impl Call for ElementwiseDraw {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ElementwiseDraw { loss, reduction, target, weight, pos_weight, grad_output } = self;
        write!(f, ", {loss:?}, {reduction}, target {}", target.shape())?;
        for (name, weight) in [("weight", weight), ("pos_weight", pos_weight)] {
            if let Some(weight) = weight {
                write!(f, ", {name} {} {}", weight.dtype(), weight.shape())?;
            }
        }
        write!(f, ", grad_output {grad_output}")
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let x = case.input()?.to_f64()?;
        let owned =
            |t: &Tensor| Ok::<_, crate::base::error::Error>((t.shape(), t.view().to_f64()?));
        let y = owned(&self.target)?;
        let weight = self.weight.as_ref().map(owned).transpose()?;
        let pos_weight = self.pos_weight.as_ref().map(owned).transpose()?;
        let out = reference::elementwise(&ElementwiseCall {
            loss: self.loss,
            reduction: self.reduction,
            input: reference::Values { shape: &case.shape, data: &x },
            target: values(&y),
            weight: weight.as_ref().map(values),
            pos_weight: pos_weight.as_ref().map(values),
            grad_output: &reference::upstream(self.grad_output.view())?,
        });
        let gradient = Expected::summed_gradient;
        Ok(vec![
            Expected::loss(Quantity::Loss, out.loss, out.loss_size),
            gradient(Quantity::Gradient, out.grad_input, out.grad_input_size),
            gradient(Quantity::TargetGradient, out.grad_target, out.grad_target_size),
        ])
    }

    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let weight = self.weight.as_ref().map(Tensor::view);
        match self.loss {
            ElementLoss::Mse => self.forms(&weighted(Mse::default(), weight), device, case),
            ElementLoss::L1 => self.forms(&weighted(L1::default(), weight), device, case),
            ElementLoss::SmoothL1 { beta } => {
                self.forms(&weighted(SmoothL1::default().beta(beta), weight), device, case)
            }
            ElementLoss::Huber { delta } => {
                self.forms(&weighted(Huber::default().delta(delta), weight), device, case)
            }
            ElementLoss::BceWithLogits => {
                let mut op = BceWithLogits::default();
                if let Some(pos_weight) = &self.pos_weight {
                    op = op.pos_weight(pos_weight.view());
                }
                self.forms(&weighted(op, weight), device, case)
            }
            ElementLoss::KlDiv { log_target } => {
                self.forms(&KlDiv::default().log_target(log_target), device, case)
            }
            ElementLoss::JsDiv { beta } => self.forms(&JsDiv::default().beta(beta), device, case),
        }
    }
}

pub(in crate::check) fn values<'a>((shape, data): &'a (Shape, Vec<f64>)) -> reference::Values<'a> {
    reference::Values { shape, data }
}

pub(in crate::check) fn weighted<'w, L: sealed::Weighted>(
    op: Elementwise<'w, L>,
    weight: Option<TensorRef<'w>>,
) -> Elementwise<'w, L> {
    match weight {
        Some(weight) => op.weight(weight),
        None => op,
    }
}

impl ElementwiseDraw {
    /// Forward, backward, both at once, and both at once over the input.
    fn forms<L: sealed::Loss>(
        &self,
        op: &Elementwise<'_, L>,
        device: &Device,
        case: &Case,
    ) -> Result<Vec<Outcome>> {
        let op = op.clone().reduction(self.reduction);
        let (x, y, g) = (case.input()?, self.target.view(), self.grad_output.view());
        let loss = op.forward(device, x, y)?;
        let grads = op.backward(device, x, y, g, Wrt::Both)?;
        let (both_loss, both) = op.forward_backward(device, x, y, g, Wrt::Both)?;
        let mut outcomes = vec![Outcome::new(Quantity::Loss, "forward", loss.view())?];
        let pass = "forward-backward";
        outcomes.push(Outcome::new(Quantity::Loss, pass, both_loss.view())?);
        for (pass, grads) in [("backward", &grads), (pass, &both)] {
            let quantities = [
                (Quantity::Gradient, &grads.grad_input),
                (Quantity::TargetGradient, &grads.grad_target),
            ];
            for (quantity, grad) in quantities {
                if let Some(grad) = grad {
                    outcomes.push(Outcome::new(quantity, pass, grad.view())?);
                }
            }
        }
        if reference::broadcast(&case.shape, &y.shape()) == case.shape {
            let mut memory = case.memory.clone();
            let mut loss = Tensor::zeros("loss", DType::F32, loss.shape())?;
            let view = typed::strided_mut(&mut memory, &case.shape, case.row_stride)?;
            op.forward_backward_in_place(device, view, y, g, loss.view_mut())?;
            let pass = "in place";
            outcomes.push(Outcome::new(Quantity::Loss, pass, loss.view())?);
            let gradient = typed::strided(&memory, &case.shape, case.row_stride)?;
            outcomes.push(Outcome::new(Quantity::Gradient, pass, gradient)?);
            outcomes.push(Outcome::padding(case, pass, &memory)?);
        }
        Ok(outcomes)
    }
}

/// Up to four dimensions, of which one may be long; many of size 1.
fn shape(random: &mut Random) -> Vec<usize> {
    let sizes = [0, 1, 1, 2, 3, 5, 9];
    let mut shape: Vec<usize> = (0..random.below(4)).map(|_| random.pick(&sizes)).collect();
    if !random.one_in(8) {
        let long = random.pick(&[1, 2, 7, 8, 33, 255, 256, 257, 1023, 1025, 3000, 20_011]);
        shape.insert(random.below(shape.len() + 1), long);
    }
    shape
}

/// A shape that broadcasts with `shape`, and may be larger.
pub(in crate::check) fn other_shape(random: &mut Random, shape: &[usize]) -> Vec<usize> {
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
pub(in crate::check) fn smaller_shape(random: &mut Random, shape: &[usize]) -> Vec<usize> {
    let first = random.below(shape.len() + 1);
    shape[first..].iter().map(|&n| if random.one_in(3) { 1 } else { n }).collect()
}

fn draw(
    random: &mut Random,
    first: &First<'_>,
    loss: fn(&mut Random) -> ElementLoss,
) -> Result<Box<dyn Call>> {
    let First { values, dtype, shape, .. } = *first;
    let loss = loss(random);
    let bce = loss == ElementLoss::BceWithLogits;
    let kl = matches!(loss, ElementLoss::KlDiv { .. } | ElementLoss::JsDiv { .. });
    let weighted = !kl && random.one_in(3);
    let target_shape = match bce || weighted || random.one_in(2) {
        true => shape.to_vec(),
        false => other_shape(random, shape),
    };
    let count = target_shape.iter().product();
    let logarithms = kl && loss != ElementLoss::KlDiv { log_target: false };
    let near = logarithms && values.small() && target_shape == shape && random.one_in(3);
    let y: Vec<f64> = match near {
        true => first.nearly(random)?,
        false => (0..count).map(|_| target(random, loss, values)).collect(),
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
    let element_weight = match (weighted, bce) {
        (false, _) => None,
        (true, false) => Some(weight(random, shape)?),
        (true, true) => {
            let shape = smaller_shape(random, shape);
            Some(weight(random, &shape)?)
        }
    };
    let pos_weight = match bce && random.one_in(2) {
        true => {
            let shape = smaller_shape(random, shape);
            Some(weight(random, &shape)?)
        }
        false => None,
    };

    let mut reductions = vec![Reduction::None, Reduction::Sum, Reduction::Mean];
    if kl {
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
    let call = ElementwiseDraw {
        loss,
        reduction,
        target,
        weight: element_weight,
        pos_weight,
        grad_output,
    };
    Ok(Box::new(call))
}

/// One element of the target, hard where the case is.
fn target(random: &mut Random, loss: ElementLoss, values: Values) -> f64 {
    let normal = f64::from(random.normal());
    let hard = values != Values::Tame && random.one_in(6);
    match loss {
        ElementLoss::BceWithLogits | ElementLoss::KlDiv { log_target: false } => {
            match (hard, random.below(6)) {
                (true, 0) => -0.25,
                (true, 1) => 1.5,
                (true, 2) => f64::NAN,
                (true, 3) | (false, 0) => 0.0,
                (true, 4) | (false, 1) => 1.0,
                _ => (normal.abs() / 4.0).min(1.0),
            }
        }
        ElementLoss::KlDiv { log_target: true } | ElementLoss::JsDiv { .. } => {
            match (hard, random.below(4)) {
                (true, 0) => f64::NEG_INFINITY,
                (true, 1) => f64::NAN,
                (true, 2) => -300.0,
                _ => -2.5 * normal.abs(),
            }
        }
        _ => match (hard, random.below(5)) {
            (true, 0) => f64::INFINITY,
            (true, 1) => f64::NEG_INFINITY,
            (true, 2) => f64::NAN,
            (true, 3) => -3.5,
            _ => 2.5 * normal,
        },
    }
}
