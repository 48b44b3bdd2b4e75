//! Multi-class margin loss as a case: its options, its calls, and what sets it apart.

use crate::cross_entropy::{Upstream, target_shape};
use crate::data::{Data, FLOATS, Rng};
use crate::golden::Golden;
use crate::gradients::check_slope;
use crate::harness::{Case, Expected, Got, check, check_against, devices};
use warploss::check::reference;
use warploss::{DType, Device, GradOutput, MultiMargin, Reduction, Result};

#[derive(Debug, Clone)]
pub(crate) struct MarginCase {
    input: Data,
    target: Data,
    weight: Option<Data>,
    upstream: Upstream,
    p: u32,
    margin: f32,
    reduction: Reduction,
}

impl MarginCase {
    /// f32 input, default options.
    pub(crate) fn new(shape: &[usize], input: &[f64], target: &[i64]) -> MarginCase {
        MarginCase {
            input: Data::floats(DType::F32, shape, input),
            target: Data::indices(DType::I64, &target_shape(shape), target),
            weight: None,
            upstream: Upstream::Number(1.0),
            p: 1,
            margin: 1.0,
            reduction: Reduction::Mean,
        }
    }

    /// A case of `multi_margin.safetensors`.
    pub(crate) fn golden(golden: &Golden<'_>) -> MarginCase {
        MarginCase {
            input: golden.data("input").expect("input").padded(golden.name.len() % 4),
            target: golden.data("target").expect("target"),
            weight: golden.data("weight"),
            upstream: match golden.data("grad_output") {
                Some(g) => Upstream::Tensor(g),
                None => Upstream::Number(1.0),
            },
            p: golden.number("p") as u32,
            margin: golden.number("margin") as f32,
            reduction: golden.reduction(),
        }
    }

    /// Of normal numbers; weights and an upstream gradient for every other seed.
    fn random(seed: u64, dtype: DType, shape: &[usize], p: u32) -> MarginCase {
        let mut rng = Rng(seed);
        let classes = shape[usize::from(shape.len() > 1)];
        let input = rng.normals(shape.iter().product(), 2.0);
        let rows = target_shape(shape);
        let target: Vec<i64> =
            (0..rows.iter().product()).map(|_| rng.below(classes) as i64).collect();
        let reduction = [Reduction::None, Reduction::Sum, Reduction::Mean][seed as usize % 3];
        let weights: Vec<f64> = (0..classes).map(|_| 0.1 + rng.unit()).collect();
        let g = rng.normals(target.len(), 1.0);
        let case = MarginCase::new(shape, &input, &target);
        MarginCase {
            input: Data::floats(dtype, shape, &input).padded(seed as usize % 4),
            weight: seed.is_multiple_of(2).then(|| Data::floats(DType::F32, &[classes], &weights)),
            upstream: match reduction {
                Reduction::None => Upstream::Tensor(Data::floats(DType::F32, &rows, &g)),
                _ => Upstream::Number(-1.75),
            },
            p,
            margin: 0.7,
            reduction,
            ..case
        }
    }

    fn options(&self) -> MultiMargin<'_> {
        let options = MultiMargin::default().p(self.p).margin(self.margin);
        let options = options.reduction(self.reduction);
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

    fn reference(&self, input: &[f64]) -> reference::MarginReference {
        let target = reference::indices(self.target.view()).expect("indices");
        let upstream = reference::upstream(self.grad_output()).expect("host memory");
        let weight = self.weight.as_ref().map(Data::values);
        let (options, of) =
            ((self.p == 2, self.margin, self.reduction), (self.input.shape(), input));
        reference::multi_margin(options, weight.as_deref(), of, &target, &upstream)
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
        let g = self.grad_output();
        self.options().backward_into(device, input, target, g, grad.view_mut())?;
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

impl Case for MarginCase {
    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn expected(&self) -> Vec<Expected> {
        let of = self.reference(&self.input.values());
        vec![
            Expected::loss("loss", of.loss, of.loss_size),
            Expected::summed_gradient("grad_input", of.grad_input, of.grad_size),
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

#[test]
fn the_gradient_is_the_slope_of_the_loss() {
    for (seed, shape) in (0..).zip([&[7][..], &[4, 9], &[2, 5, 3], &[3, 1], &[2, 3, 2, 2]]) {
        for p in [1, 2] {
            check_slope(&MarginCase::random(seed, DType::F32, shape, p));
        }
    }
}

/// Vectors and their remainders, packs at any address, rows that a block, a cluster or several blocks have,
/// and such as threads share.
#[test]
fn rows_of_every_length_and_layout_agree() {
    let mut shapes: Vec<Vec<usize>> = (1..36).map(|classes| vec![3, classes]).collect();
    shapes.extend([2047, 2049, 4097, 9001, 70_001].map(|classes| vec![2, classes]));
    shapes.extend([vec![33], vec![0, 7], vec![3, 2, 1031], vec![2, 70, 2, 9], vec![2, 7, 0]]);
    for (seed, shape) in (0..).zip(&shapes) {
        for dtype in FLOATS {
            check(&MarginCase::random(seed, dtype, shape, 1 + seed as u32 % 2));
        }
    }
}

/// Whether a score is above the margin is decided by what its difference loses in rounding, and a common
/// offset costs no digits.
#[test]
fn digits_that_a_difference_loses_decide() {
    // margin − x_t is 0: the others alone are left, however small, and of an offset nothing is.
    let tiny = [1.0, 1e-30, -1e-30, 1e-40, 0.0, 1.0];
    let offset = [1e6, 1e6 - 0.5, 1e6 - 1.0, 1e6 - 1.5, 1e6 + 2.0, 1e6];
    for (input, active) in
        [(tiny, [1e-30, 0.0, 1e-40, 0.0, 1.0]), (offset, [0.5, 0.0, 0.0, 3.0, 1.0])]
    {
        let case = MarginCase::new(&[1, 6], &input, &[0]);
        let case = MarginCase { reduction: Reduction::Sum, ..case };
        let one = |x: &f64| if *x > 0.0 { 1.0 / 6.0 } else { 0.0 };
        let mut grad: Vec<f64> = active.iter().map(one).collect();
        grad.insert(0, -grad.iter().sum::<f64>());
        let loss = active.iter().sum::<f64>() / 6.0;
        let expected = [Expected::term("loss", vec![loss]), Expected::gradient("grad_input", grad)];
        check_against(&case, &expected);
        check(&case);
    }
}

/// As in PyTorch: NaN is above nothing, an infinite score is above everything.
#[test]
fn scores_that_are_no_numbers() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    for (row, loss, grad) in [
        ([0.0, nan, 0.5], 0.5, [-1.0, 0.0, 1.0]),
        ([nan, 1.0, 2.0], 0.0, [0.0; 3]),
        ([0.0, inf, -inf], inf, [-1.0, 1.0, 0.0]),
        ([inf, inf, 0.0], 0.0, [0.0; 3]),
        ([-inf, 0.0, -inf], inf, [-1.0, 1.0, 0.0]),
    ] {
        let case = MarginCase::new(&[1, 3], &row, &[0]);
        let case = MarginCase { margin: 0.0, ..case };
        let grad = grad.iter().map(|g| g / 3.0).collect();
        let loss = Expected::term("loss", vec![loss / 3.0]);
        check_against(&case, &[loss, Expected::gradient("grad_input", grad)]);
    }
}

#[test]
fn the_mean_divides_by_rows_whatever_they_weigh() {
    let case = MarginCase::new(&[2, 2], &[0.0, 1.0, 0.0, 1.0], &[0, 0]);
    let weight = Data::floats(DType::F32, &[2], &[3.0, 0.0]);
    let case = MarginCase { weight: Some(weight), ..case };
    // Each row: 3/2·max(0, 1 − 0 + 1).
    let grad = Expected::gradient("grad_input", vec![-0.75, 0.75, -0.75, 0.75]);
    check_against(&case, &[Expected::term("loss", vec![3.0]), grad]);
    let case = MarginCase::new(&[0, 4], &[], &[]);
    check_against(
        &case,
        &[Expected::term("loss", vec![f64::NAN]), Expected::gradient("grad_input", vec![])],
    );
}

/// Nothing is written where a target is no class, on any device, and the row is named.
#[test]
fn what_is_wrong_is_named_and_nothing_is_written() {
    let good = MarginCase::new(&[3, 4], &[0.5; 12], &[0, 3, 1]);
    let good = MarginCase { reduction: Reduction::None, ..good };
    let target = |values: &[i64]| Data::indices(DType::I64, &[3], values);
    let weight = |values: &[f64]| Some(Data::floats(DType::F32, &[values.len()], values));
    let spoiled = |spoil: &dyn Fn(&mut MarginCase)| {
        let mut case = good.clone();
        spoil(&mut case);
        case
    };
    let wrong = [
        (
            spoiled(&|c| c.target = target(&[0, 4, 9])),
            "target: expected a class in [0, 4), got 4 at row 1",
        ),
        (spoiled(&|c| c.target = target(&[0, 1, -100])), "got -100 at row 2"),
        (spoiled(&|c| c.target = target(&[i64::MIN, 1, 1])), "at row 0"),
        (spoiled(&|c| c.weight = weight(&[1.0, f64::NAN, 1.0, 1.0])), "weight: "),
        (spoiled(&|c| c.weight = weight(&[1.0; 3])), "weight: expected shape [4]"),
        (spoiled(&|c| c.p = 3), "p: expected 1 or 2, got 3"),
        (spoiled(&|c| c.margin = f32::INFINITY), "margin: expected a finite number, got inf"),
        (spoiled(&|c| c.reduction = Reduction::BatchMean), "reduction: expected none, sum or mean"),
    ];
    for (case, named) in &wrong {
        for (name, device) in devices() {
            let (mut input, mut loss) = (case.input.clone(), good.loss());
            let mut grad = Data::poison(DType::F32, &[3, 4]);
            let (options, target) = (case.options(), case.target.view());
            let view = case.input.view();
            let errors = [
                options.forward(device, view, target).map(drop),
                options.forward_into(device, view, target, loss.view_mut()),
                options.backward(device, view, target, 1.0).map(drop),
                options.backward_into(device, view, target, 1.0, grad.view_mut()),
                options.forward_backward_in_place(
                    device,
                    input.view_mut(),
                    target,
                    1.0,
                    loss.view_mut(),
                ),
            ];
            for error in errors {
                let said = error.expect_err(named).to_string();
                assert!(said.contains(named), "{name}: expected {named}, got {said}");
            }
            assert_eq!(input.bits(), case.input.bits(), "{name}: {named}");
            assert_eq!(loss.bits(), good.loss().bits(), "{name}: {named}");
            assert_eq!(grad.bits(), Data::poison(DType::F32, &[3, 4]).bits(), "{name}: {named}");
        }
    }
}
