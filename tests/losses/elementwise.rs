//! The elementwise losses as cases: one kind of case, whichever the loss.

mod numbers;

use crate::cross_entropy::Upstream;
use crate::data::{Data, FLOATS, Rng};
use crate::golden::Golden;
use crate::harness::{Case, Expected, Got};
use numbers::{input, target};
use warploss::check::catalogue;
use warploss::check::elementwise::{Calls, ElementLoss, Given, Weights};
use warploss::check::option::Scalar;
use warploss::check::reference::{self, ElementwiseCall, ElementwiseReference};
use warploss::{DType, Device, ElementwiseGradOut, GradOutput, Reduction, Result, Wrt};

/// Every loss, with options on both sides of what matters.
pub(crate) fn losses() -> Vec<ElementLoss> {
    catalogue::elementwise().flat_map(|loss| loss.variants()).collect()
}

/// A loss by its name, with options.
pub(crate) fn loss(name: &str, options: &[f32]) -> ElementLoss {
    let loss = catalogue::elementwise().find(|loss| loss.name == name);
    loss.unwrap_or_else(|| panic!("{name} is not in the catalogue")).with(options)
}

pub(crate) fn mse() -> ElementLoss {
    loss("mse", &[])
}

pub(crate) fn l1() -> ElementLoss {
    loss("l1", &[])
}

pub(crate) fn smooth_l1(beta: f32) -> ElementLoss {
    loss("smooth-l1", &[beta])
}

pub(crate) fn huber(delta: f32) -> ElementLoss {
    loss("huber", &[delta])
}

pub(crate) fn bce_with_logits() -> ElementLoss {
    loss("bce-with-logits", &[])
}

pub(crate) fn kl_div(log_target: bool) -> ElementLoss {
    loss("kl-div", &[Scalar::Flag(log_target).number()])
}

pub(crate) fn js_div(beta: f32) -> ElementLoss {
    loss("js-div", &[beta])
}

#[derive(Debug, Clone)]
pub(crate) struct ElementwiseCase {
    pub(crate) loss: ElementLoss,
    pub(crate) input: Data,
    pub(crate) target: Data,
    pub(crate) weight: Option<Data>,
    pub(crate) third: Option<Data>,
    pub(crate) upstream: Upstream,
    pub(crate) reduction: Reduction,
}

impl ElementwiseCase {
    /// Mean of an input and a target in f32.
    pub(crate) fn new(
        loss: ElementLoss,
        input: (&[usize], &[f64]),
        target: (&[usize], &[f64]),
    ) -> Self {
        ElementwiseCase {
            loss,
            input: Data::floats(DType::F32, input.0, input.1),
            target: Data::floats(DType::F32, target.0, target.1),
            weight: None,
            third: None,
            upstream: Upstream::Number(1.0),
            reduction: Reduction::Mean,
        }
    }

    /// One loss for each pair.
    pub(crate) fn pairs(loss: ElementLoss, x: &[f64], y: &[f64]) -> Self {
        let shape = [x.len()];
        let case = ElementwiseCase::new(loss, (&shape, x), (&shape, y));
        ElementwiseCase { reduction: Reduction::None, ..case }
    }

    /// The engine's loss.
    fn op(&self) -> Box<dyn Calls + '_> {
        self.loss.make(Given {
            weight: self.weight.as_ref().map(Data::view),
            third: self.third.as_ref().map(Data::view),
            reduction: self.reduction,
        })
    }

    /// The shape of input and target together.
    pub(crate) fn shape(&self) -> Vec<usize> {
        reference::broadcast(self.input.shape(), self.target.shape())
    }

    fn loss_shape(&self) -> Vec<usize> {
        if self.reduction == Reduction::None { self.shape() } else { Vec::new() }
    }

    fn grad_output(&self) -> GradOutput<'_> {
        self.upstream.grad_output()
    }

    /// With these numbers in the place of input, target and third tensor.
    fn reference(&self, x: &[f64], y: &[f64], third: Option<&[f64]>) -> ElementwiseReference {
        let weight = self.weight.as_ref().map(|w| (w.shape(), w.values()));
        let weight = weight.as_ref().map(|(shape, data)| reference::Values { shape, data });
        let third = self.third.as_ref().zip(third);
        let third = third.map(|(of, data)| reference::Values { shape: of.shape(), data });
        reference::elementwise(&ElementwiseCall {
            loss: &self.loss,
            reduction: self.reduction,
            input: reference::Values { shape: self.input.shape(), data: x },
            target: reference::Values { shape: self.target.shape(), data: y },
            weight,
            third,
            grad_output: &reference::upstream(self.grad_output()).expect("host memory"),
        })
    }

    fn poisoned_loss(&self) -> Data {
        Data::poison(DType::F32, &self.loss_shape())
    }

    /// Not yet written gradients of input and target, each with a row stride of its own.
    fn poisoned_gradients(&self) -> [Data; 2] {
        let poison = |of: &Data, padding| Data::poison(of.dtype(), of.shape()).padded(padding);
        [poison(&self.input, 3), poison(&self.target, 1)]
    }

    /// The third tensor, if it has a gradient.
    fn variance(&self) -> Option<&Data> {
        let third = self.loss.of().third?;
        self.third.as_ref().filter(|_| third.slope.is_some())
    }

    /// Its gradient, not yet written.
    fn poisoned_variance(&self) -> Option<Data> {
        self.variance().map(|of| Data::poison(of.dtype(), of.shape()).padded(2))
    }

    fn allocating(&self, device: &Device) -> Result<Vec<Got>> {
        let (x, y, g) = (self.input.view(), self.target.view(), self.grad_output());
        let mut got = Vec::new();
        let op = self.op();
        let loss = op.forward(device, x, y)?;
        got.push(Got::new("loss", loss.view()));
        let (both, grads) = op.forward_backward(device, x, y, g, Wrt::All)?;
        got.push(Got::new("loss", both.view()));
        let separate = op.backward(device, x, y, g, Wrt::All)?;
        assert!(op.backward(device, x, y, g, Wrt::Both)?.grad_variance.is_none());
        for grads in [grads, separate] {
            assert_eq!(grads.grad_variance.is_some(), self.variance().is_some());
            got.extend(grads.grad_variance.map(|grad| Got::new("grad_variance", grad.view())));
            for (name, grad) in
                [("grad_input", grads.grad_input), ("grad_target", grads.grad_target)]
            {
                got.push(Got::new(name, grad.expect("both were asked for").view()));
            }
        }
        let only = op.backward(device, x, y, g, Wrt::Target)?;
        assert!(only.grad_input.is_none());
        got.push(Got::new("grad_target", only.grad_target.expect("asked for").view()));
        Ok(got)
    }

    /// Into buffers, one gradient at a time.
    fn into(&self, device: &Device) -> Result<Vec<Got>> {
        let (x, y, g) = (self.input.view(), self.target.view(), self.grad_output());
        let (mut loss, [mut dx, mut dy]) = (self.poisoned_loss(), self.poisoned_gradients());
        let op = self.op();
        op.forward_into(device, x, y, loss.view_mut())?;
        let grad_input = Some(dx.view_mut());
        let only = ElementwiseGradOut { grad_input, ..Default::default() };
        op.backward_into(device, x, y, g, only)?;
        let grad_target = Some(dy.view_mut());
        let only = ElementwiseGradOut { grad_target, ..Default::default() };
        op.backward_into(device, x, y, g, only)?;
        let mut dr = self.poisoned_variance();
        if let Some(dr) = &mut dr {
            let only =
                ElementwiseGradOut { grad_variance: Some(dr.view_mut()), ..Default::default() };
            op.backward_into(device, x, y, g, only)?;
        }
        written(&loss, &dx, &dy, &dr)
    }

    /// Everything at once, into buffers.
    fn fused(&self, device: &Device) -> Result<Vec<Got>> {
        let (x, y, g) = (self.input.view(), self.target.view(), self.grad_output());
        let (mut loss, [mut dx, mut dy]) = (self.poisoned_loss(), self.poisoned_gradients());
        let (op, mut dr) = (self.op(), self.poisoned_variance());
        let grads = ElementwiseGradOut {
            grad_input: Some(dx.view_mut()),
            grad_target: Some(dy.view_mut()),
            grad_variance: dr.as_mut().map(Data::view_mut),
        };
        op.forward_backward_into(device, x, y, g, (loss.view_mut(), grads))?;
        written(&loss, &dx, &dy, &dr)
    }

    /// Over the input, which is as large as the result.
    fn in_place(&self, device: &Device) -> Result<Vec<Got>> {
        let (mut x, y, g) = (self.input.clone(), self.target.view(), self.grad_output());
        let mut loss = self.poisoned_loss();
        let op = self.op();
        op.forward_backward_in_place(device, x.view_mut(), y, g, loss.view_mut())?;
        x.assert_padding_is_poison("grad_input");
        Ok(vec![Got::new("loss", loss.view()), Got::new("grad_input", x.view())])
    }
}

fn written(loss: &Data, dx: &Data, dy: &Data, dr: &Option<Data>) -> Result<Vec<Got>> {
    let named =
        [("grad_input", Some(dx)), ("grad_target", Some(dy)), ("grad_variance", dr.as_ref())];
    let mut got = vec![Got::new("loss", loss.view())];
    for (name, grad) in named {
        let Some(grad) = grad else { continue };
        grad.assert_padding_is_poison(name);
        got.push(Got::new(name, grad.view()));
    }
    Ok(got)
}

impl Case for ElementwiseCase {
    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn expected(&self) -> Vec<Expected> {
        let third = self.third.as_ref().map(Data::values);
        let out = self.reference(&self.input.values(), &self.target.values(), third.as_deref());
        let mut expected = vec![
            Expected::loss("loss", out.loss, out.loss_size),
            Expected::summed_gradient("grad_input", out.grad_input, out.grad_input_size),
            Expected::summed_gradient("grad_target", out.grad_target, out.grad_target_size),
        ];
        if self.variance().is_some() {
            let grad =
                Expected::summed_gradient("grad_variance", out.grad_third, out.grad_third_size);
            expected.push(grad);
        }
        expected
    }

    fn forms(&self, device: &Device) -> Vec<(&'static str, Result<Vec<Got>>)> {
        let mut forms = vec![
            ("allocating", self.allocating(device)),
            ("into", self.into(device)),
            ("fused", self.fused(device)),
        ];
        if self.input.shape() == self.shape() {
            forms.push(("in place", self.in_place(device)));
        }
        forms
    }

    fn variables(&self) -> Vec<(&'static str, Vec<f64>)> {
        let mut all =
            vec![("grad_input", self.input.values()), ("grad_target", self.target.values())];
        all.extend(self.variance().map(|variance| ("grad_variance", variance.values())));
        all
    }

    fn objective(&self, gradient: &str, values: &[f64]) -> f64 {
        let (x, y) = (self.input.values(), self.target.values());
        let third = self.third.as_ref().map(Data::values);
        let third = third.as_deref();
        let loss = match gradient {
            "grad_input" => self.reference(values, &y, third).loss,
            "grad_variance" => self.reference(&x, &y, Some(values)).loss,
            _ => self.reference(&x, values, third).loss,
        };
        self.upstream.objective(&loss)
    }
}

/// Shapes of input and target: equal or broadcast, about the sizes of vectors, tiles and parts.
const SHAPES: [(&[usize], &[usize]); 24] = [
    (&[], &[]),
    (&[1], &[]),
    (&[1], &[1]),
    (&[7], &[7]),
    (&[33], &[33]),
    (&[1025], &[1025]),
    (&[2, 1023], &[2, 1023]),
    (&[3, 257], &[3, 257]),
    (&[5, 31, 2], &[5, 31, 2]),
    (&[0], &[0]),
    (&[2, 0, 3], &[2, 0, 3]),
    (&[300], &[]),
    (&[], &[41]),
    (&[6, 301], &[301]),
    (&[6, 301], &[6, 1]),
    (&[1, 301], &[6, 1]),
    (&[500, 3], &[3]),
    (&[500, 3], &[500, 1]),
    (&[2, 3, 4, 1, 5], &[3, 1, 7, 5]),
    (&[2, 1100], &[1, 1100]),
    (&[1100, 2], &[1, 2]),
    (&[0, 3], &[1, 3]),
    (&[3, 0], &[3, 1]),
    (&[3, 40, 30], &[40, 1]),
];

impl ElementwiseCase {
    /// Whatever may happen to a loss: the same case for the same seed.
    pub(crate) fn random(loss: ElementLoss, seed: u64) -> ElementwiseCase {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let of = loss.of();
        let weighted = of.weights != Weights::None && rng.below(3) == 0;
        let dtype = FLOATS[rng.below(3)];
        let (x_shape, mut y_shape) = SHAPES[rng.below(SHAPES.len())];
        if !of.broadcasts || weighted {
            y_shape = x_shape;
        }
        let hard = rng.below(2) == 0;
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        let x: Vec<f64> = (0..count(x_shape)).map(|_| input(&mut rng, loss, hard)).collect();
        let y: Vec<f64> = (0..count(y_shape)).map(|_| target(&mut rng, loss, hard)).collect();
        let shape = reference::broadcast(x_shape, y_shape);
        let weight = |rng: &mut Rng, shape: &[usize]| {
            let dtype = if rng.below(2) == 0 { DType::F32 } else { dtype };
            let values: Vec<f64> = (0..count(shape))
                .map(|_| if rng.below(9) == 0 { 0.0 } else { 0.1 + rng.unit() })
                .collect();
            Data::floats(dtype, shape, &values).padded(rng.below(3))
        };
        // Of binary cross entropy, weights broadcast to the input.
        let smaller = |rng: &mut Rng| {
            let from = rng.below(shape.len() + 1);
            let one = |&n: &usize| if rng.below(3) == 0 { 1 } else { n };
            shape[from..].iter().map(one).collect::<Vec<usize>>()
        };
        let weight_shape =
            if of.weights == Weights::Broadcast { smaller(&mut rng) } else { shape.clone() };
        let element_weight = weighted.then(|| weight(&mut rng, &weight_shape));
        let third = match of.third {
            Some(third) if rng.below(2) == 0 => {
                let without = third.slope.is_some() && rng.below(3) == 0;
                let own = third.shape(smaller(&mut rng), &shape, without);
                let drawn = weight(&mut rng, &own);
                let values = drawn.values();
                Some(Data::floats(third.dtype(drawn.dtype(), dtype), &own, &values))
            }
            _ => None,
        };
        let reductions = [Reduction::None, Reduction::Sum, Reduction::Mean, Reduction::BatchMean];
        let reduction = reductions[rng.below(if of.batch_mean { 4 } else { 3 })];
        let upstream = match (reduction, rng.below(3)) {
            (_, 0) => Upstream::Number(-1.75),
            (Reduction::None, 1) => {
                let g: Vec<f64> = (0..count(&shape))
                    .map(|_| if rng.below(9) == 0 { 0.0 } else { rng.normal() })
                    .collect();
                Upstream::Tensor(Data::floats(dtype, &shape, &g))
            }
            _ => Upstream::Tensor(Data::floats(DType::F32, &[], &[rng.normal()])),
        };
        ElementwiseCase {
            loss,
            input: Data::floats(dtype, x_shape, &x).padded(rng.below(4)),
            target: Data::floats(dtype, y_shape, &y).padded(rng.below(4)),
            weight: element_weight,
            third,
            upstream,
            reduction,
        }
    }

    /// Equal shapes, plain numbers of f32.
    pub(crate) fn plain(loss: ElementLoss, x_shape: &[usize], y_shape: &[usize]) -> Self {
        let mut rng = Rng(x_shape.iter().sum::<usize>() as u64);
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        let x: Vec<f64> = (0..count(x_shape)).map(|_| input(&mut rng, loss, false)).collect();
        let y: Vec<f64> = (0..count(y_shape)).map(|_| target(&mut rng, loss, false)).collect();
        ElementwiseCase::new(loss, (x_shape, &x), (y_shape, &y))
    }

    /// A case of `mse.safetensors` and its like.
    pub(crate) fn golden(golden: &Golden<'_>) -> ElementwiseCase {
        let name = golden.options["loss"].as_str().expect("a name").replace('_', "-");
        let of = loss(&name, &[]).of();
        let option = |name: &str| match &golden.options[name] {
            serde_json::Value::Bool(flag) => Scalar::Flag(*flag).number(),
            _ => golden.number(name) as f32,
        };
        let options: Vec<f32> = of.options.iter().map(|choice| option(choice.name)).collect();
        let loss = of.with(&options);
        ElementwiseCase {
            loss,
            input: golden.data("input").expect("input").padded(golden.name.len() % 4),
            target: golden.data("target").expect("target").padded(golden.name.len() % 3),
            weight: golden.data("weight"),
            third: of.third.and_then(|third| golden.data(third.name)),
            upstream: match golden.data("grad_output") {
                Some(g) => Upstream::Tensor(g),
                None => Upstream::Number(1.0),
            },
            reduction: golden.reduction(),
        }
    }
}
