//! Cross entropy as a case: its options, its calls, its random cases.

use crate::data::{Data, FLOATS, Logits, Rng};
use crate::golden::Golden;
use crate::harness::{Case, Expected, Got};
use proptest::prelude::*;
use warploss::check::reference::{self, Lines};
use warploss::{CrossEntropy, CrossEntropyOut, DType, Device, GradOutput, Reduction, Result};

#[derive(Debug, Clone)]
pub(crate) struct CrossEntropyCase {
    pub(crate) logits: Data,
    pub(crate) target: Data,
    pub(crate) weight: Option<Data>,
    pub(crate) upstream: Upstream,
    pub(crate) ignore_index: i64,
    pub(crate) reduction: Reduction,
    pub(crate) label_smoothing: f64,
    pub(crate) lse_square_scale: f64,
    pub(crate) logit_scale: f32,
    pub(crate) softcap: Option<f32>,
}

#[derive(Debug, Clone)]
pub(crate) enum Upstream {
    Number(f32),
    Tensor(Data),
}

impl CrossEntropyCase {
    /// f32 logits, default options.
    pub(crate) fn new(shape: &[usize], logits: &[f64], target: &[i64]) -> Self {
        Self::with_dtype(DType::F32, shape, logits, target)
    }

    pub(crate) fn with_dtype(
        dtype: DType,
        shape: &[usize],
        logits: &[f64],
        target: &[i64],
    ) -> Self {
        CrossEntropyCase {
            logits: Data::floats(dtype, shape, logits),
            target: Data::indices(DType::I64, &target_shape(shape), target),
            weight: None,
            upstream: Upstream::Number(1.0),
            ignore_index: -100,
            reduction: Reduction::Mean,
            label_smoothing: 0.0,
            lse_square_scale: 0.0,
            logit_scale: 1.0,
            softcap: None,
        }
    }

    /// `rows` × `classes` of the given kind, with targets that are kept.
    pub(crate) fn random(
        seed: u64,
        dtype: DType,
        rows: usize,
        classes: usize,
        logits: Logits,
    ) -> Self {
        let mut rng = Rng(seed);
        let values = logits.values(&mut rng, rows, classes);
        let target: Vec<i64> = (0..rows).map(|_| rng.below(classes) as i64).collect();
        Self::with_dtype(dtype, &[rows, classes], &values, &target)
    }

    pub(crate) fn options(&self) -> CrossEntropy<'_> {
        let options = CrossEntropy::default()
            .ignore_index(self.ignore_index)
            .reduction(self.reduction)
            .label_smoothing(self.label_smoothing)
            .lse_square_scale(self.lse_square_scale)
            .logit_scale(self.logit_scale)
            .softcap(self.softcap);
        match &self.weight {
            Some(weight) => options.weight(weight.view()),
            None => options,
        }
    }

    pub(crate) fn grad_output(&self) -> GradOutput<'_> {
        match &self.upstream {
            Upstream::Number(g) => (*g).into(),
            Upstream::Tensor(g) => g.view().into(),
        }
    }

    pub(crate) fn loss_shape(&self) -> &[usize] {
        match self.reduction {
            Reduction::None => self.target.shape(),
            Reduction::Sum | Reduction::Mean | Reduction::BatchMean => &[],
        }
    }

    fn reference(&self, logits: &[f64]) -> reference::CrossEntropyReference {
        let target = reference::indices(self.target.view()).expect("indices");
        let upstream = reference::upstream(self.grad_output()).expect("host memory");
        let shape = self.logits.shape();
        reference::cross_entropy(&self.options(), shape, logits, &target, &upstream)
    }
}

pub(crate) fn target_shape(logits: &[usize]) -> Vec<usize> {
    match logits {
        [_] => vec![],
        _ => [&logits[..1], &logits[2..]].concat(),
    }
}

/// The buffers of a forward pass, poisoned.
struct Out {
    loss: Data,
    lse: Data,
    z_loss: Data,
}

impl Out {
    fn new(case: &CrossEntropyCase) -> Out {
        Out {
            loss: Data::poison(DType::F32, case.loss_shape()),
            lse: Data::poison(DType::F32, case.target.shape()),
            z_loss: Data::poison(DType::F32, case.loss_shape()),
        }
    }

    fn all(&mut self) -> CrossEntropyOut<'_> {
        CrossEntropyOut {
            lse: Some(self.lse.view_mut()),
            z_loss: Some(self.z_loss.view_mut()),
            ..CrossEntropyOut::loss(self.loss.view_mut())
        }
    }

    fn got(&self, grad: &Data) -> Vec<Got> {
        grad.assert_padding_is_poison("grad_logits");
        vec![
            Got::new("loss", self.loss.view()),
            Got::new("lse", self.lse.view()),
            Got::new("z_loss", self.z_loss.view()),
            Got::new("grad_logits", grad.view()),
        ]
    }
}

impl CrossEntropyCase {
    fn allocating(&self, device: &Device) -> Result<Vec<Got>> {
        let (logits, target) = (self.logits.view(), self.target.view());
        let out = self.options().forward(device, logits, target)?;
        let lse = out.lse.view();
        let grad = self.options().backward(device, logits, target, lse, self.grad_output())?;
        Ok(vec![
            Got::new("loss", out.loss.view()),
            Got::new("lse", out.lse.view()),
            Got::new("z_loss", out.z_loss.view()),
            Got::new("grad_logits", grad.view()),
        ])
    }

    fn into(&self, device: &Device) -> Result<Vec<Got>> {
        let (logits, target) = (self.logits.view(), self.target.view());
        let mut out = Out::new(self);
        self.options().forward_into(device, logits, target, out.all())?;
        // A padding of its own, unlike the logits'.
        let mut grad = Data::poison(self.logits.dtype(), self.logits.shape()).padded(3);
        let saved = (target, out.lse.view());
        let g = self.grad_output();
        self.options().backward_into(device, logits, saved, g, grad.view_mut())?;
        Ok(out.got(&grad))
    }

    fn in_place(&self, device: &Device) -> Result<Vec<Got>> {
        let mut out = Out::new(self);
        let mut logits = self.logits.clone();
        let target = self.target.view();
        self.options().forward_into(device, logits.view(), target, out.all())?;
        let (lse, g) = (out.lse.view(), self.grad_output());
        self.options().backward_in_place(device, logits.view_mut(), target, lse, g)?;
        Ok(out.got(&logits))
    }

    fn fused(&self, device: &Device) -> Result<Vec<Got>> {
        let mut out = Out::new(self);
        let mut logits = self.logits.clone();
        let (target, g) = (self.target.view(), self.grad_output());
        let options = self.options();
        options.forward_backward_in_place(device, logits.view_mut(), target, g, out.all())?;
        Ok(out.got(&logits))
    }

    fn fused_loss_only(&self, device: &Device) -> Result<Vec<Got>> {
        let mut loss = Data::poison(DType::F32, self.loss_shape());
        let mut logits = self.logits.clone();
        let (target, g) = (self.target.view(), self.grad_output());
        let out = CrossEntropyOut::loss(loss.view_mut());
        self.options().forward_backward_in_place(device, logits.view_mut(), target, g, out)?;
        Ok(vec![Got::new("loss", loss.view()), Got::new("grad_logits", logits.view())])
    }

    fn consuming(&self, device: &Device) -> Result<Vec<Got>> {
        let logits = self.logits.tensor();
        let target = self.target.view();
        let done = self.options().forward_backward(device, logits, target, self.grad_output())?;
        Ok(vec![
            Got::new("loss", done.output.loss.view()),
            Got::new("lse", done.output.lse.view()),
            Got::new("z_loss", done.output.z_loss.view()),
            Got::new("grad_logits", done.grad_logits.view()),
        ])
    }
}

impl Case for CrossEntropyCase {
    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn expected(&self) -> Vec<Expected> {
        let reference = self.reference(&self.logits.values());
        vec![
            Expected::loss("loss", reference.loss, reference.loss_size),
            Expected::term("lse", reference.lse),
            Expected::term("z_loss", reference.z_loss),
            Expected::gradient("grad_logits", reference.grad_logits),
        ]
    }

    fn forms(&self, device: &Device) -> Vec<(&'static str, Result<Vec<Got>>)> {
        vec![
            ("allocating", self.allocating(device)),
            ("into", self.into(device)),
            ("in place", self.in_place(device)),
            ("fused", self.fused(device)),
            ("fused, loss only", self.fused_loss_only(device)),
            ("consuming", self.consuming(device)),
        ]
    }

    fn variables(&self) -> Vec<(&'static str, Vec<f64>)> {
        vec![("grad_logits", self.logits.values())]
    }

    fn objective(&self, _: &str, input: &[f64]) -> f64 {
        let upstream = reference::upstream(self.grad_output()).expect("host memory");
        let loss = self.reference(input).loss;
        let g = |row: usize| upstream[if upstream.len() == 1 { 0 } else { row }];
        loss.iter().enumerate().map(|(row, loss)| g(row) * loss).sum()
    }
}

/// What a random case is made from; printed when it fails.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) seed: u64,
    pub(crate) shape: Vec<usize>,
    pub(crate) padding: usize,
    pub(crate) dtypes: (DType, DType),
    pub(crate) logits: Logits,
    pub(crate) weights: Weights,
    pub(crate) ignored: Ignored,
    pub(crate) upstream: UpstreamKind,
    pub(crate) reduction: Reduction,
    pub(crate) smoothing: f64,
    pub(crate) extensions: (f64, f32, Option<f32>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Weights {
    None,
    /// In [0, 2), a fifth of them exactly 0, in f32 or in the logits' dtype.
    Positive(bool),
    /// Some negative.
    Mixed,
    Zero,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Ignored {
    None,
    /// About every third row, its logits poisoned.
    Some,
    All,
    /// Label 0: a class like others.
    Class,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum UpstreamKind {
    One,
    Number,
    /// Per row where the loss is, NaN on ignored rows; in f32 or in the logits' dtype.
    Tensor(bool),
}

/// Sizes about the widths of vectors (8, 16, 32) and of blocks (2048, 4096).
const CLASSES: &[usize] = &[1, 2, 7, 8, 9, 16, 31, 33, 65, 100, 1000, 2047, 2048, 2049, 4097];

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    let classes = || prop::sample::select(CLASSES);
    // Where positions are many, classes are few.
    let few = || prop::sample::select(&CLASSES[..10]);
    prop_oneof![
        1 => classes().prop_map(|c| vec![c]),
        6 => (0usize..7, classes()).prop_map(|(n, c)| vec![n, c]),
        2 => (0usize..4, few(), 0usize..9).prop_map(|(n, c, d)| vec![n, c, d]),
        1 => (1usize..4, few(), 1usize..5, 1usize..4).prop_map(|(n, c, d, e)| vec![n, c, d, e]),
    ]
}

pub(crate) fn recipes() -> impl Strategy<Value = Recipe> {
    use prop::sample::select;
    let index = select(&[DType::I64, DType::I32, DType::U32, DType::U8][..]);
    let weights = prop_oneof![
        4 => Just(Weights::None),
        4 => any::<bool>().prop_map(Weights::Positive),
        2 => Just(Weights::Mixed),
        1 => Just(Weights::Zero),
    ];
    let ignored =
        select(&[Ignored::None, Ignored::Some, Ignored::Some, Ignored::All, Ignored::Class][..]);
    let upstream = prop_oneof![
        Just(UpstreamKind::One),
        Just(UpstreamKind::Number),
        any::<bool>().prop_map(UpstreamKind::Tensor),
    ];
    let extensions = prop_oneof![
        2 => Just((0.0, 1.0, None)),
        1 => Just((1e-2, 1.0, None)),
        1 => Just((0.0, 0.6, None)),
        1 => Just((0.0, 1.7, Some(5.0))),
        1 => Just((1e-4, 0.6, Some(30.0))),
    ];
    (
        any::<u64>(),
        shapes(),
        0usize..6,
        (select(&FLOATS[..]), index),
        select(&Logits::ALL[..]),
        weights,
        ignored,
        upstream,
        select(&[Reduction::None, Reduction::Sum, Reduction::Mean][..]),
        // Not 1: equal logits then have a gradient of 0 everywhere, a difference of equal terms,
        // and a tolerance relative to the largest gradient would ask for exactness.
        select(&[0.0, 0.0, 0.1, 0.9][..]),
        extensions,
    )
        .prop_map(
            |(
                seed,
                shape,
                padding,
                dtypes,
                logits,
                weights,
                ignored,
                upstream,
                reduction,
                smoothing,
                extensions,
            )| Recipe {
                seed,
                shape,
                padding,
                dtypes,
                logits,
                weights,
                ignored,
                upstream,
                reduction,
                smoothing,
                extensions,
            },
        )
}

impl Recipe {
    pub(crate) fn case(&self) -> CrossEntropyCase {
        let mut rng = Rng(self.seed);
        let (dtype, index) = self.dtypes;
        let class_dim = usize::from(self.shape.len() > 1);
        let classes = self.shape[class_dim];
        let lines = Lines::new(&self.shape, &[class_dim]);
        let rows = lines.bases.len();

        let ignore_index = match (self.ignored, index) {
            (Ignored::Class, _) => 0,
            (_, DType::U32 | DType::U8) => 255,
            _ => -100,
        };
        let limit = if index == DType::U8 { classes.min(256) } else { classes };
        let target: Vec<i64> = (0..rows)
            .map(|_| match self.ignored {
                Ignored::All => ignore_index,
                Ignored::Some if rng.unit() < 0.35 => ignore_index,
                Ignored::None | Ignored::Some | Ignored::Class => rng.below(limit) as i64,
            })
            .collect();

        // With one class left of two, every gradient may be 0, a difference of equal terms: a
        // tolerance relative to the largest gradient would ask for exactness.
        let logits = match self.logits {
            Logits::Masked | Logits::MaskedFront if classes == 2 => Logits::Normal,
            logits => logits,
        };
        let by_row = logits.values(&mut rng, rows, classes);
        let mut logits = vec![0.0; by_row.len()];
        for (row, base) in lines.bases.iter().enumerate() {
            let broken = target[row] == ignore_index;
            for (class, offset) in lines.offsets.iter().enumerate() {
                let value = if broken { f64::NAN } else { by_row[row * classes + class] };
                logits[base + offset] = value;
            }
        }

        let weight = |own: bool, value: &mut dyn FnMut() -> f64| {
            let values: Vec<f64> = (0..classes).map(|_| value()).collect();
            Data::floats(if own { dtype } else { DType::F32 }, &[classes], &values)
        };
        let weight = match self.weights {
            Weights::None => None,
            Weights::Positive(own) => Some(weight(own, &mut || {
                if rng.unit() < 0.2 { 0.0 } else { 2.0 * rng.unit() }
            })),
            Weights::Mixed => Some(weight(false, &mut || 2.0 * rng.unit() - 0.5)),
            Weights::Zero => Some(weight(false, &mut || 0.0)),
        };

        let upstream = match self.upstream {
            UpstreamKind::One => Upstream::Number(1.0),
            UpstreamKind::Number => Upstream::Number(-1.75),
            UpstreamKind::Tensor(own) => {
                let dtype = if own { dtype } else { DType::F32 };
                let shape = target_shape(&self.shape);
                Upstream::Tensor(match self.reduction {
                    Reduction::None => {
                        let g = |&t: &i64| if t == ignore_index { f64::NAN } else { rng.normal() };
                        Data::floats(dtype, &shape, &target.iter().map(g).collect::<Vec<_>>())
                    }
                    Reduction::Sum | Reduction::Mean | Reduction::BatchMean => {
                        Data::floats(dtype, &[], &[rng.normal()])
                    }
                })
            }
        };

        let (lse_square_scale, logit_scale, softcap) = self.extensions;
        CrossEntropyCase {
            logits: Data::floats(dtype, &self.shape, &logits).padded(self.padding),
            target: Data::indices(index, &target_shape(&self.shape), &target),
            weight,
            upstream,
            ignore_index,
            reduction: self.reduction,
            label_smoothing: self.smoothing,
            lse_square_scale,
            logit_scale,
            softcap,
        }
    }
}

impl CrossEntropyCase {
    /// A case of `cross_entropy.safetensors`.
    pub(crate) fn golden(golden: &Golden<'_>) -> CrossEntropyCase {
        let upstream = match golden.data("grad_output") {
            Some(g) => Upstream::Tensor(g),
            None => Upstream::Number(1.0),
        };
        CrossEntropyCase {
            // Padding that PyTorch did not have: nothing may depend on it.
            logits: golden.data("logits").expect("logits").padded(golden.name.len() % 4),
            target: golden.data("target").expect("target"),
            weight: golden.data("weight"),
            upstream,
            ignore_index: golden.options["ignore_index"].as_i64().expect("ignore_index"),
            reduction: golden.reduction(),
            label_smoothing: golden.number("label_smoothing"),
            lse_square_scale: golden.number("lse_square_scale"),
            logit_scale: golden.number("logit_scale") as f32,
            softcap: golden.options["softcap"].as_f64().map(|cap| cap as f32),
        }
    }
}
