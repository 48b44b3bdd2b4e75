//! Cross entropy as a case: its options, its calls, its random cases.

mod recipes;

use crate::data::{Data, Logits, Rng};
use crate::golden::Golden;
use crate::harness::{Case, Expected, Got};
pub(crate) use recipes::{Ignored, Recipe, UpstreamKind, Weights, recipes};
use warploss::check::reference;
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

impl Upstream {
    pub(crate) fn grad_output(&self) -> GradOutput<'_> {
        match self {
            Upstream::Number(g) => (*g).into(),
            Upstream::Tensor(g) => g.view().into(),
        }
    }

    /// Σ g·loss, of losses of elements or rows, or one.
    pub(crate) fn objective(&self, loss: &[f64]) -> f64 {
        let upstream = reference::upstream(self.grad_output()).expect("host memory");
        let g = |i: usize| upstream[if upstream.len() == 1 { 0 } else { i }];
        loss.iter().enumerate().map(|(i, loss)| g(i) * loss).sum()
    }
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
        self.upstream.grad_output()
    }

    pub(crate) fn loss_shape(&self) -> &[usize] {
        match self.reduction {
            Reduction::None => self.target.shape(),
            Reduction::Sum | Reduction::Mean | Reduction::BatchMean => &[],
        }
    }

    pub(crate) fn reference(&self, logits: &[f64]) -> reference::CrossEntropyReference {
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

    /// The loss alone beside the gradient, of logits that are kept.
    fn kept_loss_only(&self, device: &Device) -> Result<Vec<Got>> {
        let mut loss = Data::poison(DType::F32, self.loss_shape());
        // A padding of its own, unlike the logits'.
        let mut grad = Data::poison(self.logits.dtype(), self.logits.shape()).padded(5);
        let (logits, target, g) = (self.logits.view(), self.target.view(), self.grad_output());
        let out = CrossEntropyOut::loss(loss.view_mut());
        let before = self.logits.bits();
        let options = self.options();
        options.forward_backward_into(device, logits, target, g, grad.view_mut(), out)?;
        assert!(self.logits.bits() == before, "logits that are kept were written to");
        grad.assert_padding_is_poison("grad_logits");
        Ok(vec![Got::new("loss", loss.view()), Got::new("grad_logits", grad.view())])
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
            ("kept, loss only", self.kept_loss_only(device)),
            ("consuming", self.consuming(device)),
        ]
    }

    fn variables(&self) -> Vec<(&'static str, Vec<f64>)> {
        vec![("grad_logits", self.logits.values())]
    }

    fn objective(&self, _: &str, input: &[f64]) -> f64 {
        self.upstream.objective(&self.reference(input).loss)
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
