//! Cross entropy with class indices.

use super::targets::unread;
use super::{Call, Draw, First, Labels, logits_shape};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::cases::{Case, Values};
use crate::check::random::Random;
use crate::check::subject::{Expected, Outcome, Quantity};
use crate::check::{reference, typed};
use crate::device::Device;
use crate::spec::cross_entropy::{CrossEntropy, CrossEntropyOut};
use std::fmt;

pub(in crate::check) const DRAW: Draw = Draw { shape: logits_shape, call: draw };

/// Options and tensors, owned.
#[derive(Debug)]
struct CrossEntropyCall {
    labels: Labels,
    options: CrossEntropy<'static>,
}

impl CrossEntropyCall {
    /// The loss with its options.
    fn loss(&self) -> CrossEntropy<'_> {
        match &self.labels.weight {
            Some(weight) => self.options.clone().weight(weight.view()),
            None => self.options.clone(),
        }
    }
}

impl Call for CrossEntropyCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CrossEntropyCall { labels, options } = self;
        write!(f, "{labels}, label_smoothing {}", options.label_smoothing)?;
        write!(f, ", lse_square_scale {}", options.lse_square_scale)?;
        write!(f, ", logit_scale {}, softcap {:?}", options.logit_scale, options.softcap)
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let x = case.input()?.to_f64()?;
        let target = reference::indices(self.labels.target.view())?;
        let g = reference::upstream(self.labels.grad_output.view())?;
        let out = reference::cross_entropy(&self.loss(), &case.shape, &x, &target, &g);
        let [argmax, rank] = reference::ranks(&case.shape, &x, &target, self.labels.ignore_index);
        Ok(vec![
            Expected::loss(Quantity::Loss, out.loss, out.loss_size),
            Expected::term(Quantity::ZLoss, out.z_loss),
            Expected::term(Quantity::Lse, out.lse),
            Expected::gradient(Quantity::Gradient, out.grad_logits),
            Expected::term(Quantity::Argmax, argmax),
            Expected::term(Quantity::Rank, rank),
        ])
    }

    /// Forward, with and without ranks, backward from its log-sum-exp, and the fused call on a
    /// copy of the logits.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let (logits, target, loss) = (case.input()?, self.labels.target.view(), self.loss());
        let g = self.labels.grad_output.view();
        let out = loss.forward(device, logits, target)?;
        let grad = loss.backward(device, logits, target, out.lse.view(), g)?;
        let (ranked, ranks) = loss.forward_with_ranks(device, logits, target)?;

        let mut memory = case.memory.clone();
        let mut fused_loss = Tensor::zeros("loss", DType::F32, out.loss.shape())?;
        let mut fused_lse = Tensor::zeros("lse", DType::F32, out.lse.shape())?;
        let fused = CrossEntropyOut {
            lse: Some(fused_lse.view_mut()),
            ..CrossEntropyOut::loss(fused_loss.view_mut())
        };
        let view = typed::strided_mut(&mut memory, &case.shape, case.row_stride)?;
        loss.forward_backward_in_place(device, view, target, g, fused)?;
        let pass = "forward-backward";
        let gradient = typed::strided(&memory, &case.shape, case.row_stride)?;
        Ok(vec![
            Outcome::new(Quantity::Loss, "forward", out.loss.view())?,
            Outcome::new(Quantity::ZLoss, "forward", out.z_loss.view())?,
            Outcome::new(Quantity::Lse, "forward", out.lse.view())?,
            Outcome::new(Quantity::Gradient, "backward", grad.view())?,
            Outcome::new(Quantity::Loss, "forward with ranks", ranked.loss.view())?,
            Outcome::new(Quantity::Argmax, "forward with ranks", ranks.argmax.view())?,
            Outcome::new(Quantity::Rank, "forward with ranks", ranks.rank.view())?,
            Outcome::new(Quantity::Loss, pass, fused_loss.view())?,
            Outcome::new(Quantity::Lse, pass, fused_lse.view())?,
            Outcome::new(Quantity::Gradient, pass, gradient)?,
            Outcome::padding(case, pass, &memory)?,
        ])
    }

    fn unread(&self, case: &Case) -> Result<Vec<usize>> {
        unread(case, self.labels.target.view(), self.labels.ignore_index)
    }
}

/// Scales and caps whose ratio or whose products with logits may leave f32.
const ENDS: [(f32, Option<f32>); 8] = [
    (1e-20, Some(1e26)),
    (1e30, Some(1e-30)),
    (1e-30, Some(1e30)),
    (1.0, Some(1e-42)),
    (1.0, Some(3e38)),
    (1e-42, None),
    (1e-30, None),
    (1e-20, Some(1e-20)),
];

fn draw(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    let values = first.values;
    let labels = Labels::draw(random, first)?;
    // Full smoothing of nearly equal logits (an offset makes them so in 16 bits): every gradient
    // is a difference of nearly equal terms, which no f32 keeps to a share of that difference.
    let cancels = matches!(values, Values::Tiny | Values::Equal | Values::Offset);
    let smoothing: &[f64] = if cancels { &[0.0, 0.1] } else { &[0.0, 0.0, 0.1, 1.0] };
    let scales: &[f32] = if values.moderate() { &[1.0, 0.7, 2.0] } else { &[1.0, 0.5, 2.0] };
    let caps: &[Option<f32>] = if values.moderate() { &[None, None, Some(30.0)] } else { &[None] };
    // Now and then from the ends of f32, where logits are neither large nor infinite.
    let ends = values.moderate() && values.finite() && random.one_in(8);
    let (scale, cap) = match ends {
        true => random.pick(&ENDS),
        false => (random.pick(scales), random.pick(caps)),
    };
    let options = CrossEntropy::default()
        .ignore_index(labels.ignore_index)
        .reduction(labels.reduction)
        .label_smoothing(random.pick(smoothing))
        .lse_square_scale(random.pick(&[0.0, 0.0, 1e-4, 0.1]))
        .logit_scale(scale)
        .softcap(cap);
    Ok(Box::new(CrossEntropyCall { labels, options }))
}
