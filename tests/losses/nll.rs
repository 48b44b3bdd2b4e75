//! Negative log-likelihood as a case: its options, its calls, its random cases.

use crate::cross_entropy::{Recipe, Upstream, target_shape};
use crate::data::{Data, FLOATS, Rng};
use crate::golden::Golden;
use crate::harness::{Case, Expected, Got, check};
use warploss::check::reference;
use warploss::{DType, Device, GradOutput, Nll, Reduction, Result};

#[derive(Debug, Clone)]
pub(crate) struct NllCase {
    pub(crate) input: Data,
    pub(crate) target: Data,
    pub(crate) weight: Option<Data>,
    pub(crate) upstream: Upstream,
    pub(crate) ignore_index: i64,
    pub(crate) reduction: Reduction,
}

impl NllCase {
    /// f32 input, default options.
    pub(crate) fn new(shape: &[usize], input: &[f64], target: &[i64]) -> NllCase {
        NllCase {
            input: Data::floats(DType::F32, shape, input),
            target: Data::indices(DType::I64, &target_shape(shape), target),
            weight: None,
            upstream: Upstream::Number(1.0),
            ignore_index: -100,
            reduction: Reduction::Mean,
        }
    }

    fn options(&self) -> Nll<'_> {
        let options = Nll::default().ignore_index(self.ignore_index).reduction(self.reduction);
        match &self.weight {
            Some(weight) => options.weight(weight.view()),
            None => options,
        }
    }

    fn grad_output(&self) -> GradOutput<'_> {
        self.upstream.grad_output()
    }

    fn loss(&self) -> Data {
        let shape = if self.reduction == Reduction::None { self.target.shape() } else { &[] };
        Data::poison(DType::F32, shape)
    }

    fn reference(&self, input: &[f64]) -> reference::NllReference {
        let target = reference::indices(self.target.view()).expect("indices");
        let upstream = reference::upstream(self.grad_output()).expect("host memory");
        reference::nll(&self.options(), self.input.shape(), input, &target, &upstream)
    }

    fn allocating(&self, device: &Device) -> Result<Vec<Got>> {
        let (input, target) = (self.input.view(), self.target.view());
        let loss = self.options().forward(device, input, target)?;
        let grad = self.options().backward(device, input, target, self.grad_output())?;
        Ok(vec![Got::new("loss", loss.view()), Got::new("grad_input", grad.view())])
    }

    fn into(&self, device: &Device) -> Result<Vec<Got>> {
        let (input, target, mut loss) = (self.input.view(), self.target.view(), self.loss());
        self.options().forward_into(device, input, target, loss.view_mut())?;
        let mut grad = Data::poison(self.input.dtype(), self.input.shape()).padded(3);
        self.options().backward_into(device, target, self.grad_output(), grad.view_mut())?;
        grad.assert_padding_is_poison("grad_input");
        Ok(vec![Got::new("loss", loss.view()), Got::new("grad_input", grad.view())])
    }

    fn fused(&self, device: &Device) -> Result<Vec<Got>> {
        let (mut input, target, mut loss) = (self.input.clone(), self.target.view(), self.loss());
        let (options, g) = (self.options(), self.grad_output());
        let view = input.view_mut();
        options.forward_backward_in_place(device, view, target, g, loss.view_mut())?;
        input.assert_padding_is_poison("grad_input");
        Ok(vec![Got::new("loss", loss.view()), Got::new("grad_input", input.view())])
    }

    fn consuming(&self, device: &Device) -> Result<Vec<Got>> {
        let (input, target) = (self.input.tensor(), self.target.view());
        let done = self.options().forward_backward(device, input, target, self.grad_output())?;
        Ok(vec![Got::new("loss", done.loss.view()), Got::new("grad_input", done.grad_input.view())])
    }
}

impl Case for NllCase {
    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn expected(&self) -> Vec<Expected> {
        let reference = self.reference(&self.input.values());
        vec![
            Expected::loss("loss", reference.loss, reference.loss_size),
            Expected::gradient("grad_input", reference.grad_input),
        ]
    }

    fn forms(&self, device: &Device) -> Vec<(&'static str, Result<Vec<Got>>)> {
        vec![
            ("allocating", self.allocating(device)),
            ("into", self.into(device)),
            ("fused", self.fused(device)),
            ("consuming", self.consuming(device)),
        ]
    }

    fn variables(&self) -> Vec<(&'static str, Vec<f64>)> {
        vec![("grad_input", self.input.values())]
    }

    fn objective(&self, _: &str, input: &[f64]) -> f64 {
        self.upstream.objective(&self.reference(input).loss)
    }
}

impl Recipe {
    /// The same rows, targets and weights; logits serve as well as log-probabilities.
    pub(crate) fn nll(&self) -> NllCase {
        let case = self.case();
        NllCase {
            input: case.logits,
            target: case.target,
            weight: case.weight,
            upstream: case.upstream,
            ignore_index: case.ignore_index,
            reduction: case.reduction,
        }
    }
}

impl NllCase {
    /// A case of `nll.safetensors`.
    pub(crate) fn golden(golden: &Golden<'_>) -> NllCase {
        NllCase {
            input: golden.data("input").expect("input").padded(golden.name.len() % 4),
            target: golden.data("target").expect("target"),
            weight: golden.data("weight"),
            upstream: match golden.data("grad_output") {
                Some(g) => Upstream::Tensor(g),
                None => Upstream::Number(1.0),
            },
            ignore_index: golden.options["ignore_index"].as_i64().expect("ignore_index"),
            reduction: golden.reduction(),
        }
    }
}

#[test]
fn only_picked_elements_are_read_and_a_weight_of_0_silences_minus_infinity() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let case = NllCase::new(&[3, 2], &[-inf, nan, nan, -1.5, nan, nan], &[0, 1, -100]);
    check(&NllCase {
        weight: Some(Data::floats(DType::F32, &[2], &[0.0, 2.0])),
        reduction: Reduction::Sum,
        ..case.clone()
    });
    check(&NllCase { reduction: Reduction::None, ..case });
}

#[test]
fn a_batch_without_weight_has_no_mean_and_ignored_rows_keep_a_gradient_of_0() {
    let case = NllCase::new(&[3, 2], &[-1.0; 6], &[0, 0, -100]);
    check(&NllCase { weight: Some(Data::floats(DType::F32, &[2], &[0.0, 1.0])), ..case.clone() });
    check(&NllCase { target: Data::indices(DType::I64, &[3], &[-100; 3]), ..case });
}

/// Classes at a distance, positions that fill no pack, and more of them than a thread has.
#[test]
fn every_layout_agrees() {
    for (shape, padding) in [
        (vec![33], 0),
        (vec![5, 1, 3], 1),
        (vec![3, 2, 1031], 5),
        (vec![2, 70, 2, 9], 3),
        (vec![2, 1030, 8], 0),
        (vec![0, 7, 3], 0),
        (vec![2, 7, 0], 0),
        (vec![3, 5001], 2),
    ] {
        for dtype in FLOATS {
            let mut rng = Rng(3);
            let classes = shape[usize::from(shape.len() > 1)];
            let input = rng.normals(shape.iter().product(), 3.0);
            let rows = target_shape(&shape);
            let target: Vec<i64> =
                (0..rows.iter().product()).map(|_| rng.below(classes) as i64).collect();
            let case = NllCase::new(&shape, &input, &target);
            let g = rng.normals(target.len(), 1.0);
            check(&NllCase {
                input: Data::floats(dtype, &shape, &input).padded(padding),
                reduction: Reduction::None,
                upstream: Upstream::Tensor(Data::floats(DType::F32, &rows, &g)),
                ..case
            });
        }
    }
}
