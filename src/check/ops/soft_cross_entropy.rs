//! Cross entropy against probabilities or a teacher's logits.

use super::cross_entropy;
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::Tensor;
use crate::check::bench::soft_cross_entropy::SoftCrossEntropyBench;
use crate::check::bench::{Kind, Measured};
use crate::check::case::{Call, Case, Draw, First};
use crate::check::draw::labels::{grad_output, rows_of, weight};
use crate::check::draw::{Upstream, logits_shape};
use crate::check::entry::{Calls, Entry, Traits};
use crate::check::outcome::{Expected, Outcome, Quantity};
use crate::check::random::Random;
use crate::check::values::Values;
use crate::check::{reference, typed};
use crate::device::Device;
use crate::spec::cross_entropy::{CrossEntropy, CrossEntropyGradients, CrossEntropyOut};
use std::fmt;

/// Calls are cross entropy's, but for what the target is.
pub(in crate::check) const ENTRY: Entry = Entry {
    name: "soft-cross-entropy",
    cases: Draw { shape: logits_shape, rest: case },
    calls: Calls {
        draw: |d| cross_entropy::draw_against(d, false),
        run: cross_entropy::run,
        expect: cross_entropy::expect,
        saved: Some(("lse", cross_entropy::lse)),
    },
    evaluated: None,
    measured: &[
        Measured {
            name: "soft-cross-entropy",
            help: "Cross entropy against probabilities, fused in place where forward-backward",
            kind: Kind::Rows(&SoftCrossEntropyBench { teacher_scale: None }),
        },
        Measured {
            name: "distillation",
            help: "The same against a teacher's logits",
            kind: Kind::Rows(&SoftCrossEntropyBench { teacher_scale: Some(1.0) }),
        },
    ],
    traits: Traits { factors: &["target"], ..Traits::PLAIN },
};

/// Options and tensors, owned.
#[derive(Debug)]
struct SoftCrossEntropyCall {
    target: Tensor,
    weight: Option<Tensor>,
    options: CrossEntropy<'static>,
    grad_output: Upstream,
}

impl SoftCrossEntropyCall {
    /// The loss with its options.
    fn loss(&self) -> CrossEntropy<'_> {
        match &self.weight {
            Some(weight) => self.options.clone().weight(weight.view()),
            None => self.options.clone(),
        }
    }
}

impl Call for SoftCrossEntropyCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SoftCrossEntropyCall { weight, options, grad_output, .. } = self;
        let weight = weight.as_ref().map(Tensor::dtype);
        write!(f, ", weight {weight:?}, {}", options.reduction)?;
        write!(f, ", teacher_scale {:?}", options.teacher_scale)?;
        write!(f, ", label_smoothing {}", options.label_smoothing)?;
        write!(f, ", lse_square_scale {}", options.lse_square_scale)?;
        write!(f, ", logit_scale {}", options.logit_scale)?;
        write!(f, ", softcap {:?}, grad_output {grad_output}", options.softcap)
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let (x, target) = (case.input()?.to_f64()?, self.target.view().to_f64()?);
        let g = reference::upstream(self.grad_output.view())?;
        let (out, grad_target) =
            reference::soft_cross_entropy(&self.loss(), &case.shape, &x, &target, &g);
        Ok(vec![
            Expected::loss(Quantity::Loss, out.loss, out.loss_size),
            Expected::term(Quantity::ZLoss, out.z_loss),
            Expected::term(Quantity::Lse, out.lse),
            Expected::gradient(Quantity::Gradient, out.grad_logits),
            Expected::gradient(Quantity::TargetGradient, grad_target),
        ])
    }

    /// Forward, backward, and the fused call on a copy of the logits, with the gradient of
    /// probabilities where they have one.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let (logits, target, loss) = (case.input()?, self.target.view(), self.loss());
        let g = self.grad_output.view();
        let out = loss.forward(device, logits, target)?;
        let grad = loss.backward(device, logits, target, out.lse.view(), g)?;

        let mut memory = case.memory.clone();
        let mut fused_loss = Tensor::zeros_for("loss", DType::F32, out.loss.shape())?;
        let mut grad_target = match loss.teacher_scale {
            None => Some(Tensor::zeros_for("grad_target", target.dtype(), target.shape())?),
            Some(_) => None,
        };
        let gradients = CrossEntropyGradients {
            logits: typed::strided_mut(&mut memory, &case.shape, case.row_stride)?,
            target: grad_target.as_mut().map(Tensor::view_mut),
        };
        let fused = CrossEntropyOut::loss(fused_loss.view_mut());
        loss.forward_backward_in_place(device, gradients, target, g, fused)?;
        let pass = "forward-backward";
        let gradient = typed::strided(&memory, &case.shape, case.row_stride)?;
        let mut outcomes = vec![
            Outcome::new(Quantity::Loss, "forward", out.loss.view())?,
            Outcome::new(Quantity::ZLoss, "forward", out.z_loss.view())?,
            Outcome::new(Quantity::Lse, "forward", out.lse.view())?,
            Outcome::new(Quantity::Gradient, "backward", grad.view())?,
            Outcome::new(Quantity::Loss, pass, fused_loss.view())?,
            Outcome::new(Quantity::Gradient, pass, gradient)?,
            case.padding(pass, &memory)?,
        ];
        if let Some(grad) = &grad_target {
            outcomes.push(Outcome::new(Quantity::TargetGradient, pass, grad.view())?);
        }
        Ok(outcomes)
    }
}

fn case(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let First { values, dtype, shape, .. } = *first;
    let (classes, rows) = rows_of(shape);
    let elements: usize = shape.iter().product();
    // Equal logits against equal targets: gradients that are differences of equal terms, which no
    // f32 keeps to a share of that difference.
    let cancels = matches!(values, Values::Tiny | Values::Equal | Values::Offset);
    let smoothing: &[f64] = if cancels { &[0.0, 0.1] } else { &[0.0, 0.0, 0.1, 1.0] };
    let reduction = random.pick(&[Reduction::None, Reduction::Sum, Reduction::Mean]);
    let teacher = random.one_in(3);
    let scales: &[f32] = if values.moderate() { &[1.0, 0.7, 2.0] } else { &[1.0, 0.5, 2.0] };
    let caps: &[Option<f32>] = if values.moderate() { &[None, None, Some(30.0)] } else { &[None] };
    let options = CrossEntropy::default()
        .reduction(reduction)
        .label_smoothing(random.pick(smoothing))
        .lse_square_scale(random.pick(&[0.0, 0.0, 1e-4, 0.1]))
        .logit_scale(random.pick(scales))
        .softcap(random.pick(caps))
        .teacher_scale(teacher.then(|| random.pick(&[1.0, 0.25, 1.5])));
    let zeros = random.pick(if cancels { &[4, 1000][..] } else { &[1, 4, 1000] });
    let one = |_| match (teacher, random.one_in(zeros)) {
        (true, true) => f64::NEG_INFINITY,
        (true, false) => 2.5 * f64::from(random.normal()),
        (false, true) => 0.0,
        (false, false) => f64::from(random.normal()).abs() / classes as f64,
    };
    let target: Vec<f64> = (0..elements).map(one).collect();
    Ok(Box::new(SoftCrossEntropyCall {
        target: typed::tensor(dtype, shape, &target)?,
        weight: weight(random, dtype, classes)?,
        options,
        grad_output: grad_output(random, dtype, reduction, &rows)?,
    }))
}
