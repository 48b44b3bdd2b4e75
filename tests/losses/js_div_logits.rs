//! Jensen–Shannon divergence from logits, as a case.

use crate::cross_entropy::{Upstream, target_shape};
use crate::data::{Data, FLOATS, Rng};
use crate::golden::Golden;
use crate::harness::{Case, Expected, Got, bits, check, devices};
use warploss::check::reference::{self, JsDivLogitsReference};
use warploss::{
    DType, Device, Divergence, GradOutput, JsDivLogits, JsDivLogitsGradOut, Reduction, Result,
};

#[derive(Debug, Clone)]
pub(crate) struct JsDivLogitsCase {
    pub(crate) logits: Data,
    pub(crate) target: Data,
    pub(crate) labels: Option<Data>,
    pub(crate) ignore_index: i64,
    pub(crate) upstream: Upstream,
    pub(crate) reduction: Reduction,
    /// 2: the total variation.
    pub(crate) beta: f32,
    pub(crate) logit_scale: f32,
    pub(crate) teacher_scale: f32,
}

impl JsDivLogitsCase {
    /// Default options.
    pub(crate) fn new(dtype: DType, shape: &[usize], logits: &[f64], target: &[f64]) -> Self {
        JsDivLogitsCase {
            logits: Data::floats(dtype, shape, logits),
            target: Data::floats(dtype, shape, target),
            labels: None,
            ignore_index: -100,
            upstream: Upstream::Number(1.0),
            reduction: Reduction::BatchMean,
            beta: 0.5,
            logit_scale: 1.0,
            teacher_scale: 1.0,
        }
    }

    /// A case of `js_div_logits.safetensors`.
    pub(crate) fn golden(golden: &Golden<'_>) -> JsDivLogitsCase {
        JsDivLogitsCase {
            logits: golden.data("logits").expect("logits").padded(golden.name.len() % 4),
            target: golden.data("target").expect("target").padded(golden.name.len() % 3),
            labels: golden.data("labels"),
            ignore_index: golden.number("ignore_index") as i64,
            upstream: match golden.data("grad_output") {
                Some(g) => Upstream::Tensor(g),
                None => Upstream::Number(1.0),
            },
            reduction: golden.reduction(),
            beta: golden.number("beta") as f32,
            logit_scale: golden.number("logit_scale") as f32,
            teacher_scale: golden.number("teacher_scale") as f32,
        }
    }

    /// Any options, on rows of any length: the same case for the same seed.
    pub(crate) fn random(seed: u64) -> JsDivLogitsCase {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let dtype = FLOATS[rng.below(3)];
        let classes = [1, 2, 7, 33, 257, 2047, 2050, 5000][rng.below(8)];
        let shape: &[usize] = match rng.below(6) {
            0 => &[classes],
            1 => &[2, classes, 3],
            2 => &[0, classes],
            _ => &[1 + rng.below(5), classes],
        };
        let count: usize = shape.iter().product();
        let masked = [5, 1000, 1000][rng.below(3)];
        let numbers = |rng: &mut Rng| -> Vec<f64> {
            let one = |_| match rng.below(masked) {
                0 => f64::NEG_INFINITY,
                _ => 2.5 * rng.normal(),
            };
            (0..count).map(one).collect()
        };
        let (x, y) = (numbers(&mut rng), numbers(&mut rng));
        let rows = target_shape(shape);
        let labels = (rng.below(2) == 0).then(|| {
            let labels: Vec<i64> = (0..rows.iter().product())
                .map(|_| if rng.below(3) == 0 { -100 } else { rng.below(classes) as i64 })
                .collect();
            Data::indices(DType::I64, &rows, &labels)
        });
        let reductions = [Reduction::None, Reduction::Sum, Reduction::Mean, Reduction::BatchMean];
        let reduction = reductions[rng.below(4)];
        let upstream = match (rng.below(2), reduction) {
            (0, Reduction::None) => {
                let g: Vec<f64> = (0..rows.iter().product()).map(|_| rng.normal()).collect();
                Upstream::Tensor(Data::floats(DType::F32, &rows, &g))
            }
            _ => Upstream::Number(-1.75),
        };
        let case = JsDivLogitsCase::new(dtype, shape, &x, &y);
        JsDivLogitsCase {
            logits: case.logits.padded(rng.below(4)),
            target: case.target.padded(rng.below(4)),
            labels,
            upstream,
            reduction,
            beta: [0.5, 0.5, 0.2, 0.95, 0.0, 1.0][rng.below(6)],
            logit_scale: [1.0, 0.7][rng.below(2)],
            teacher_scale: [1.0, 1.5][rng.below(2)],
            ignore_index: -100,
        }
    }

    fn options(&self) -> JsDivLogits<'_> {
        let divergence = match self.beta {
            2.0 => Divergence::TotalVariation,
            beta => Divergence::Js(beta),
        };
        let options = JsDivLogits::default()
            .divergence(divergence)
            .reduction(self.reduction)
            .logit_scale(self.logit_scale)
            .teacher_scale(self.teacher_scale)
            .ignore_index(self.ignore_index);
        match &self.labels {
            Some(labels) => options.labels(labels.view()),
            None => options,
        }
    }

    fn grad_output(&self) -> GradOutput<'_> {
        self.upstream.grad_output()
    }

    fn reference(&self, logits: &[f64], target: &[f64]) -> JsDivLogitsReference {
        let upstream = reference::upstream(self.grad_output()).expect("host memory");
        let labels = self.labels.as_ref().map(|l| {
            let labels = l.values();
            labels.iter().map(|&l| l as i64).collect::<Vec<i64>>()
        });
        let pair = (logits, target);
        let (options, shape) = (self.options(), self.logits.shape());
        reference::js_div_logits(&options, shape, pair, labels.as_deref(), &upstream)
    }

    fn poisoned_loss(&self) -> Data {
        let rows = target_shape(self.logits.shape());
        let none = self.reduction == Reduction::None;
        Data::poison(DType::F32, if none { &rows } else { &[] })
    }

    fn poisoned(&self, padding: usize) -> Data {
        Data::poison(self.logits.dtype(), self.logits.shape()).padded(padding)
    }

    fn allocating(&self, device: &Device) -> Result<Vec<Got>> {
        let (op, g) = (self.options(), self.grad_output());
        let (x, y) = (self.logits.view(), self.target.view());
        let loss = op.forward(device, x, y)?;
        let grad = op.backward(device, x, y, g)?;
        Ok(vec![Got::new("loss", loss.view()), Got::new("grad_logits", grad.view())])
    }

    /// Both gradients.
    fn into(&self, device: &Device) -> Result<Vec<Got>> {
        let (op, g) = (self.options(), self.grad_output());
        let (x, y) = (self.logits.view(), self.target.view());
        let (mut loss, mut dx, mut dy) = (self.poisoned_loss(), self.poisoned(3), self.poisoned(1));
        op.forward_into(device, x, y, loss.view_mut())?;
        let grads = JsDivLogitsGradOut { logits: dx.view_mut(), target: Some(dy.view_mut()) };
        op.backward_into(device, x, y, g, grads)?;
        dx.assert_padding_is_poison("grad_logits");
        dy.assert_padding_is_poison("grad_target");
        Ok(vec![
            Got::new("loss", loss.view()),
            Got::new("grad_logits", dx.view()),
            Got::new("grad_target", dy.view()),
        ])
    }

    pub(crate) fn in_place(&self, device: &Device, both: bool) -> Result<Vec<Got>> {
        let (op, g, mut x) = (self.options(), self.grad_output(), self.logits.clone());
        let (mut loss, mut dy) = (self.poisoned_loss(), self.poisoned(5));
        let target = both.then(|| dy.view_mut());
        let grads = JsDivLogitsGradOut { logits: x.view_mut(), target };
        op.forward_backward_in_place(device, grads, self.target.view(), g, loss.view_mut())?;
        x.assert_padding_is_poison("grad_logits");
        let mut got = vec![Got::new("loss", loss.view()), Got::new("grad_logits", x.view())];
        if both {
            dy.assert_padding_is_poison("grad_target");
            got.push(Got::new("grad_target", dy.view()));
        }
        Ok(got)
    }
}

impl Case for JsDivLogitsCase {
    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn expected(&self) -> Vec<Expected> {
        let out = self.reference(&self.logits.values(), &self.target.values());
        vec![
            Expected::loss("loss", out.loss, out.loss_size),
            Expected::summed_gradient("grad_logits", out.grad_logits, out.grad_logits_size),
            Expected::summed_gradient("grad_target", out.grad_target, out.grad_target_size),
        ]
    }

    fn forms(&self, device: &Device) -> Vec<(&'static str, Result<Vec<Got>>)> {
        vec![
            ("allocating", self.allocating(device)),
            ("into", self.into(device)),
            ("in place", self.in_place(device, false)),
            ("in place, both", self.in_place(device, true)),
        ]
    }

    fn variables(&self) -> Vec<(&'static str, Vec<f64>)> {
        vec![("grad_logits", self.logits.values()), ("grad_target", self.target.values())]
    }

    fn objective(&self, gradient: &str, values: &[f64]) -> f64 {
        let (x, y) = (self.logits.values(), self.target.values());
        let loss = match gradient {
            "grad_logits" => self.reference(values, &y).loss,
            _ => self.reference(&x, values).loss,
        };
        self.upstream.objective(&loss)
    }
}

#[test]
fn js_div_logits_agrees_with_the_reference() {
    (0..120).for_each(|seed| check(&JsDivLogitsCase::random(seed)));
}

#[test]
fn a_total_variation_agrees_with_the_reference() {
    (0..60).for_each(|seed| check(&JsDivLogitsCase { beta: 2.0, ..JsDivLogitsCase::random(seed) }));
}

#[test]
fn js_div_logits_gives_the_same_bits_on_any_number_of_threads() {
    for seed in 0..20 {
        let case = JsDivLogitsCase::random(seed);
        let all = devices().iter().filter(|(name, _)| name.starts_with("cpu"));
        let mut first = None;
        for (name, device) in all {
            let bits = bits(&case, device);
            let expected = first.get_or_insert_with(|| bits.clone());
            assert!(*expected == bits, "{name}: {}", case.describe());
        }
    }
}

/// What holds whatever the logits are: 0 between equals, symmetry at β = ½ and of the total variation, never
/// negative, at most ln 2 or 1, and blind to an offset of either row.
#[test]
fn the_divergence_is_a_divergence() {
    let (rows, classes) = (6, 700);
    let mut rng = Rng(5);
    let numbers = |rng: &mut Rng| (0..rows * classes).map(|_| 3.0 * rng.normal()).collect();
    let (x, y): (Vec<f64>, Vec<f64>) = (numbers(&mut rng), numbers(&mut rng));
    let shape = [rows, classes];
    let most = [(0.5, std::f64::consts::LN_2), (2.0, 1.0)];
    for ((beta, most), (name, device)) in
        most.into_iter().flat_map(|b| devices().iter().map(move |d| (b, d)))
    {
        let losses = |x: &[f64], y: &[f64]| -> Vec<f64> {
            let case = JsDivLogitsCase { beta, ..JsDivLogitsCase::new(DType::F32, &shape, x, y) };
            let op = case.options().reduction(Reduction::None);
            let loss = op.forward(device, case.logits.view(), case.target.view()).unwrap();
            loss.view().to_f64().unwrap()
        };
        assert_eq!(losses(&x, &x), [0.0; 6], "{name}");
        let near = |a: &[f64], b: &[f64]| {
            a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{name}: {a} {b}"));
        };
        let there = losses(&x, &y);
        near(&there, &losses(&y, &x));
        assert!(there.iter().all(|&l| 0.0 < l && l <= most), "{name} {there:?}");
        let shifted: Vec<f64> = x.iter().map(|x| x + 64.0).collect();
        near(&there, &losses(&shifted, &y));
    }
}

#[test]
fn bad_input_is_named_and_writes_nothing() {
    let case = JsDivLogitsCase::new(DType::F32, &[2, 3], &[0.5; 6], &[1.0; 6]);
    let (x, y) = (case.logits.view(), case.target.view());
    let half = Data::floats(DType::BF16, &[2, 3], &[0.0; 6]);
    let wide = Data::floats(DType::F32, &[3, 2], &[0.0; 6]);
    let [label, far] = [[0, 1], [0, 3]].map(|l| Data::indices(DType::I64, &[2], &l));
    let short = Data::indices(DType::I64, &[1], &[0]);
    let op = JsDivLogits::default;
    for (name, device) in devices() {
        let forward = |op: JsDivLogits<'_>, target: &Data| {
            op.forward(device, x, target.view()).map(drop).expect_err("an error").to_string()
        };
        for (got, expected) in [
            (forward(op().beta(1.5), &case.target), "beta: expected a number in [0, 1], got 1.5"),
            (forward(op().beta(f32::NAN), &case.target), "beta: expected a number in [0, 1]"),
            (forward(op().logit_scale(0.0), &case.target), "logit_scale: expected a finite"),
            (forward(op().teacher_scale(-1.0), &case.target), "teacher_scale: expected a finite"),
            (forward(op(), &half), "target: expected dtype f32"),
            (forward(op(), &wide), "target: expected shape [2, 3]"),
            (forward(op().labels(y), &case.target), "labels: expected dtype i64, i32, u32 or u8"),
            (forward(op().labels(short.view()), &case.target), "labels: expected shape [2]"),
            (forward(op().labels(far.view()), &case.target), "got 3 at row 1"),
        ] {
            assert!(got.contains(expected), "{name}: {got}");
        }
        assert!(op().labels(label.view()).forward(device, x, y).is_ok());
        // A bad label leaves the logits as they were.
        let (mut consumed, mut loss) = (case.logits.clone(), Data::poison(DType::F32, &[]));
        let op = op().labels(far.view());
        let (view, out) = (consumed.view_mut(), loss.view_mut());
        assert!(op.forward_backward_in_place(device, view, y, 1.0, out).is_err());
        assert_eq!(consumed.values(), case.logits.values(), "{name}");
    }
}
