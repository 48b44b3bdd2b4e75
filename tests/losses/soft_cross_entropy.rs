//! Cross entropy against probabilities, or a teacher's logits, as a case.

use crate::cross_entropy::{self, Recipe, Upstream, Weights, target_shape};
use crate::data::{Data, Logits, Rng};
use crate::golden::Golden;
use crate::harness::{Case, Expected, Got};
use proptest::prelude::*;
use warploss::check::reference::{self, CrossEntropyReference};
use warploss::{
    CrossEntropy, CrossEntropyGradients, CrossEntropyOut, DType, Device, GradOutput, Reduction,
    Result, TensorMut,
};

#[derive(Debug, Clone)]
pub(crate) struct SoftCrossEntropyCase {
    pub(crate) logits: Data,
    /// Probabilities, or with a teacher's scale its logits.
    pub(crate) target: Data,
    pub(crate) teacher_scale: Option<f32>,
    pub(crate) weight: Option<Data>,
    pub(crate) upstream: Upstream,
    pub(crate) reduction: Reduction,
    pub(crate) label_smoothing: f64,
    pub(crate) lse_square_scale: f64,
    pub(crate) logit_scale: f32,
    pub(crate) softcap: Option<f32>,
}

impl SoftCrossEntropyCase {
    /// Default options.
    pub(crate) fn new(dtype: DType, shape: &[usize], logits: &[f64], target: &[f64]) -> Self {
        SoftCrossEntropyCase {
            logits: Data::floats(dtype, shape, logits),
            target: Data::floats(dtype, shape, target),
            teacher_scale: None,
            weight: None,
            upstream: Upstream::Number(1.0),
            reduction: Reduction::Mean,
            label_smoothing: 0.0,
            lse_square_scale: 0.0,
            logit_scale: 1.0,
            softcap: None,
        }
    }

    /// `rows` × `classes` of the given kind, against random probabilities.
    pub(crate) fn random(
        seed: u64,
        dtype: DType,
        (rows, classes): (usize, usize),
        logits: Logits,
    ) -> Self {
        let mut rng = Rng(seed);
        let values = logits.values(&mut rng, rows, classes);
        let target = probabilities(&mut rng, rows, classes, Probabilities::Simplex);
        Self::new(dtype, &[rows, classes], &values, &target)
    }

    pub(crate) fn options(&self) -> CrossEntropy<'_> {
        let options = CrossEntropy::default()
            .reduction(self.reduction)
            .label_smoothing(self.label_smoothing)
            .lse_square_scale(self.lse_square_scale)
            .logit_scale(self.logit_scale)
            .softcap(self.softcap)
            .teacher_scale(self.teacher_scale);
        match &self.weight {
            Some(weight) => options.weight(weight.view()),
            None => options,
        }
    }

    fn grad_output(&self) -> GradOutput<'_> {
        self.upstream.grad_output()
    }

    fn reference(&self, logits: &[f64], target: &[f64]) -> (CrossEntropyReference, Vec<f64>) {
        let upstream = reference::upstream(self.grad_output()).expect("host memory");
        let shape = self.logits.shape();
        reference::soft_cross_entropy(&self.options(), shape, logits, target, &upstream)
    }
}

/// The buffers of a call, poisoned.
struct Out {
    loss: Data,
    lse: Data,
    z_loss: Data,
    /// Where the target has a gradient and the form asks for it.
    grad_target: Option<Data>,
}

impl Out {
    fn new(case: &SoftCrossEntropyCase, grad_target: bool) -> Out {
        let rows = target_shape(case.logits.shape());
        let shape = if case.reduction == Reduction::None { &rows[..] } else { &[] };
        let grad_target = grad_target && case.teacher_scale.is_none();
        Out {
            loss: Data::poison(DType::F32, shape),
            lse: Data::poison(DType::F32, &rows),
            z_loss: Data::poison(DType::F32, shape),
            grad_target: grad_target
                .then(|| Data::poison(case.target.dtype(), case.target.shape()).padded(5)),
        }
    }

    fn split<'a>(
        &'a mut self,
        logits: TensorMut<'a>,
    ) -> (CrossEntropyOut<'a>, CrossEntropyGradients<'a>) {
        let out = CrossEntropyOut {
            lse: Some(self.lse.view_mut()),
            z_loss: Some(self.z_loss.view_mut()),
            ..CrossEntropyOut::loss(self.loss.view_mut())
        };
        let target = self.grad_target.as_mut().map(|t| t.view_mut());
        (out, CrossEntropyGradients { logits, target })
    }

    fn got(&self, grad: &Data) -> Vec<Got> {
        grad.assert_padding_is_poison("grad_logits");
        let mut got = vec![
            Got::new("loss", self.loss.view()),
            Got::new("lse", self.lse.view()),
            Got::new("z_loss", self.z_loss.view()),
            Got::new("grad_logits", grad.view()),
        ];
        if let Some(grad) = &self.grad_target {
            grad.assert_padding_is_poison("grad_target");
            got.push(Got::new("grad_target", grad.view()));
        }
        got
    }
}

impl SoftCrossEntropyCase {
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
        let mut out = Out::new(self, true);
        let mut grad = Data::poison(self.logits.dtype(), self.logits.shape()).padded(3);
        let saved = Data::poison(DType::F32, &target_shape(self.logits.shape()));
        let options = self.options();
        let (results, gradients) = out.split(grad.view_mut());
        options.forward_into(device, logits, target, results)?;
        let saved = (target, saved.view());
        options.backward_into(device, logits, saved, self.grad_output(), gradients)?;
        Ok(out.got(&grad))
    }

    fn in_place(&self, device: &Device) -> Result<Vec<Got>> {
        let mut out = Out::new(self, false);
        let mut logits = self.logits.clone();
        let (target, g) = (self.target.view(), self.grad_output());
        let options = self.options();
        options.forward_into(device, self.logits.view(), target, out.split(logits.view_mut()).0)?;
        options.backward_in_place(device, logits.view_mut(), target, out.lse.view(), g)?;
        Ok(out.got(&logits))
    }

    fn fused(&self, device: &Device, grad_target: bool) -> Result<Vec<Got>> {
        let mut out = Out::new(self, grad_target);
        let mut logits = self.logits.clone();
        let (target, g) = (self.target.view(), self.grad_output());
        let (results, gradients) = out.split(logits.view_mut());
        self.options().forward_backward_in_place(device, gradients, target, g, results)?;
        Ok(out.got(&logits))
    }

    fn consuming(&self, device: &Device) -> Result<Vec<Got>> {
        let (logits, target) = (self.logits.tensor(), self.target.view());
        let done = self.options().forward_backward(device, logits, target, self.grad_output())?;
        Ok(vec![
            Got::new("loss", done.output.loss.view()),
            Got::new("lse", done.output.lse.view()),
            Got::new("z_loss", done.output.z_loss.view()),
            Got::new("grad_logits", done.grad_logits.view()),
        ])
    }
}

impl Case for SoftCrossEntropyCase {
    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn expected(&self) -> Vec<Expected> {
        let (out, grad_target) = self.reference(&self.logits.values(), &self.target.values());
        let mut expected = vec![
            Expected::loss("loss", out.loss, out.loss_size),
            Expected::term("lse", out.lse),
            Expected::term("z_loss", out.z_loss),
            Expected::gradient("grad_logits", out.grad_logits),
        ];
        if self.teacher_scale.is_none() {
            expected.push(Expected::gradient("grad_target", grad_target));
        }
        expected
    }

    fn forms(&self, device: &Device) -> Vec<(&'static str, Result<Vec<Got>>)> {
        vec![
            ("allocating", self.allocating(device)),
            ("into", self.into(device)),
            ("in place", self.in_place(device)),
            ("fused", self.fused(device, false)),
            ("fused, with the target's gradient", self.fused(device, true)),
            ("consuming", self.consuming(device)),
        ]
    }

    fn variables(&self) -> Vec<(&'static str, Vec<f64>)> {
        let mut variables = vec![("grad_logits", self.logits.values())];
        if self.teacher_scale.is_none() {
            variables.push(("grad_target", self.target.values()));
        }
        variables
    }

    fn objective(&self, gradient: &str, values: &[f64]) -> f64 {
        let loss = match gradient {
            "grad_target" => self.reference(&self.logits.values(), values).0.loss,
            _ => self.reference(values, &self.target.values()).0.loss,
        };
        self.upstream.objective(&loss)
    }
}

/// What the targets of a random case are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Probabilities {
    /// Positive, with sum 1.
    Simplex,
    /// One class has all, the others exactly 0.
    OneHot,
    /// Any numbers, a quarter of them 0.
    Any,
    /// A teacher's logits.
    Teacher(Logits),
}

/// Rows of targets, one after another.
pub(crate) fn probabilities(
    rng: &mut Rng,
    rows: usize,
    classes: usize,
    kind: Probabilities,
) -> Vec<f64> {
    if let Probabilities::Teacher(logits) = kind {
        return logits.values(rng, rows, classes);
    }
    let mut values = Vec::with_capacity(rows * classes);
    for _ in 0..rows {
        let hot = rng.below(classes);
        let mut row: Vec<f64> = (0..classes)
            .map(|class| match kind {
                Probabilities::OneHot => f64::from(u8::from(class == hot)),
                Probabilities::Any if rng.unit() < 0.25 => 0.0,
                Probabilities::Any => rng.normal(),
                Probabilities::Simplex | Probabilities::Teacher(_) => 0.01 + rng.unit(),
            })
            .collect();
        if kind == Probabilities::Simplex {
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|q| *q /= sum);
        }
        values.extend(row);
    }
    values
}

#[derive(Debug, Clone)]
pub(crate) struct SoftRecipe {
    pub(crate) base: Recipe,
    pub(crate) target: Probabilities,
    pub(crate) padding: usize,
    pub(crate) teacher_scale: f32,
}

pub(crate) fn recipes() -> impl Strategy<Value = SoftRecipe> {
    let target = prop_oneof![
        2 => Just(Probabilities::Simplex),
        2 => Just(Probabilities::OneHot),
        1 => Just(Probabilities::Any),
        3 => prop::sample::select(&Logits::ALL[..]).prop_map(Probabilities::Teacher),
    ];
    let scale = prop::sample::select(&[1.0f32, 0.5, 1.7][..]);
    (cross_entropy::recipes(), target, 0usize..6, scale).prop_map(
        |(base, target, padding, teacher_scale)| SoftRecipe {
            base,
            target,
            padding,
            teacher_scale,
        },
    )
}

impl SoftRecipe {
    pub(crate) fn case(&self) -> SoftCrossEntropyCase {
        // No row is ignored; weights of either sign on targets of either sign cancel.
        let mut base = self.base.clone();
        base.ignored = cross_entropy::Ignored::None;
        if base.weights == Weights::Mixed {
            base.weights = Weights::Positive(false);
        }
        let case = base.case();
        let shape = case.logits.shape().to_vec();
        let class_dim = usize::from(shape.len() > 1);
        let lines = reference::Lines::new(&shape, &[class_dim]);
        let (rows, classes) = (lines.bases.len(), shape[class_dim]);
        let mut rng = Rng(base.seed ^ 0x7ea);
        let by_row = probabilities(&mut rng, rows, classes, self.target);
        let mut target = vec![0.0; by_row.len()];
        for (row, at) in lines.bases.iter().enumerate() {
            for (class, offset) in lines.offsets.iter().enumerate() {
                target[at + offset] = by_row[row * classes + class];
            }
        }
        let teacher = matches!(self.target, Probabilities::Teacher(_));
        SoftCrossEntropyCase {
            target: Data::floats(case.logits.dtype(), &shape, &target).padded(self.padding),
            teacher_scale: teacher.then_some(self.teacher_scale),
            weight: case.weight,
            upstream: case.upstream,
            reduction: case.reduction,
            label_smoothing: case.label_smoothing,
            lse_square_scale: case.lse_square_scale,
            logit_scale: case.logit_scale,
            softcap: case.softcap,
            logits: case.logits,
        }
    }
}

impl SoftCrossEntropyCase {
    /// A case of `soft_cross_entropy.safetensors`.
    pub(crate) fn golden(golden: &Golden<'_>) -> SoftCrossEntropyCase {
        let option = |name: &str| golden.options[name].as_f64().map(|v| v as f32);
        SoftCrossEntropyCase {
            logits: golden.data("logits").expect("logits").padded(golden.name.len() % 4),
            target: golden.data("target").expect("target").padded(golden.name.len() % 3),
            teacher_scale: option("teacher_scale"),
            weight: golden.data("weight"),
            upstream: match golden.data("grad_output") {
                Some(g) => Upstream::Tensor(g),
                None => Upstream::Number(1.0),
            },
            reduction: golden.reduction(),
            label_smoothing: golden.number("label_smoothing"),
            lse_square_scale: golden.number("lse_square_scale"),
            logit_scale: golden.number("logit_scale") as f32,
            softcap: option("softcap"),
        }
    }
}
